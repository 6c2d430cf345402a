"""What identifies a parameter: its tags, which last, and its unique id, which PHOEBE makes anew.

Pure: works on parameters as PHOEBE's files have them. It sets no values.
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
    """Its tags; `instead`: tags that it is to have."""
    tags = {name: getattr(parameter, name) for name in _NAMES} | instead
    return tuple(_time(tag) if name == "time" else tag for name, tag in tags.items())


def _time(time: Any) -> float | None:
    return None if time is None else round(float(time), 6)


def by_tags(parameters: Iterable[Fields]) -> dict[Tags, Fields]:
    """Without those that share their tags."""
    found = [(tags_of_fields(each), each) for each in parameters]
    times = Counter(tags for tags, _ in found)
    return {tags: each for tags, each in found if times[tags] == 1}


def as_in_file(
    migrated: list[Fields], file: list[Fields], apart: frozenset[str]
) -> list[Fields]:
    """The migrated parameters with the unique ids that those of the same tags had, and all that
    the file has in the contexts that were set apart."""
    known = by_tags(file)
    ids = {
        each["uniqueid"]: known[tags]["uniqueid"]
        for tags, each in by_tags(migrated).items()
        if "uniqueid" in known.get(tags, ())
    }
    kept = [each for each in file if each.get("context") in apart - {"constraint"}]
    has = {tags_of_fields(each) for each in kept}
    result = [
        {**each, "uniqueid": ids.get(each["uniqueid"], each["uniqueid"])}
        for each in migrated
        if tags_of_fields(each) not in has
    ]
    return sorted_by_context(result + kept)
