"""Commands that misbehave as a user's Bundle could; registered in the test zygote."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np

from phoebe_worker.commands import Session, command


@command("test_exit", kind="read")
def exit_interpreter(session: Session, /, code: Any = 3) -> None:
    sys.exit(code)


@command("test_interrupt", kind="change")
def interrupt(session: Session, /) -> None:
    raise KeyboardInterrupt


@command("test_exit_long", kind="long")
def exit_long(session: Session, /) -> None:
    session.bundle.set_value("period@binary@component", 9.0)
    sys.exit(3)


@command("test_os_exit", kind="change")
def os_exit(session: Session, /) -> None:
    os._exit(7)


@command("test_random_words", kind="read")
def random_words(session: Session, /) -> list[int]:
    """The words of state of NumPy's generator and of Python's."""
    return [*np.random.get_state()[1].tolist(), *random.getstate()[1][:624]]


@command("test_random_words_long", kind="long")
def random_words_long(session: Session, /) -> list[int]:
    return random_words(session)


@command("test_unpicklable", kind="change")
def unpicklable(session: Session, /) -> None:
    session.bundle.helper = lambda: None


@command("test_recursion", kind="read")
def recursion(session: Session, /) -> int:
    return recursion(session) + 1


@command("test_memory", kind="read")
def memory(session: Session, /) -> int:
    raise MemoryError


@command("test_print", kind="read")
def print_text(session: Session, /, text: str) -> None:
    print(text)
    print(text.upper(), file=sys.stderr)


@command("test_ruin", kind="read")
def ruin(session: Session, /) -> str:
    """Change everything that must not affect the next command."""
    os.close(0)
    os.close(1)
    os.close(2)
    sys.stdout = sys.stderr = None  # type: ignore[assignment]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    sys.setrecursionlimit(60)
    return "ruined"


@command("test_unencodable", kind="read")
def unencodable(session: Session, /) -> Any:
    return {"what": object()}


@command("test_liar", kind="read")
def liar(session: Session, /) -> None:
    """Raise an error whose text cannot be read."""

    class LyingError(Exception):
        def __str__(self) -> str:
            sys.exit(1)

    raise LyingError


@command("test_crash_long", kind="long")
def crash_long(session: Session, /, signal_number: int | None = None) -> None:
    session.bundle.set_value("period@binary@component", 9.0)
    if signal_number is None:
        ctypes.string_at(0)
    else:
        os.kill(os.getpid(), signal_number)


@command("test_os_exit_long", kind="long")
def os_exit_long(session: Session, /, code: int = 7) -> None:
    os._exit(code)


@command("test_busy_long", kind="long")
def busy_long(session: Session, /, helper: bool = False) -> None:
    """Change the Bundle and never end; with `helper`, start a process that never ends either."""
    session.bundle.set_value("period@binary@component", 9.0)
    if helper:
        subprocess.Popen(["sleep", "1000"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


@command("test_busy", kind="change")
def busy(session: Session, /) -> None:
    """Run in C with the interpreter's lock held, so that no Python signal handler runs."""
    sum(range(10**15))


@command("test_sleep_long", kind="long")
def sleep_long(session: Session, /, seconds: float, period: float) -> float:
    time.sleep(seconds)
    session.bundle.set_value("period@binary@component", period)
    return period


@command("test_allocate_long", kind="long")
def allocate_long(session: Session, /, megabytes: int) -> int:
    return len(bytearray(megabytes * 1024 * 1024))


@command("test_descriptors", kind="read")
def descriptors(session: Session, /) -> list[str]:
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in _open_descriptors())


def _open_descriptors() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
            found.append(int(name))
        except OSError:
            pass
    return found


@command("test_execute", kind="change")
def execute(session: Session, /, code: str) -> Any:
    """Run code, as a Bundle could; returns its variable `result`."""
    names: dict[str, Any] = {"session": session}
    exec(code, names)
    return names.get("result")


@command("test_sleep_with_child", kind="long")
def sleep_with_child(session: Session, /) -> None:
    if os.fork() == 0:
        time.sleep(600)
    time.sleep(600)
