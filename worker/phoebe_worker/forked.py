"""What a fork does first and last, whatever it is for: workers, runners and helpers alike.

A fork inherits everything. These calls take from it what it must not share. Nothing here knows
of PHOEBE's Bundles or of sockets.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_LAST_FD = 1 << 20

prctl = ctypes.CDLL(None, use_errno=True).prctl


def die_with(parent: int) -> None:
    """From now on the kernel kills this process when its parent ends; it may have ended already."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def close_all_but(*kept: int) -> None:
    """Close every inherited descriptor but the standard streams and these: somebody may wait for
    its end of file."""
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, _LAST_FD)


def leave(code: int) -> NoReturn:
    """End at once, with what was printed, and without what the parent registered for its end."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
