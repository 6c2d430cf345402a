"""Which remote machines PHOEBE is configured for."""

from __future__ import annotations

import os

from .registry import patch
from .sources import sources

_TARGET = "phoebe.dependencies.crimpl:list_servers"


@patch(
    _TARGET,
    reason="every check before a compute started a shell with `ls ~/.crimpl/servers/`",
    equal_because="the same directory is read; hidden files and names with blanks are treated as "
    "`ls` and `split` treat them",
    checked_with=("2.5.4",),
    guards=sources(_TARGET),
)
def list_servers() -> list[str]:
    directory = os.path.expanduser("~/.crimpl/servers/")
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except OSError:
        return []
    return [os.path.basename(word)[:-5] for word in "\n".join(names).split()]
