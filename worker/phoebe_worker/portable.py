"""A Bundle as PHOEBE's own JSON, which any version of Python and PHOEBE at or above it can read.

Stock PHOEBE opens it too. It keeps what PHOEBE's own `save` loses: parameters in contexts of
clients' own (`ui`), times of models to the last digit, choices of units, and which constraints are
still to be run. It loses the order of parameters across contexts, and the order in which
constraints came to be, which nothing is computed from.
"""

from __future__ import annotations

import json
from typing import Any

_UNFINISHED = "phoebe_server_unfinished_constraints"


def write(bundle: Any) -> bytes:
    """The Bundle as it is: no constraint is run."""
    parameters = [_parameter(parameter) for parameter in _sorted_by_context(bundle)]
    unfinished = {
        "delayed": list(bundle._delayed_constraints),
        "failed": list(bundle._failed_constraints),
    }
    if any(unfinished.values()):
        parameters.append(_note(unfinished))
    return json.dumps(parameters).encode()


def read(data: bytes, *, from_newer: bool = True) -> Any:
    """The Bundle in this JSON or PHOEBE's own; raises ValueError, or what PHOEBE raises.

    `from_newer`: also one of a newer PHOEBE, for which PHOEBE promises nothing.
    """
    import phoebe
    from phoebe.utils import parse_json

    parameters = json.loads(data, object_pairs_hook=parse_json)
    if not isinstance(parameters, list) or not parameters or not all(map(_is_one, parameters)):
        raise ValueError("a bundle is a list of parameters, as save_bundle or PHOEBE's save gives")
    unfinished: dict[str, list[str]] = {"delayed": [], "failed": []}
    notes = [each for each in parameters if each.get("qualifier") == _UNFINISHED]
    for note in notes:
        parameters.remove(note)
        unfinished.update(note["value"])
    bundle = phoebe.Bundle.open(parameters, import_from_newer=from_newer)
    known = {constraint.uniqueid for constraint in bundle._params}
    bundle._delayed_constraints += [each for each in unfinished["delayed"] if each in known]
    bundle._failed_constraints += [each for each in unfinished["failed"] if each in known]
    return bundle


def _sorted_by_context(bundle: Any) -> list[Any]:
    """In PHOEBE's order, which reading relies on: what is referred to comes first."""
    from phoebe.parameters.parameters import _contexts

    place = {context: index for index, context in enumerate(_contexts)}
    return sorted(bundle._params, key=lambda each: place.get(each.context, len(place)))


def _parameter(parameter: Any) -> dict[str, Any]:
    fields: dict[str, Any] = parameter.to_json(incl_uniqueid=True)
    time = parameter._time
    if time is not None and not isinstance(time, str):
        fields["time"] = float(time)  # PHOEBE rounds it to 6 digits
    if parameter._advanced:
        fields["advanced"] = True
    choices = getattr(parameter, "_choices", None)
    if choices is not None:
        fields["choices"] = list(choices)
    return fields


def _note(unfinished: dict[str, list[str]]) -> dict[str, Any]:
    """A parameter that stock PHOEBE opens and does not mind."""
    return {
        "Class": "DictParameter",
        "qualifier": _UNFINISHED,
        "context": "ui",
        "description": "Constraints that are delayed or failed",
        "value": unfinished,
    }


def _is_one(value: Any) -> bool:
    return isinstance(value, dict) and "Class" in value
