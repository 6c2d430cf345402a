"""The names of Parameters: the twig, the shortest unique twig, and new unique ids."""

from __future__ import annotations

import os
import string
from typing import Any

from phoebe.parameters import parameters as phoebe_parameters

from .matching import match_tag, without_defaults
from .registry import original, patch
from .sources import sources
from .tags import FIELDS, twig_of

_MODULE = "phoebe.parameters.parameters"
_UNIQUETAGS = f"{_MODULE}:ParameterSet._uniquetags"
_UNIQUEID = f"{_MODULE}:_uniqueid"
_LETTERS = string.ascii_uppercase + string.ascii_lowercase
_EVEN = 256 // len(_LETTERS) * len(_LETTERS)  # bytes below map evenly to letters
Parameter = phoebe_parameters.Parameter


@patch(
    f"{_MODULE}:Parameter.twig",
    reason="it read each of 15 tags twice through a property, and is read for every Parameter of "
    "a Bundle to match one twig",
    equal_because="the text depends on the tags alone, and is cached by the tags",
    checked_with=("2.5.4",),
    guards=sources(
        f"{_MODULE}:Parameter.twig",
        f"{_MODULE}:Parameter.time",
        f"{_MODULE}:Parameter.qualifier",
    ),
)
def twig(self: Any) -> str:
    return twig_of(self)


@patch(
    _UNIQUETAGS,
    reason="it searched the whole Bundle up to 30 times for one name; every constraint asks for "
    "the names of all its variables whenever it is read or run",
    equal_because="all searches have the same qualifier and context, so that they can start from "
    "the few Parameters that match these",
    checked_with=("2.5.4",),
    guards=sources(
        _UNIQUETAGS,
        f"{_MODULE}:ParameterSet.filter",
        f"{_MODULE}:ParameterSet.filter_or_get",
        f"{_MODULE}:Parameter.tags",
        f"{_MODULE}:Parameter.time",
        f"{_MODULE}:Parameter.qualifier",
    ),
)
def _uniquetags(
    self: Any, param_or_twig: Any, force_levels: list[str] = ["qualifier"],  # noqa: B006
    exclude_levels: list[str] = [],  # noqa: B006
) -> dict[str, Any]:
    supported = set(force_levels) <= {"qualifier", "context"}
    if not (supported and isinstance(param_or_twig, Parameter)):
        return original(_UNIQUETAGS)(self, param_or_twig, force_levels, exclude_levels)
    if "context" not in force_levels:
        force_levels.append("context")  # PHOEBE alters its argument, and its default
    forced = [level for level in force_levels if level not in exclude_levels]
    tags: dict[str, Any] = {level: getattr(param_or_twig, level) for level in forced}
    search = _Search(self, tags)

    count_before = len(self)
    found_count = 0
    for field in FIELDS:
        if field in exclude_levels or field in force_levels:
            continue
        tag = tags[field] = getattr(param_or_twig, field)
        if tag is None:
            continue
        found_count = search.count(tags)
        if found_count < count_before:
            count_before = found_count
        else:
            tags[field] = None  # it excludes no Parameter
    if found_count != 1:
        return {k: v for k, v in param_or_twig.tags.items() if len(k)}

    for field in FIELDS:
        if tags.get(field) is None or field in force_levels:
            continue
        if search.count({k: v for k, v in tags.items() if k != field}) == 1:
            tags[field] = None
    context = param_or_twig.context
    if hasattr(param_or_twig, context):
        tags[context] = getattr(param_or_twig, context)
    return {k: v for k, v in tags.items() if v is not None}


class _Search:
    """Counts the results of `filter(check_visible=False, **tags)`, for fixed forced tags."""

    def __init__(self, owner: Any, forced: dict[str, Any]) -> None:
        self._owner = owner
        self._forced = frozenset(forced)
        self._has_bundle = owner._bundle is not None
        self._candidates = owner.to_list()
        for field, tag in forced.items():
            if tag is not None:
                self._candidates = match_tag(owner, self._candidates, field, tag)
        self._without_defaults = without_defaults(self._candidates)

    def count(self, tags: dict[str, Any]) -> int:
        hides_default = (
            self._has_bundle
            and tags.get("component") != "_default"
            and tags.get("dataset") != "_default"
        )
        found = self._without_defaults if hides_default else self._candidates
        for field, tag in tags.items():
            if tag is not None and field not in self._forced:
                found = match_tag(self._owner, found, field, tag)
        return len(found)


@patch(
    _UNIQUEID,
    reason="for each of 30 letters it created a generator and called the kernel",
    equal_because="equally likely letters of the same alphabet, from the same kernel source",
    checked_with=("2.5.4",),
    guards=sources(_UNIQUEID),
)
def _uniqueid(n: int = 30) -> str:
    letters = ""
    while len(letters) < n:
        letters += "".join(_LETTERS[b % len(_LETTERS)] for b in os.urandom(2 * n) if b < _EVEN)
    return letters[:n]
