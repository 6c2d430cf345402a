"""Writes commands as Python statements, for the script that repeats a session with PHOEBE alone.

A statement works on the Bundle `b`. Floats are written to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import Any

from .arguments import literal

Statement = Callable[[Mapping[str, Any]], str]


def method(name: str, *positional: str) -> Statement:
    """A statement that calls a method of the Bundle with the command's arguments.

    `positional` names the arguments that are written first and without their name.
    """

    def statement(arguments: Mapping[str, Any]) -> str:
        named = dict(arguments)
        first = []
        for each in positional:
            if each not in named:
                break
            first.append(literal(named.pop(each)))
        return f"b.{name}({', '.join([*first, *keywords(named)])})"

    return statement


def keywords(arguments: Mapping[str, Any]) -> list[str]:
    """Keyword arguments. Names that are not valid in Python come last, in a dictionary."""
    plain = {name: value for name, value in arguments.items() if _is_name(name)}
    other = {name: value for name, value in arguments.items() if name not in plain}
    written = [f"{name}={literal(value)}" for name, value in plain.items()]
    return [*written, f"**{literal(other)}"] if other else written


def _is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier() and not iskeyword(text)
