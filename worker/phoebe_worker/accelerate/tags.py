"""Reads all tags of a Parameter in one step, and builds its twig.

PHOEBE reads every tag through a property; here one C call reads all. Twigs are cached by the tags,
so the cache cannot become outdated.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

# In the order of PHOEBE's _meta_fields_twig.
FIELDS = (
    "time", "qualifier", "feature", "component", "dataset", "constraint", "distribution",
    "compute", "model", "solver", "solution", "figure", "server", "kind", "context",
)
PLAIN_FIELDS = frozenset(FIELDS[1:])  # a property that returns the attribute; `time` formats it
ATTRIBUTES = tuple(f"_{name}" for name in FIELDS)

read_tags = attrgetter(*ATTRIBUTES)
read_plain_tags = attrgetter(*ATTRIBUTES[1:])

_CACHE_MAX = 20_000
_twigs: dict[tuple[Any, ...], str] = {}
_pieces: dict[tuple[Any, ...], frozenset[str]] = {}


def twig_of(parameter: Any) -> str:
    """`Parameter.twig`: the tags that are not None, joined by "@"."""
    if parameter._time is not None:
        return "@".join([parameter.time, *(t for t in read_plain_tags(parameter) if t is not None)])
    tags = read_plain_tags(parameter)
    try:
        return _twigs[tags]
    except KeyError:
        twig = "@".join([tag for tag in tags if tag is not None])
        if len(_twigs) >= _CACHE_MAX:
            _twigs.clear()
        if all(tag is None or type(tag) is str for tag in tags):
            _twigs[tags] = twig
        return twig
    except TypeError:  # an unhashable tag: fails like PHOEBE
        return "@".join([tag for tag in tags if tag is not None])


def pieces_of(parameter: Any) -> frozenset[str]:
    """The parts of the twig between its "@"."""
    if parameter._time is not None:
        return frozenset(twig_of(parameter).split("@"))
    tags = read_plain_tags(parameter)
    try:
        return _pieces[tags]
    except (KeyError, TypeError):
        pieces = frozenset(twig_of(parameter).split("@"))
        if len(_pieces) >= _CACHE_MAX:
            _pieces.clear()
        if all(tag is None or type(tag) is str for tag in tags):
            _pieces[tags] = pieces
        return pieces
