"""Creates ParameterSets: the list of Parameters and the tags that all of them share."""

from __future__ import annotations

import json
from typing import Any

from phoebe.parameters import parameters as phoebe_parameters

from .registry import patch
from .sources import sources
from .tags import FIELDS, PLAIN_FIELDS, read_tags

_MODULE = "phoebe.parameters.parameters"
_SHARED_ATTRIBUTES = tuple(f"_{field}" for field in FIELDS)
_NONE_SHARED = dict.fromkeys(_SHARED_ATTRIBUTES)
Parameter = phoebe_parameters.Parameter
ParameterSet = phoebe_parameters.ParameterSet


@patch(
    f"{_MODULE}:ParameterSet.__init__",
    reason="each of the hundreds of sets a command makes went through the terminal library three "
    "times and computed a label for its printed form",
    equal_because="the same attributes are set; there is no terminal, and __repr__ computes the "
    "label itself before it uses it",
    checked_with=("2.5.4",),
    guards=sources(
        f"{_MODULE}:ParameterSet.__init__",
        f"{_MODULE}:ParameterSet.__repr__",
        f"{_MODULE}:ParameterSet._set_meta",
        f"{_MODULE}:ParameterSet.to_dict",
    ),
)
def __init__(self: Any, params: Any = []) -> None:  # noqa: B006 - PHOEBE's own default
    if isinstance(params, str):
        params = json.loads(params)
    if len(params) and not isinstance(params[0], Parameter):
        self._bundle = None
        self._filter = {}
        self._params = []
        for param_dict in params:
            self._params += [phoebe_parameters.parameter_from_json(param_dict, self)]
        for param in self._params:
            param._bundle = self
        params = self._params
    fill(self, params)


@patch(
    f"{_MODULE}:ParameterSet._set_meta",
    reason="it read every tag of every Parameter through a property",
    equal_because="a tag is shared exactly if the values that are not None are one value",
    checked_with=("2.5.4",),
    guards=sources(
        f"{_MODULE}:ParameterSet._set_meta",
        f"{_MODULE}:ParameterSet._options_for_tag",
        f"{_MODULE}:Parameter.time",
        f"{_MODULE}:Parameter.qualifier",
        f"{_MODULE}:Parameter.kind",
    ),
)
def _set_meta(self: Any) -> None:
    set_shared_tags(self, self.to_list())


@patch(
    f"{_MODULE}:ParameterSet._options_for_tag",
    reason="it read the tag of every Parameter through a property and searched a list for it",
    equal_because="values in the order of their first appearance, without None",
    checked_with=("2.5.4",),
    guards=sources(
        f"{_MODULE}:ParameterSet._options_for_tag",
        f"{_MODULE}:Parameter.qualifier",
    ),
)
def _options_for_tag(self: Any, tag: str, include_default: bool = True) -> list[Any]:
    if tag in PLAIN_FIELDS:
        attribute = f"_{tag}"
        values = [getattr(p, attribute) for p in self.to_list()]
    else:
        values = [getattr(p, tag) for p in self.to_list()]
    try:
        options = dict.fromkeys(values)
    except TypeError:  # unhashable
        options = {}
        found: list[Any] = []
        for value in values:
            if value is None or value in found or (value == "_default" and not include_default):
                continue
            found.append(value)
        return found
    options.pop(None, None)
    if not include_default:
        options.pop("_default", None)
    return list(options)


def new_set(parameters: list[Any]) -> Any:
    """`ParameterSet(parameters)` of a list of Parameters."""
    made = ParameterSet.__new__(ParameterSet)
    fill(made, parameters)
    return made


def fill(parameter_set: Any, parameters: list[Any]) -> None:
    """Set the attributes that PHOEBE's __init__ sets."""
    attributes = parameter_set.__dict__
    attributes["_bundle"] = None
    attributes["_filter"] = {}
    attributes["_params"] = parameters
    attributes.update(_NONE_SHARED)
    attributes["_next_field"] = "key"
    set_shared_tags(parameter_set, parameters)


def set_shared_tags(parameter_set: Any, parameters: list[Any]) -> None:
    """Set `_qualifier`, `_component`, … to the value shared by all Parameters, else None."""
    attributes = parameter_set.__dict__
    if len(parameters) == 1:
        attributes.update(zip(_SHARED_ATTRIBUTES, read_tags(parameters[0]), strict=True))
        timed = attributes["_time"] is not None
    else:
        attributes.update(_NONE_SHARED)
        timed = False
        columns = zip(*map(read_tags, parameters), strict=True)
        for attribute, column in zip(_SHARED_ATTRIBUTES, columns, strict=False):
            if attribute == "_time":
                timed = column.count(None) < len(column)
            else:
                attributes[attribute] = _only_value(column)
    if timed:  # PHOEBE compares times in their printed form
        times = {p.time for p in parameters if p._time is not None}
        attributes["_time"] = times.pop() if len(times) == 1 else None


def _only_value(values: tuple[Any, ...]) -> Any:
    """The one value that is not None; None if there are several or none."""
    try:
        distinct = set(values)
    except TypeError:
        found: list[Any] = []
        for value in values:
            if value is not None and value not in found:
                found.append(value)
        return found[0] if len(found) == 1 else None
    distinct.discard(None)
    return distinct.pop() if len(distinct) == 1 else None
