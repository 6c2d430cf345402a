"""Restores the unique ids of parameters, which PHOEBE's migration changes, by their tags.

It works on parameters in the form of PHOEBE's files, and sets no values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..parameter_json import sorted_by_context

Fields = dict[str, Any]
Tags = tuple[Any, ...]

_NAMES = (
    "qualifier", "time", "feature", "component", "dataset", "distribution", "compute", "model",
    "solver", "solution", "figure", "server", "context",
)  # fmt: skip


def tags_of_fields(fields: Fields) -> Tags:
    return tuple(_time(fields.get(name)) if name == "time" else fields.get(name) for name in _NAMES)


def tags_of_parameter(parameter: Any, **instead: Any) -> Tags:
    """The tags of a parameter. `instead` replaces some of them."""
    tags = {name: getattr(parameter, name) for name in _NAMES} | instead
    return tuple(_time(tag) if name == "time" else tag for name, tag in tags.items())


def _time(time: Any) -> float | None:
    return None if time is None else round(float(time), 6)


def by_tags(parameters: Iterable[Fields]) -> dict[Tags, Fields]:
    """The parameters by tags, without those that share their tags."""
    found = [(tags_of_fields(each), each) for each in parameters]
    times = Counter(tags for tags, _ in found)
    return {tags: each for tags, each in found if times[tags] == 1}


def restore_identities(
    migrated: list[Fields], file: list[Fields], kept_contexts: frozenset[str]
) -> list[Fields]:
    """The migrated parameters with the unique ids of the file, and the file's parameters in the
    contexts that were not migrated."""
    known = by_tags(file)
    ids = {
        each["uniqueid"]: known[tags]["uniqueid"]
        for tags, each in by_tags(migrated).items()
        if "uniqueid" in known.get(tags, ())
    }
    kept = [each for each in file if each.get("context") in kept_contexts - {"constraint"}]
    has = {tags_of_fields(each) for each in kept}
    result = [
        {**each, "uniqueid": ids.get(each["uniqueid"], each["uniqueid"])}
        for each in migrated
        if tags_of_fields(each) not in has
    ]
    return sorted_by_context(result + kept)
