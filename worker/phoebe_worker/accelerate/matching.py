"""Finds Parameters: matches tags and twig first, and evaluates visibility last."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from phoebe.parameters import parameters as phoebe_parameters

from .parameter_sets import new_set
from .registry import original, patch
from .sources import sources
from .tags import PLAIN_FIELDS, pieces_of, twig_of
from .visibility import evaluation_cannot_fail

_MODULE = "phoebe.parameters.parameters"
_TARGET = f"{_MODULE}:ParameterSet.filter_or_get"
_FIELDS_FILTER = frozenset(phoebe_parameters._meta_fields_filter)
_FIELDS_TWIG = tuple(phoebe_parameters._meta_fields_twig)
_WILDCARDS = re.compile(r"[*?]")
_TEXT = (str, type(None))
_METHODS = {
    "value": "get_value",
    "quantity": "get_quantity",
    "unit": "get_default_unit",
    "default_unit": "get_default_unit",
    "timederiv": "get_timederiv",
    "description": "get_description",
    "choices": "get_choices",
    "result": "get_result",
}
Parameters = list[Any]


@patch(
    _TARGET,
    reason="it evaluated the visibility of every Parameter, each by a search of its own, before "
    "it looked at the twig, and read every tag through a property",
    equal_because="tags, twig, `_default`, visibility, advanced and single are filters that do not "
    "depend on each other, so their order is free; a `visible_if` that PHOEBE's source does not "
    "have may fail, so it is evaluated where PHOEBE evaluates it",
    checked_with=("2.5.4",),
    guards=sources(
        _TARGET,
        f"{_MODULE}:ParameterSet.__init__",
        f"{_MODULE}:_fnmatch",
        f"{_MODULE}:_extract_index_from_string",
        f"{_MODULE}:Parameter.twig",
        f"{_MODULE}:Parameter.time",
        f"{_MODULE}:Parameter.qualifier",
        f"{_MODULE}:Parameter.component",
        f"{_MODULE}:Parameter.dataset",
        f"{_MODULE}:Parameter.kind",
        f"{_MODULE}:Parameter.uniqueid",
        f"{_MODULE}:Parameter.is_visible",
        f"{_MODULE}:Parameter._is_visible",
        f"{_MODULE}:ConstraintParameter.is_visible",
    ),
)
def filter_or_get(
    self: Any, twig: Any = None, autocomplete: bool = False, force_ps: bool = False,
    check_visible: bool = True, check_default: bool = True, check_advanced: bool = False,
    check_single: bool = False, **kwargs: Any,
) -> Any:
    time = kwargs.get("time")
    if (
        not (twig is None or type(twig) is str)
        or autocomplete
        or (hasattr(time, "__iter__") and not isinstance(time, str))
    ):
        return original(_TARGET)(
            self, twig, autocomplete, force_ps, check_visible, check_default, check_advanced,
            check_single, **kwargs,
        )
    if self._bundle is None:
        check_default = False
    has_uniqueid = kwargs.get("uniqueid") is not None
    if (
        has_uniqueid
        or _is_default(kwargs.get("component"))
        or _is_default(kwargs.get("dataset"))
        or kwargs.get("uniquetwig") is not None
    ):
        check_default = False
    if has_uniqueid:
        check_visible = False
        kwargs["uniqueid"], _ = phoebe_parameters._extract_index_from_string(kwargs["uniqueid"])

    parameters = self.to_list()
    for key, wanted in kwargs.items():
        if wanted is not None and key in _FIELDS_FILTER and len(parameters):
            parameters = match_tag(self, parameters, key, wanted)
    if check_default:
        parameters = without_defaults(parameters)
    if check_visible and not all(map(evaluation_cannot_fail, parameters)):
        parameters = [p for p in parameters if p.is_visible]
        check_visible = False

    method, index, pieces = None, None, None
    if twig is not None:
        method, index, pieces = _parse_twig(twig)
        for piece in pieces:
            parameters = match_twig_piece(parameters, piece, index)
    if check_visible:
        parameters = [p for p in parameters if p.is_visible]
    if check_advanced:
        parameters = [p for p in parameters if not p.advanced]
    if check_single:
        parameters = [p for p in parameters if not hasattr(p, "choices") or len(p.choices) > 1]

    if len(parameters) == 1 and not force_ps:
        if method is None:
            return parameters[0]
        if index is not None and method in ("get_value", "get_quantity"):
            return getattr(parameters[0], method)()[index]
        return getattr(parameters[0], method)()
    if method is not None:
        raise ValueError(f"{len(parameters)} results found, could not call {method}")
    found = new_set(parameters)
    found._bundle = self._bundle
    found._filter = _filter_of(self, found, twig, pieces, kwargs)
    return found


def match_tag(owner: Any, parameters: Parameters, key: str, wanted: Any) -> Parameters:
    """The Parameters whose tag `key` is `wanted`: a value, a wildcard or a list of them."""
    if key in PLAIN_FIELDS or key == "uniqueid":
        attribute = f"_{key}"
        if type(wanted) is str:
            if _WILDCARDS.search(wanted) is None:
                if key == "kind":
                    return _match_kinds(parameters, (wanted,))
                return _match_text(parameters, attribute, wanted)
            if key != "kind":
                return _match_patterns(parameters, attribute, [wanted])
        elif type(wanted) is list and all(type(each) is str for each in wanted):
            if all(_WILDCARDS.search(each) is None for each in wanted):
                if key == "kind":
                    return _match_kinds(parameters, tuple(wanted))
                return _match_any(parameters, attribute, wanted)
            if key != "kind" and all(type(getattr(p, attribute)) in _TEXT for p in parameters):
                return _match_patterns(parameters, attribute, wanted)
    return _match_any_type(owner, parameters, key, wanted)


def _match_text(parameters: Parameters, attribute: str, wanted: str) -> Parameters:
    """The frequent tags are written out, because direct attribute access is faster."""
    if attribute == "_qualifier":
        return [p for p in parameters if p._qualifier == wanted]
    if attribute == "_context":
        return [p for p in parameters if p._context == wanted]
    if attribute == "_component":
        return [p for p in parameters if p._component == wanted]
    if attribute == "_dataset":
        return [p for p in parameters if p._dataset == wanted]
    if attribute == "_uniqueid":
        return [p for p in parameters if p._uniqueid == wanted]
    return [p for p in parameters if getattr(p, attribute) == wanted]


def _match_any(parameters: Parameters, attribute: str, wanted: list[str]) -> Parameters:
    try:
        choices = set(wanted)
        return [p for p in parameters if getattr(p, attribute) in choices]
    except TypeError:  # an unhashable tag
        return [p for p in parameters if getattr(p, attribute) in wanted]


def _match_patterns(parameters: Parameters, attribute: str, wanted: list[str]) -> Parameters:
    """The Parameters whose tag matches one of the patterns; `*` and `?` are wildcards."""
    matches = [_matcher(each) for each in wanted]
    return [
        p
        for p in parameters
        if isinstance(tag := getattr(p, attribute), str) and any(m(tag) for m in matches)
    ]


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> Callable[[str], Any]:
    """A function that matches a text with the pattern as PHOEBE does."""
    if _WILDCARDS.search(pattern) is None:
        return pattern.__eq__
    return re.compile(fnmatch.translate(pattern)).match


def _match_kinds(parameters: Parameters, wanted: tuple[str, ...]) -> Parameters:
    """Kinds match in any case."""
    lower = tuple(each.lower() for each in wanted)
    return [
        p
        for p in parameters
        if p._kind is not None and (p._kind in wanted or p._kind.lower() in lower)
    ]


def _match_any_type(owner: Any, parameters: Parameters, key: str, wanted: Any) -> Parameters:
    """PHOEBE's own expression, for wildcards, times and values of any type."""
    many = isinstance(wanted, list)
    none_wanted = many and None in wanted
    matched = []
    for parameter in parameters:
        if not ((hasattr(parameter, key) and getattr(parameter, key) is not None) or none_wanted):
            continue
        tag = getattr(parameter, key)
        if (
            tag is wanted
            or (many and tag in wanted)
            or (many and np.any([_tag_matches(tag, each) for each in wanted]))
            or (isinstance(wanted, str) and isinstance(tag, str) and _tag_matches(tag, wanted))
            or (key == "kind" and isinstance(wanted, str) and tag.lower() == wanted.lower())
            or (
                key == "kind"
                and hasattr(wanted, "__iter__")
                and tag.lower() in [each.lower() for each in wanted]
            )
            or (key == "time" and abs(float(tag) - _time_of(owner, wanted)) < 1e-6)
        ):
            matched.append(parameter)
    return matched


def _tag_matches(tag: Any, pattern: Any) -> bool:
    if isinstance(pattern, str) and ("*" in pattern or "?" in pattern):
        return fnmatch.fnmatch(tag, pattern)
    return pattern == tag


def _time_of(owner: Any, text: Any) -> Any:
    """A time, given as a number or as the twig of a Parameter."""
    try:
        return float(text)
    except ValueError:
        holder = owner if owner._bundle is None else owner._bundle
        return holder.get_value(
            text, context=["system", "component"], check_default=False, check_visible=False
        )


def _is_default(tag: Any) -> bool:
    return bool(tag == "_default")


def without_defaults(parameters: Parameters) -> Parameters:
    """Without the templates for new components, datasets and features."""
    return [
        p
        for p in parameters
        if p._component != "_default" and p._dataset != "_default" and p._feature != "_default"
    ]


def _parse_twig(twig: str) -> tuple[str | None, int | None, list[str]]:
    """The method that a twig such as "unit@period" calls, its index, and its pieces."""
    twig, index = phoebe_parameters._extract_index_from_string(twig)
    pieces = twig.split("@")
    method = _METHODS.get(pieces[0])
    if method is not None:
        pieces = "@".join(pieces[1:]).split("@")
    return method, index, pieces


def match_twig_piece(parameters: Parameters, piece: str, index: int | None) -> Parameters:
    """The Parameters with the piece in their twig, or whose complete twig it matches."""
    if index is None and _WILDCARDS.search(piece) is None:
        return [p for p in parameters if p._qualifier == piece or piece in pieces_of(p)]
    indexed = f"{piece}[{index}]"
    describes = _matcher(piece)
    return [
        p
        for p in parameters
        if piece in pieces_of(p)
        or (index is not None and indexed in pieces_of(p))
        or describes(twig_of(p))
    ]


def _filter_of(
    owner: Any, found: Any, twig: str | None, pieces: list[str] | None, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The filter of the new set."""
    filters: dict[str, Any] = owner._filter.copy()
    for key, value in kwargs.items():
        if key in _FIELDS_FILTER:
            filters[key] = value
    if pieces is not None:
        for field in _FIELDS_TWIG:
            tag = found.__dict__[f"_{field}"]
            if tag in pieces:
                filters[field] = tag
    return filters
