"""A Bundle as a list of parameters, as in PHOEBE's files but without loss.

PHOEBE's own list omits parameters in unknown contexts (clients' `ui`), rounds the times of models
to six digits, and omits the choices of units. Stock PHOEBE can read the list of this module.
"""

from __future__ import annotations

from typing import Any


def parameters_of(bundle: Any) -> list[dict[str, Any]]:
    """The parameters of the Bundle. Runs no constraints."""
    return sorted_by_context([_fields(parameter) for parameter in bundle._params])


def sorted_by_context(parameters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort into PHOEBE's order, in which parameters follow those that they refer to."""
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
