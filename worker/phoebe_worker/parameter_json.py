"""A Bundle as the list of parameters that PHOEBE's files are, with what PHOEBE's own list lacks.

PHOEBE leaves out parameters in contexts that it does not know (clients' `ui`), rounds times of
models to six digits, and forgets the choices of units; all of it can be read by stock PHOEBE.
"""

from __future__ import annotations

from typing import Any


def parameters_of(bundle: Any) -> list[dict[str, Any]]:
    """The Bundle as it is: no constraint is run."""
    return sorted_by_context([_fields(parameter) for parameter in bundle._params])


def sorted_by_context(parameters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In PHOEBE's order, which reading relies on: what is referred to comes first."""
    from phoebe.parameters.parameters import _contexts

    place = {context: index for index, context in enumerate(_contexts)}
    return sorted(parameters, key=lambda each: place.get(each.get("context"), len(place)))


def _fields(parameter: Any) -> dict[str, Any]:
    fields: dict[str, Any] = parameter.to_json(incl_uniqueid=True)
    time = parameter._time
    if time is not None and not isinstance(time, str):
        fields["time"] = float(time)
    if parameter._advanced:
        fields["advanced"] = True
    choices = getattr(parameter, "_choices", None)
    if choices is not None:
        fields["choices"] = list(choices)
    return fields
