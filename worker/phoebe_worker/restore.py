"""Undo what a command may have done to the process it runs in.

A command executes code of the user's Bundle. Closing standard output, setting signal handlers or
another recursion limit must not reach the next command or the server's log.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from typing import TextIO

# Out of the way, and below 64: growing the table of descriptors takes the kernel 10 ms in a process
# with threads.
_FIRST_SPARE_FD = 40


class Snapshot:
    """The standard streams, signal handlers and limits as they should be.

    `signalled` becomes readable at a signal. Whoever waits for something must wait for it too: a
    signal that comes just before the wait begins would not be handled until the wait ends.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        """`end` is called at SIGTERM."""
        self._end = end
        self.signalled, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._spare = {
            fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_SPARE_FD) for fd in (0, 1, 2)
        }
        self._identity = {fd: _identity(fd) for fd in self._spare}
        self._streams = _open_stream(1), _open_stream(2)
        self._recursion_limit = sys.getrecursionlimit()
        self.apply()

    def apply(self) -> None:
        for fd, spare in self._spare.items():
            if _identity(fd) != self._identity[fd]:
                os.dup2(spare, fd)
        if any(stream.closed for stream in self._streams):
            self._streams = _open_stream(1), _open_stream(2)
        sys.stdout, sys.stderr = self._streams
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.setrecursionlimit(self._recursion_limit)


def _open_stream(fd: int) -> TextIO:
    return open(fd, "w", buffering=1, errors="backslashreplace", closefd=False)


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino
