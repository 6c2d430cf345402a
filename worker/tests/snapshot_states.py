"""Describes the content of snapshots, in a process that has not created their Bundles.

    python snapshot_states.py FILE…     prints a digest of each pickled Bundle's state, one a line
"""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate_bundles import parameters, phoebe, plain
from astropy.units import Quantity, UnitBase

unit_types = Quantity | UnitBase
# Caches of PHOEBE.
_LOOKED_UP = {
    "_params",
    "_hierarchy_param",
    "_var_params",
    "_addl_var_params",
    "_user_label",
    "_curly_label",
}


def exact(bundle: Any) -> list[Any]:
    """The complete content of a Bundle, in order."""
    return [_attributes(bundle), *(_attributes(parameter) for parameter in bundle._params)]


def _attributes(thing: Any) -> Any:
    looked_up = _LOOKED_UP
    if type(thing).__name__.endswith("_Around"):  # the value is that of the parameter around which
        looked_up = looked_up | {"_value"}
    return type(thing).__name__, {
        name: _told(value) for name, value in vars(thing).items() if name not in looked_up
    }


def _told(value: Any) -> Any:
    if isinstance(value, phoebe.Bundle):
        return "Bundle"
    if isinstance(value, list | tuple):
        return type(value).__name__, [_told(each) for each in value]
    if isinstance(value, dict):
        return {key: _told(each) for key, each in value.items()}
    known = parameters.Parameter, parameters.ParameterSet, np.ndarray, np.generic, unit_types
    if hasattr(value, "__dict__") and not isinstance(value, known):
        return _attributes(value)
    return plain(value)


def content(bundle: Any) -> dict[str, Any]:
    """Like `exact`, without the order, which the portable form does not keep."""
    told: dict[str, Any] = {
        "delayed": bundle._delayed_constraints,
        "failed": bundle._failed_constraints,
    }
    for parameter in bundle._params:
        derived = isinstance(
            parameter, parameters.ConstraintParameter | parameters.HierarchyParameter
        )
        fields = {} if derived else _python_floats(plain(parameter.to_json(incl_uniqueid=True)))
        told[parameter.uniqueid] = (
            type(parameter).__name__,
            fields,
            str(parameter._value) if derived else _python_floats(plain(parameter._value)),
            None if parameter._time is None else float(parameter._time),
            plain(parameter._advanced),
            list(getattr(parameter, "_choices", [])),
            sorted(parameter._in_constraints),
            parameter._is_constraint,
        )
    return told


def _python_floats(told: Any) -> Any:
    """JSON does not distinguish NumPy's numbers from Python's."""
    if isinstance(told, list | tuple):
        return type(told)(map(_python_floats, told))
    if isinstance(told, dict):
        return {key: _python_floats(each) for key, each in told.items()}
    return "float" if told == "float64" else told


def digest(bundle: Any) -> str:
    return hashlib.sha256(repr(exact(bundle)).encode()).hexdigest()


def digests_elsewhere(pickles: Sequence[bytes], folder: Path) -> list[str]:
    """The digests of these snapshots, computed in another process."""
    paths = []
    for index, data in enumerate(pickles):
        paths.append(folder / f"{index}.pickle")
        paths[-1].write_bytes(data)
    told = subprocess.run(
        [sys.executable, __file__, *map(str, paths)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return told.stdout.split()[-len(paths) :]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(digest(pickle.loads(Path(path).read_bytes())))
