"""The server knows each command's kind before any worker runs, from a file made from the table."""

from __future__ import annotations

import json
import os
from pathlib import Path

from phoebe_worker.commands import COMMANDS

KINDS = Path(__file__).parents[2] / "protocol" / "command_kinds.json"


def test_the_server_knows_the_kind_of_every_command() -> None:
    """To rewrite: `REWRITE_COMMAND_KINDS=1 ./test python tests/test_command_kinds.py`."""
    table = {name: command.kind for name, command in sorted(COMMANDS.items())}
    if os.environ.get("REWRITE_COMMAND_KINDS"):
        KINDS.write_text(json.dumps(table, indent=2) + "\n")
    assert json.loads(KINDS.read_text()) == table
