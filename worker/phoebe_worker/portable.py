"""A Bundle as PHOEBE's JSON, readable by any Python and by the same or a later PHOEBE.

Stock PHOEBE opens it too. In addition to the content of PHOEBE's `save` it holds what
`parameter_json` lists, and which constraints are still to be run. It does not hold the order of
parameters across contexts, the order of constraints, and the colours that figures have used. No
computation depends on these.
"""

from __future__ import annotations

import json
from typing import Any

from . import migration
from .parameter_json import parameters_of

# The qualifier of an additional parameter, which lists the constraints still to be run.
UNFINISHED = "phoebe_server_unfinished_constraints"


def write(bundle: Any) -> bytes:
    """Serialize the Bundle. Runs no constraints."""
    parameters = parameters_of(bundle)
    unfinished = {
        "delayed": list(bundle._delayed_constraints),
        "failed": list(bundle._failed_constraints),
    }
    if any(unfinished.values()):
        parameters.append(_unfinished_parameter(unfinished))
    return json.dumps(parameters).encode()


def read(data: bytes, *, from_newer: bool = True) -> migration.Opened:
    """Read this JSON or PHOEBE's own. Raises ValueError and PHOEBE's exceptions.

    `from_newer` permits the JSON of a newer PHOEBE, which PHOEBE does not support.
    """
    from phoebe.utils import parse_json

    parameters = json.loads(data, object_pairs_hook=parse_json)
    is_list = isinstance(parameters, list) and len(parameters) > 0
    if not is_list or not all(map(_is_parameter, parameters)):
        raise ValueError("a bundle is a list of parameters, as save_bundle or PHOEBE's save gives")
    unfinished: dict[str, list[str]] = {"delayed": [], "failed": []}
    notes = [each for each in parameters if each.get("qualifier") == UNFINISHED]
    for note in notes:
        parameters.remove(note)
        unfinished.update(note["value"])
    opened = migration.open_parameters(parameters, from_newer=from_newer)
    bundle = opened.bundle
    known = {constraint.uniqueid for constraint in bundle._params}
    bundle._delayed_constraints += [each for each in unfinished["delayed"] if each in known]
    bundle._failed_constraints += [each for each in unfinished["failed"] if each in known]
    return opened


def _unfinished_parameter(unfinished: dict[str, list[str]]) -> dict[str, Any]:
    """A parameter that holds the unfinished constraints; stock PHOEBE can open it."""
    return {
        "Class": "DictParameter",
        "qualifier": UNFINISHED,
        "context": "ui",
        "description": "Constraints that are delayed or failed",
        "value": unfinished,
    }


def _is_parameter(value: Any) -> bool:
    return isinstance(value, dict) and "Class" in value
