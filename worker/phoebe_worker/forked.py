"""The first and the last steps of every fork: workers, runners and helpers.

A fork inherits all descriptors and exit handlers of its parent. These functions remove those that
it must not share. This module does not know Bundles or sockets.
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


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends. Exits if the parent has ended."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def close_all_but(*kept: int) -> None:
    """Close all inherited descriptors except the standard streams and those given.

    Another process may wait for the end of file of an inherited descriptor.
    """
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, _LAST_FD)


def exit_process(code: int) -> NoReturn:
    """Flush the output and exit without running exit handlers of the parent."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
