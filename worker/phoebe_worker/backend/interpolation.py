"""Caches interpolations in passband tables.

While the stars keep their shape, temperatures, gravities and abundances are equal at every frame,
and so are normal intensities and limb-darkening integrals. Only specific intensities depend on the
view. The tables do not change after they are read.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from ..accelerate.registry import original, patch

_TARGET = "ndpolator.ndpolator:Ndpolator.ndpolate"
_CACHE_MAX = 24
_BYTES_MAX = 1 << 20

_cache: OrderedDict[tuple[Any, ...], tuple[Any, dict[str, Any]]] = OrderedDict()


@patch(
    _TARGET,
    reason="unchanged surfaces were interpolated again at every frame",
    equal_because="a table never changes; results are cached by the bytes of the arguments",
    checked_with=("2.5.4",),
    guards={_TARGET: "1e794cd8d792f0e07a0156b7a5d8d504ebdd32b7e6bf6384b566e9ab4babe7c8"},
)
def ndpolate(
    self: Any,
    name: str,
    query_pts: Any,
    extrapolation_method: str = "none",
    search_algorithm: str = "kdtree",
) -> dict[str, Any]:
    """Ndpolator.ndpolate, with a cache of the latest results by their exact arguments."""
    stock = original(_TARGET)
    points = np.ascontiguousarray(query_pts)
    if name.startswith("imu") or points.nbytes > _BYTES_MAX:
        return stock(self, name, points, extrapolation_method, search_algorithm)
    table = self.table[name]["grid"]
    question = (id(table), name, extrapolation_method, search_algorithm, points.shape)
    key = (*question, points.dtype.str, points.tobytes())
    found = _cache.get(key)
    if found is None or found[0] is not table:
        answer = stock(self, name, points, extrapolation_method, search_algorithm)
        _cache[key] = found = table, answer
        if len(_cache) > _CACHE_MAX:
            _cache.popitem(last=False)
    else:
        _cache.move_to_end(key)
    return {field: np.array(values) for field, values in found[1].items()}
