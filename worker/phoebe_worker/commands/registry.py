"""The table of commands and the decorator that fills it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..templates import Templates
from .arguments import decoded, split_seed
from .statements import Statement

Kind = Literal["read", "change", "long"]
CommandFunction = Callable[..., Any]


@dataclass(slots=True)
class Session:
    """What a command works on: the user's Bundle, and the default Bundles to begin anew from."""

    bundle: Any
    templates: Templates


@dataclass(frozen=True, slots=True)
class Command:
    """One entry of the table. `script` is None where the Bundle stays as it is; one that is `whole`
    leaves the Bundle as it was when it fails; one that begins `anew` makes a Bundle that owes
    nothing to the one before, and one that `imports` makes it of what was brought from outside."""

    name: str
    kind: Kind
    function: CommandFunction
    script: Statement | None = None
    whole: bool = False
    anew: bool = False
    imports: bool = False

    def split_seed(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
        """The user's fields without the `seed` that a long command may be given, and the seed.

        Raises Refused.
        """
        return split_seed(fields) if self.kind == "long" else (dict(fields), None)

    def prepared(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
        """The function's arguments, and the seed of its random numbers. Raises Refused."""
        arguments, seed = self.split_seed(fields)
        return {name: decoded(value) for name, value in arguments.items()}, seed


COMMANDS: dict[str, Command] = {}


def command(
    name: str,
    *,
    kind: Kind,
    script: Statement | None = None,
    whole: bool = False,
    anew: bool = False,
    imports: bool = False,
    older_names: tuple[str, ...] = (),
) -> Callable[[CommandFunction], CommandFunction]:
    """Register a function as a command, also under the names that older clients send.

    `script` tells the command as Python, for the script that repeats a session with PHOEBE alone;
    every command that is no `read` has one. `whole`: where it fails it leaves the Bundle. `anew`:
    it puts a fresh Bundle in its place; `imports`: one from outside, with which scripts begin.
    """

    def register(function: CommandFunction) -> CommandFunction:
        # Python puts this name into "missing 1 required positional argument", which clients know.
        function.__qualname__ = f"PhoebeWorker.{name}"
        for each in (name, *older_names):
            if each in COMMANDS:
                raise ValueError(f"command {each} is registered twice")
            COMMANDS[each] = Command(each, kind, function, script, whole, anew, imports)
        return function

    return register
