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
    """The user's Bundle, and the default Bundles that can replace it."""

    bundle: Any
    templates: Templates


@dataclass(frozen=True, slots=True)
class Command:
    """One entry of the table. `command` describes the fields."""

    name: str
    kind: Kind
    function: CommandFunction
    script: Statement | None = None
    atomic: bool = False
    resets: bool = False
    imports: bool = False

    def split_seed(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
        """The user's fields without the `seed` of a long command, and the seed.

        Raises Refused.
        """
        return split_seed(fields) if self.kind == "long" else (dict(fields), None)

    def decoded_arguments(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
        """The function's arguments, and the seed of the random numbers. Raises Refused."""
        arguments, seed = self.split_seed(fields)
        return {name: decoded(value) for name, value in arguments.items()}, seed


COMMANDS: dict[str, Command] = {}


def command(
    name: str,
    *,
    kind: Kind,
    script: Statement | None = None,
    atomic: bool = False,
    resets: bool = False,
    imports: bool = False,
    older_names: tuple[str, ...] = (),
) -> Callable[[CommandFunction], CommandFunction]:
    """Register a function as a command, also under the names that older clients send.

    `script` writes the command as a Python statement, for the script that repeats a session with
    PHOEBE alone. It is required for every kind except `read`. An `atomic` command does not change
    the Bundle if it fails. A command that `resets` replaces the Bundle by one that does not depend
    on it. A command that `imports` replaces it by a Bundle of the user, with which scripts begin.
    """

    def register(function: CommandFunction) -> CommandFunction:
        # Clients know this name from Python's "missing 1 required positional argument".
        function.__qualname__ = f"PhoebeWorker.{name}"
        for each in (name, *older_names):
            if each in COMMANDS:
                raise ValueError(f"command {each} is registered twice")
            COMMANDS[each] = Command(each, kind, function, script, atomic, resets, imports)
        return function

    return register
