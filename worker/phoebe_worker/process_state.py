"""Restores the state of the process after each command.

A command executes code of the user's Bundle. It may close standard output, install a signal
handler, start a timer or change the recursion limit. None of this may affect the next command, the
server's log or the worker's loop. A timer may fire at any time, so the worker ignores signals from
its start on.

Python's modules and objects and the random generators belong to the session and are not restored.
Niceness, lowered hard limits and threads cannot be restored.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import faulthandler
import fcntl
import functools
import gc
import locale
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from . import forked

# Below 64: to grow the table of descriptors takes the kernel 10 ms in a process with threads.
_FIRST_SPARE_FD = 40
_STATUS_BYTES = 8192
_ATTEMPTS = 5

TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
# SIGCHLD keeps its default: a process that ignores it cannot wait for its children.
NOT_IGNORED = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTERM})
# Includes the signals of a crash: the kernel ends a crashing process even if it ignores them.
IGNORED = tuple(sorted(signal.valid_signals() - NOT_IGNORED))
_ALL = tuple(map(int, signal.valid_signals()))


class Setting(NamedTuple):
    """A setting of the process, with the functions that read and write it."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _attribute(owner: Any, name: str) -> Setting:
    title = f"{owner.__name__}.{name}"
    return Setting(title, lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _content(name: str, owner: list[Any]) -> Setting:
    """A list that commands change in place."""

    def write(value: list[Any]) -> None:
        owner[:] = value

    return Setting(name, lambda: owner, write)


def _soft_limit(name: str) -> Setting:
    number = getattr(resource, name)

    def write(value: tuple[int, int]) -> None:
        soft, hard = value[0], resource.getrlimit(number)[1]
        is_above = soft == resource.RLIM_INFINITY or soft > hard
        lowered = hard != resource.RLIM_INFINITY and is_above  # cannot be raised again
        resource.setrlimit(number, (hard if lowered else soft, hard))

    return Setting(name, lambda: resource.getrlimit(number), write)


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _write_environment(value: dict[bytes, bytes]) -> None:
    os.environb.clear()
    os.environb.update(value)
    time.tzset()


def _write_warning_filters(value: list[Any]) -> None:
    warnings.resetwarnings()  # makes the interpreter drop its cache of filters
    warnings.filters[:] = value  # type: ignore[index]


def _digits() -> list[Setting]:
    """Early releases of Python 3.10 have no such limit."""
    if not hasattr(sys, "set_int_max_str_digits"):
        return []
    name = "sys.set_int_max_str_digits"
    return [Setting(name, sys.get_int_max_str_digits, sys.set_int_max_str_digits)]


def _monitoring() -> list[Setting]:
    """The tools of `sys.monitoring`, which Python has from 3.12 on."""
    if sys.version_info < (3, 12):
        return []

    def write(value: tuple[str | None, ...]) -> None:
        for number, name in enumerate(value):
            if name is None and sys.monitoring.get_tool(number) is not None:
                sys.monitoring.set_events(number, 0)
                sys.monitoring.free_tool_id(number)

    read = lambda: tuple(map(sys.monitoring.get_tool, range(6)))  # noqa: E731
    return [Setting("sys.monitoring", read, write)]


RESOURCES = tuple(name for name in dir(resource) if name.startswith("RLIMIT_"))

SETTINGS: tuple[Setting, ...] = (
    Setting("sys.setswitchinterval", sys.getswitchinterval, sys.setswitchinterval),
    Setting("sys.setdlopenflags", sys.getdlopenflags, sys.setdlopenflags),
    Setting(
        "sys.set_asyncgen_hooks",
        sys.get_asyncgen_hooks,
        lambda value: sys.set_asyncgen_hooks(*value),
    ),
    Setting(
        "sys.set_coroutine_origin_tracking_depth",
        sys.get_coroutine_origin_tracking_depth,
        sys.set_coroutine_origin_tracking_depth,
    ),
    *_digits(),
    Setting("threading.settrace", threading.gettrace, threading.settrace),
    Setting("threading.setprofile", threading.getprofile, threading.setprofile),
    *_monitoring(),
    *(
        _attribute(sys, name)
        for name in ("stdin", "excepthook", "unraisablehook", "displayhook", "breakpointhook")
    ),
    _attribute(threading, "excepthook"),
    _attribute(warnings, "showwarning"),
    _attribute(tempfile, "tempdir"),
    Setting("gc.disable", gc.isenabled, lambda enabled: (gc.disable, gc.enable)[enabled]()),
    Setting("gc.set_threshold", gc.get_threshold, lambda value: gc.set_threshold(*value)),
    Setting("gc.set_debug", gc.get_debug, gc.set_debug),
    _content("gc.callbacks", gc.callbacks),
    Setting("warnings.filters", lambda: warnings.filters, _write_warning_filters),
    Setting("os.environ", lambda: vars(os.environb)["_data"], _write_environment),
    Setting(
        "locale.setlocale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    Setting("os.umask", _read_umask, os.umask),
    Setting(
        "os.sched_setaffinity",
        lambda: os.sched_getaffinity(0),
        lambda cores: os.sched_setaffinity(0, cores),
    ),
    *(_soft_limit(name) for name in RESOURCES),
)


def open_status() -> int:
    """Open /proc/self/status; the sandbox does not permit it later."""
    return os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)


# `signal.pthread_sigmask` is slower: it makes an enum of each signal in the mask.
_set_mask = _signal.pthread_sigmask
# Blocks all signals until `restore` ends. It is no Python function, because a handler could run at
# the start of one.
block_signals = functools.partial(_set_mask, signal.SIG_BLOCK, _ALL)


class ProcessState:
    """The state at the start of the worker, which `restore` re-establishes.

    `signalled` becomes readable at a signal. Every poll must include it: otherwise a signal that
    arrives just before the poll begins is not handled until the poll ends.
    """

    def __init__(self, status: int, end: Callable[[], None]) -> None:
        """`status` is from `open_status`; `end` is called at SIGTERM."""
        self._status = status
        self._on_sigterm = lambda *_: end()
        self._pid = os.getpid()
        self.signalled, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._spare = {
            fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_SPARE_FD) for fd in (0, 1, 2)
        }
        self._identity = {fd: _identity(fd) for fd in self._spare}
        self._streams = _open_stream(1), _open_stream(2)
        self._folder = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._recursion_limit = sys.getrecursionlimit()
        self._settings = [(setting, _copy(setting.read())) for setting in SETTINGS]
        self._signals = b""
        self._threads = sys.maxsize
        self.restore()
        self._signals, self._threads = self._read_status()

    def restore(self) -> None:
        """Restore what differs. After an exception the process must not be used any more."""
        sys.setrecursionlimit(self._recursion_limit)  # before any other call
        block_signals()
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                self._restore_once()
                return
            except BaseException:  # from a handler or hook of the command, until it is removed
                if attempts_left == 0:
                    raise

    def _restore_once(self) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # the command forked this process
        sys.settrace(None)
        sys.setprofile(None)
        faulthandler.cancel_dump_traceback_later()
        for timer in TIMERS:
            signal.setitimer(timer, 0)
        self._restore_signals()
        self._restore_streams()
        os.fchdir(self._folder)
        forked.prctl(forked.PR_SET_PDEATHSIG, 0, 0, 0, 0)
        forked.prctl(forked.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for setting, value in self._settings:
            if setting.read() != value:
                try:
                    setting.write(value)
                except (OSError, ValueError) as error:
                    print(f"{setting.name} stays as a command left it: {error}", flush=True)

    def _restore_signals(self) -> None:
        signals, threads = self._read_status()
        if signals != self._signals or not signals:
            for number in IGNORED:
                signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        _set_mask(signal.SIG_SETMASK, ())  # last: pending signals arrive now
        if threads > self._threads:
            self._threads = threads
            print("a command left a thread running, which ends with the worker", flush=True)

    def _restore_streams(self) -> None:
        for fd, spare in self._spare.items():
            if _identity(fd) != self._identity[fd]:
                os.dup2(spare, fd)
            if not os.get_blocking(fd):
                os.set_blocking(fd, True)
        if any(stream.closed for stream in self._streams):
            self._streams = _open_stream(1), _open_stream(2)
        sys.stdout, sys.stderr = self._streams

    def _read_status(self) -> tuple[bytes, int]:
        """The masks of ignored and caught signals, and the number of threads."""
        try:
            text = os.pread(self._status, _STATUS_BYTES, 0)
            signals = text[text.index(b"SigIgn:") : text.index(b"CapInh:")]
            start = text.index(b"Threads:") + len(b"Threads:")
            return signals, int(text[start : text.index(b"\n", start)])
        except (OSError, ValueError):
            return b"", 0  # code of a Bundle may have closed it


def _copy(value: Any) -> Any:
    """A copy of values that commands can change in place."""
    return value.copy() if isinstance(value, list | dict) else value


def _open_stream(fd: int) -> TextIO:
    return open(fd, "w", buffering=1, errors="backslashreplace", closefd=False)


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino
