"""Converts the JSON fields of a command to the arguments of its function.

PHOEBE writes regular arrays as objects, `{"nparray": "linspace", "start": 0, …}`. Only some of its
methods read them, so this module converts them for all commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..random_numbers import SEED_MAX

_TYPE = "nparray"


class Refused(ValueError):
    """The arguments are invalid, and the command has changed nothing."""


def decoded(value: Any) -> Any:
    """The value, with arrays in place of the objects that describe them.

    Raises Refused for an object that describes no array. Only the first item of a list decides
    whether the list holds objects, so that long lists of numbers take no time.
    """
    if isinstance(value, dict):
        if _TYPE in value:
            return _array(value)
        return {name: decoded(item) for name, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return [decoded(item) for item in value]
    return value


def literal(value: Any) -> str:
    """The value as Python source, with calls that create PHOEBE's arrays."""
    if isinstance(value, dict):
        if _TYPE in value:
            return f"phoebe.dependencies.nparray.from_dict({value!r})"
        items = (f"{name!r}: {literal(item)}" for name, item in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)


def split_seed(fields: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """The fields without `seed`, and the seed of the command's random numbers. Raises Refused."""
    others = dict(fields)
    seed = others.pop("seed", None)
    if seed is None:
        return others, None
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= SEED_MAX:
        raise Refused(f"seed must be a whole number from 0 to {SEED_MAX}")
    return others, seed


def _array(fields: dict[str, Any]) -> Any:
    from phoebe.dependencies import nparray

    try:
        return nparray.from_dict(fields)
    except Exception as error:
        raise Refused(
            f"{str(fields)[:200]} describes no array: {error}. "
            'An example is {"nparray": "linspace", "start": 0, "stop": 1, "num": 11}'
        ) from error
