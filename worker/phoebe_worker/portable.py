"""A Bundle as PHOEBE's own JSON, which any version of Python and PHOEBE at or above it can read.

Stock PHOEBE opens it too. It keeps more than PHOEBE's own `save`: see `parameter_json`, and which
constraints are still to be run. It loses the order of parameters across contexts, the order in
which constraints came to be, and which colours figures have used: nothing is computed from them.
"""

from __future__ import annotations

import json
from typing import Any

from . import migration
from .parameter_json import parameters_of

# The qualifier of a note that is no parameter of PHOEBE's.
UNFINISHED = "phoebe_server_unfinished_constraints"


def write(bundle: Any) -> bytes:
    """The Bundle as it is: no constraint is run."""
    parameters = parameters_of(bundle)
    unfinished = {
        "delayed": list(bundle._delayed_constraints),
        "failed": list(bundle._failed_constraints),
    }
    if any(unfinished.values()):
        parameters.append(_note(unfinished))
    return json.dumps(parameters).encode()


def read(data: bytes, *, from_newer: bool = True) -> migration.Opened:
    """The Bundle in this JSON or PHOEBE's own; raises ValueError, or what PHOEBE raises.

    `from_newer`: also one of a newer PHOEBE, for which PHOEBE promises nothing.
    """
    from phoebe.utils import parse_json

    parameters = json.loads(data, object_pairs_hook=parse_json)
    if not isinstance(parameters, list) or not parameters or not all(map(_is_one, parameters)):
        raise ValueError("a bundle is a list of parameters, as save_bundle or PHOEBE's save gives")
    unfinished: dict[str, list[str]] = {"delayed": [], "failed": []}
    notes = [each for each in parameters if each.get("qualifier") == UNFINISHED]
    for note in notes:
        parameters.remove(note)
        unfinished.update(note["value"])
    opened = migration.opened(parameters, from_newer=from_newer)
    bundle = opened.bundle
    known = {constraint.uniqueid for constraint in bundle._params}
    bundle._delayed_constraints += [each for each in unfinished["delayed"] if each in known]
    bundle._failed_constraints += [each for each in unfinished["failed"] if each in known]
    return opened


def _note(unfinished: dict[str, list[str]]) -> dict[str, Any]:
    """A parameter that stock PHOEBE opens and does not mind."""
    return {
        "Class": "DictParameter",
        "qualifier": UNFINISHED,
        "context": "ui",
        "description": "Constraints that are delayed or failed",
        "value": unfinished,
    }


def _is_one(value: Any) -> bool:
    return isinstance(value, dict) and "Class" in value
