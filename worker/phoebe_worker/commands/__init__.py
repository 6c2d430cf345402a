"""All worker commands, in one table.

To add a command, write a function in one of these modules (or a new one, imported below):

    @command("get_period", kind="read")
    def get_period(session, /, component="binary"):
        return session.bundle.get_value("period", component=component, context="component")

`session.bundle` is the PHOEBE Bundle. The user's JSON fields are the keyword arguments; what the
function returns is the `result`; what it raises becomes the `error`. A command that changes the
Bundle also has a function that writes it as a statement of Python, for the script that repeats a
session without this server. For a method of PHOEBE that is

    @command("set_value", kind="change", script=method("set_value", "twig"))

`kind` is

- `read`: does not change the Bundle; may be answered while a long command runs,
- `change`: changes the Bundle in the worker itself,
- `long`: runs in a forked child, whose Bundle replaces the worker's if it succeeds.

The server reads names and kinds from `protocol/command_kinds.json`, generated from this table:

    REWRITE_COMMAND_KINDS=1 ./test python tests/test_command_kinds.py
"""

from . import bundles, compute, constraints, datasets, hierarchies, options, parameters
from .arguments import Refused
from .registry import COMMANDS, Command, CommandFunction, Session, command

__all__ = [
    "COMMANDS",
    "Command",
    "CommandFunction",
    "Refused",
    "Session",
    "bundles",
    "command",
    "compute",
    "constraints",
    "datasets",
    "hierarchies",
    "options",
    "parameters",
]
