"""Builds the lists of times to compute, and fills the synthetics with the results.

PHOEBE looks up every time in a list of all times, and writes every value with two searches, two
Quantities and a copy of the whole array. Both grow with the square of the number of times.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from ..accelerate.registry import original, patch

_MODULE = "phoebe.backend.backends"
_EXTRACT = f"{_MODULE}:_extract_from_bundle"
_FILL = f"{_MODULE}:BaseBackend._fill_syns"
_NO_CHECKS = {"check_visible": False, "check_default": False}


@patch(
    _EXTRACT,
    reason="each time was looked up in a list of all times",
    equal_because="PHOEBE's own lists by dataset, grouped by time in the same order",
    checked_with=("2.5.4",),
    guards={_EXTRACT: "75b682742f59b875a5999ec220d0f97ce78c04635ccc47b10f2439c0d6ba5330"},
)
def extract_from_bundle(
    b: Any,
    compute: str,
    dataset: Any = None,
    times: Any = None,
    by_time: bool = True,
    include_mesh: bool = True,
    **kwargs: Any,
) -> Any:
    """_extract_from_bundle: PHOEBE's own lists by dataset, grouped by time."""
    stock = original(_EXTRACT)
    infos, synthetics = stock(b, compute, dataset, times, False, include_mesh, **kwargs)
    if not by_time:
        return infos, synthetics
    by_times: defaultdict[float, list[Any]] = defaultdict(list)
    for info in infos:
        for time in info.pop("times"):
            by_times[time].append(info)
    if not by_times:
        return np.asarray([]), [], synthetics
    ordered = sorted(by_times)
    return np.asarray(ordered), tuple(by_times[time] for time in ordered), synthetics


@patch(
    _FILL,
    reason="each value took two searches and a copy of its whole array",
    equal_because="the same places and unit factors; PHOEBE fills what is no array element",
    checked_with=("2.5.4",),
    guards={_FILL: "14e3e9c4cc59ef9c2f1ac30d06813b1ea7042d823d4b72890d0ef6129197a76e"},
)
def fill_synthetics(self: Any, new_syns: Any, rpacketlists_per_worker: Any) -> Any:
    """BaseBackend._fill_syns: collects the values by time, and writes each array once."""
    stock = original(_FILL)
    columns: dict[Any, _Column | None] = {}
    others = []
    for packetlists in rpacketlists_per_worker:
        for packetlist in packetlists:
            for packet in packetlist:
                place = tuple((name, packet[name]) for name in _PLACE)
                if place not in columns:
                    columns[place] = _Column.find(new_syns, dict(place))
                column = columns[place]
                if column is None or packet["time"] is None:
                    others.append(packet)
                else:
                    column.collect(packet["time"], packet["value"])
    for filled in columns.values():
        if filled is not None:
            filled.write()
    return stock(self, new_syns, [[others]])


_PLACE = ("dataset", "component", "kind", "qualifier")


class _Column:
    """An array of the synthetics, with one element for each time."""

    def __init__(self, parameter: Any, times: Any) -> None:
        self._parameter = parameter
        self._indices: defaultdict[float, list[int]] = defaultdict(list)
        for index, time in enumerate(times):
            self._indices[time].append(index)
        self._found: list[int] = []
        self._values: list[Any] = []
        self._factors: dict[Any, Any] = {}

    @classmethod
    def find(cls, synthetics: Any, place: dict[str, Any]) -> _Column | None:
        """The column; None if values are not elements of an array (meshes, line profiles)."""
        from phoebe.parameters import FloatArrayParameter

        here = [p for p in synthetics.to_list() if p.dataset == place["dataset"]]
        if any(parameter.time is not None for parameter in here):
            return None
        parameter = synthetics.get_parameter(**place, **_NO_CHECKS)
        if not isinstance(parameter, FloatArrayParameter):
            return None
        times = synthetics.get_parameter(**{**place, "qualifier": "times"}, **_NO_CHECKS)
        return cls(parameter, times.get_value())

    def collect(self, time: float, value: Any) -> None:
        unit = getattr(value, "unit", None)
        if unit is not None:
            value = self._factor(unit) * value.value
        for index in self._indices.get(time, ()):
            self._found.append(index)
            self._values.append(value)

    def write(self) -> None:
        values = self._parameter.get_value()
        values[self._found] = self._values
        self._parameter.set_value(values, ignore_readonly=True)

    def _factor(self, unit: Any) -> Any:
        """The factor of a Quantity's conversion."""
        if unit not in self._factors:
            self._factors[unit] = (1.0 * unit).to(self._parameter.default_unit).value
        return self._factors[unit]
