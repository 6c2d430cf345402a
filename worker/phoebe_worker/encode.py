"""Encodes the results of commands as JSON.

NaN and infinities become null, units become text, a quantity becomes `{"value", "unit"}`, and a
Parameter becomes a dictionary of its fields.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_DEPTH_MAX = 200


def encode(value: Any) -> bytes:
    """JSON in UTF-8. Raises TypeError for a value that JSON cannot represent."""
    try:
        return orjson.dumps(value, default=_simplify, option=_OPTIONS)
    except TypeError:
        # Rare: keys that are not plain scalars, integers beyond 64 bits, lone surrogates.
        return orjson.dumps(_plain(value, 0), option=_OPTIONS)


def _simplify(value: Any) -> Any:
    """Convert an unknown type to one closer to JSON. Raises TypeError where there is none."""
    if isinstance(value, np.ndarray) and type(value) is np.ndarray:
        return _array(value)
    if isinstance(value, np.floating):
        return float(value)  # `item` does not convert a long double
    if isinstance(value, complex | np.complexfloating):
        value = complex(value)
        return {"real": value.real, "imag": value.imag}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return _simplify_domain_type(value)


def _simplify_domain_type(value: Any) -> Any:
    """Convert types of astropy and PHOEBE."""
    from astropy.units import Quantity, UnitBase

    if isinstance(value, UnitBase):
        return value.to_string()
    if isinstance(value, Quantity):
        return {"value": _array(np.asarray(value.value)), "unit": value.unit.to_string()}

    from phoebe.dependencies import distl, nparray
    from phoebe.parameters import Parameter, ParameterSet

    if isinstance(value, Parameter):
        return value.to_dict()
    if isinstance(value, ParameterSet):
        return [parameter.to_dict() for parameter in value.to_list()]
    if isinstance(value, nparray.ndarray):
        array = np.asarray(value.array)
        unit = value.unit
        return array.tolist() if unit is None else {"value": array.tolist(), "unit": str(unit)}
    if isinstance(value, distl.BaseDistlObject):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return _array(np.asarray(value))
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


def _array(array: np.ndarray[Any, Any]) -> Any:
    """Convert to what orjson accepts: C order, native byte order and plain numbers."""
    if array.dtype.kind in "fiub" and array.dtype.itemsize <= 8 and array.ndim:
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return array.tolist()


def _plain(value: Any, depth: int) -> Any:
    """The value, built only of dict, list, str, int, float, bool and None."""
    if depth > _DEPTH_MAX:
        raise TypeError("the result is nested too deeply to be written as JSON")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else _big_integer(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_key(k): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return _plain(
        value.tolist()
        if isinstance(value, np.ndarray) and type(value) is np.ndarray
        else _simplify(value),
        depth + 1,
    )


def _big_integer(value: int) -> float | str:
    try:
        return float(value)
    except OverflowError:
        return str(value)


def _key(key: Any) -> str:
    if key is None:
        return "null"
    return str(key).encode("utf-8", "replace").decode()
