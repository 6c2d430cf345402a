"""Changes of the process by a command affect neither the next command nor the worker.

The tables are held against lists that others make: the system's signals, timers and limits, and
the functions with which Python's modules set something.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import locale
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Connection, Worker, WorkerDied, descendants, is_alive, wait_until
from test_sandbox import plan

from phoebe_worker import process_state

SIGNALS = sorted(signal.valid_signals())
# The effects of signals that are not ignored.
EFFECTS = {
    signal.SIGKILL: "SIGKILL ended the worker",
    signal.SIGTERM: "the worker exited with code 0",
    signal.SIGSTOP: "stopped",
    signal.SIGCHLD: "nothing",
}

IMPORTS = "import ctypes, os, signal, sys, threading, time\nlibc = ctypes.CDLL(None)\n"

# A timer of the system that sends the signal `number` once, and a wait until it has.
SYSTEM_TIMER = """
class Event(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("signal", ctypes.c_int), ("notify", ctypes.c_int),
                ("unused", ctypes.c_char * 48)]

timer, left = ctypes.c_void_p(), (ctypes.c_long * 4)()
assert libc.timer_create(1, ctypes.byref(Event(None, number, 0)), ctypes.byref(timer)) == 0
assert libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, 1_000_000), None) == 0
while libc.timer_gettime(timer, left) == 0 and (left[2] or left[3]):
    pass
result = "it fired"
"""


def run(connection: Connection, code: str) -> Any:
    """Run code, which must succeed; returns its variable `result`."""
    return connection.result("test_execute", code=IMPORTS + code)


def still_answers(worker: Worker) -> None:
    assert worker.connection.result("ping") == {"status": "ready"}


# Signals.


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("ruin", ["", "python", "c"])
def test_a_signal_between_commands(worker: Worker, number: int, ruin: str) -> None:
    with contextlib.suppress(KeyError):
        set_default = {
            "python": f"signal.signal({number}, signal.SIG_DFL)",
            "c": f"libc.signal({number}, 0)",
        }[ruin]
        worker.connection.send("test_execute", code=IMPORTS + set_default)
    os.kill(worker.pid, number)
    effect = EFFECTS.get(number, "nothing")
    if effect == "nothing":
        still_answers(worker)
    elif effect == "stopped":
        stat = Path(f"/proc/{worker.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it stops")
        os.kill(worker.pid, signal.SIGCONT)
        still_answers(worker)
    else:
        with pytest.raises(WorkerDied, match=effect):
            still_answers(worker)


def test_signals_while_a_command_runs(worker: Worker) -> None:
    for number in set(SIGNALS) - {*EFFECTS}:
        code = f"os.kill(os.getpid(), {number})\nresult = 'alive'"
        assert run(worker.connection, code) == "alive", number
        assert run(worker.connection, f"number = {number}\n{SYSTEM_TIMER}") == "it fired", number


@pytest.mark.parametrize("timer", process_state.TIMERS)
def test_a_timer_that_fires_while_its_command_runs(worker: Worker, timer: int) -> None:
    code = (
        f"signal.setitimer({timer}, 0.001)\n"
        f"while signal.getitimer({timer})[0]: pass\nresult = 'it fired'"
    )
    assert run(worker.connection, code) == "it fired"


def test_a_crash_still_ends_the_worker_and_says_why(worker: Worker) -> None:
    with pytest.raises(WorkerDied, match="SIGSEGV ended the worker"):
        run(worker.connection, "ctypes.string_at(0)")


def test_an_abort_still_ends_the_worker_and_says_why(worker: Worker) -> None:
    with pytest.raises(WorkerDied, match="SIGABRT ended the worker"):
        run(worker.connection, "os.abort()")


@pytest.mark.parametrize("hook", ["signal", "settrace", "setprofile"])
def test_hooks_that_raise_after_their_command(worker: Worker, hook: str) -> None:
    """A handler of a command raises in the worker's own code until it is removed."""
    code = {
        "signal": "signal.signal(signal.SIGALRM, stop)\nsignal.setitimer(0, 1e-4, 1e-4)",
        "settrace": "sys.settrace(stop)",
        "setprofile": "sys.setprofile(stop)",
    }[hook]
    stop = "def stop(*_):\n    raise RuntimeError('stopped')\n"
    for _ in range(20):
        worker.connection.send("test_execute", code=IMPORTS + stop + code)
        still_answers(worker)


# Settings: code that changes each, and an expression that reads it.

CHANGES: dict[str, tuple[str, str]] = {
    "sys.setrecursionlimit": ("sys.setrecursionlimit(500)", "sys.getrecursionlimit()"),
    "sys.setswitchinterval": ("sys.setswitchinterval(1.0)", "sys.getswitchinterval()"),
    "sys.setdlopenflags": ("sys.setdlopenflags(0x102)", "sys.getdlopenflags()"),
    "sys.set_int_max_str_digits": (
        "sys.set_int_max_str_digits(0)",
        "sys.get_int_max_str_digits()",
    ),
    "sys.set_asyncgen_hooks": ("sys.set_asyncgen_hooks(print)", "str(sys.get_asyncgen_hooks())"),
    "sys.set_coroutine_origin_tracking_depth": (
        "sys.set_coroutine_origin_tracking_depth(9)",
        "sys.get_coroutine_origin_tracking_depth()",
    ),
    "sys.settrace": ("sys.settrace(lambda *_: None)", "sys.gettrace() is None"),
    "sys.setprofile": ("sys.setprofile(lambda *_: None)", "sys.getprofile() is None"),
    "sys.monitoring": ("sys.monitoring.use_tool_id(2, 'x')", "sys.monitoring.get_tool(2)"),
    "sys.stdin": ("sys.stdin = None", "sys.stdin is None"),
    "sys.stdout": ("sys.stdout.close()", "sys.stdout.closed"),
    "sys.stderr": ("sys.stderr = None", "sys.stderr is None"),
    "threading.settrace": ("threading.settrace(print)", "threading.gettrace() is None"),
    "threading.setprofile": ("threading.setprofile(print)", "threading.getprofile() is None"),
    **{
        name: (f"{name} = print", f"{name} is print")
        for name in (
            "sys.excepthook",
            "sys.unraisablehook",
            "sys.displayhook",
            "sys.breakpointhook",
            "threading.excepthook",
        )
    },
    "warnings.showwarning": (
        "import warnings; warnings.showwarning = print",
        "__import__('warnings').showwarning is print",
    ),
    "warnings.filters": (
        "import warnings; warnings.simplefilter('error')",
        "len(__import__('warnings').filters)",
    ),
    "tempfile.tempdir": (
        "import tempfile; tempfile.tempdir = '/'",
        "__import__('tempfile').tempdir",
    ),
    "gc.disable": ("import gc; gc.disable()", "__import__('gc').isenabled()"),
    "gc.set_threshold": ("import gc; gc.set_threshold(0)", "__import__('gc').get_threshold()"),
    "gc.set_debug": ("import gc; gc.set_debug(2)", "__import__('gc').get_debug()"),
    "gc.callbacks": (
        "import gc; gc.callbacks.append(lambda *_: None)",
        "len(__import__('gc').callbacks)",
    ),
    "os.environ": (
        "os.environ['TZ'] = 'XYZ-5'; time.tzset(); del os.environ['OMP_NUM_THREADS']",
        "[time.tzname[0], os.environ.get('OMP_NUM_THREADS'), dict(os.environ)]",
    ),
    "locale.setlocale": (
        "import locale; locale.setlocale(locale.LC_ALL, 'C')",
        "__import__('locale').setlocale(0)",
    ),
    "os.chdir": ("os.chdir('/')", "os.getcwd()"),
    "os.umask": ("os.umask(0o777)", "[os.umask(0o777), os.umask(0o777)][0]"),
    "os.sched_setaffinity": (
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])",
        "sorted(os.sched_getaffinity(0))",
    ),
    "os.set_blocking": ("os.set_blocking(1, False)", "os.get_blocking(1)"),
    "os.close": (
        "os.close(0); os.close(2)",
        "[os.path.exists(f'/proc/self/fd/{n}') for n in (0, 2)]",
    ),
    "os.fork": (
        "os.fork() or time.sleep(600)",
        "open(f'/proc/self/task/{os.getpid()}/children').read()",
    ),
    "signal.signal": ("signal.signal(15, signal.SIG_IGN)", "str(signal.getsignal(15))[:9]"),
    "signal.pthread_sigmask": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [15])",
        "sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    ),
    "signal.set_wakeup_fd": ("signal.set_wakeup_fd(-1)", "signal.set_wakeup_fd(-1) == -1"),
    "signal.setitimer": ("signal.alarm(600)", "[signal.getitimer(n)[0] > 0 for n in range(3)]"),
    "signal.ITIMER_VIRTUAL": ("signal.setitimer(1, 600)", "signal.getitimer(1)[0] > 0"),
    "signal.ITIMER_PROF": ("signal.setitimer(2, 600)", "signal.getitimer(2)[0] > 0"),
    "faulthandler.dump_traceback_later": (
        "import faulthandler; faulthandler.dump_traceback_later(600, exit=True)",
        "len(os.listdir('/proc/self/task'))",
    ),
    "prctl PR_SET_PDEATHSIG": (
        "libc.prctl(1, 9)",
        "[libc.prctl(2, ctypes.byref(held := ctypes.c_int())), held.value]",
    ),
    "prctl PR_SET_CHILD_SUBREAPER": (
        "libc.prctl(36, 0)",
        "[libc.prctl(37, ctypes.byref(held := ctypes.c_int())), held.value]",
    ),
    "numpy.seterr": ("import numpy; numpy.seterr(all='raise')", "__import__('numpy').geterr()"),
    "numpy.set_printoptions": (
        "import numpy; numpy.set_printoptions(precision=2)",
        "__import__('numpy').get_printoptions()['precision']",
    ),
    "decimal.getcontext": (
        "import decimal; decimal.getcontext().prec = 3",
        "__import__('decimal').getcontext().prec",
    ),
    **{
        name: (
            f"import resource; soft, hard = resource.getrlimit(resource.{name})\n"
            f"resource.setrlimit(resource.{name}, (1 << 40 if soft == -1 else soft - 1, hard))",
            f"__import__('resource').getrlimit(__import__('resource').{name})",
        )
        for name in process_state.RESOURCES
    },
}

# Functions whose effect cannot be reverted, or is not on the process.
LEFT_ALONE = {
    "the account and the process group, which the sandbox lets nobody change": {
        *("os.setuid", "os.seteuid", "os.setreuid", "os.setresuid", "os.setgroups", "os.setgid"),
        *("os.setegid", "os.setregid", "os.setresgid", "os.setpgid", "os.setpgrp", "os.setsid"),
        "os.setns",
    },
    "niceness and policy, which an ordinary user cannot take back": {
        *("os.setpriority", "os.sched_setscheduler", "os.sched_setparam"),
    },
    "descriptors and files, which are the command's own": {"os.set_inheritable", "os.setxattr"},
    "one that is in the table under the name of what it sets": {"resource.setrlimit"},
    "one that sets the same for threads that run": {
        *("threading.setprofile_all_threads", "threading.settrace_all_threads"),
    },
    "not for others to call": {"threading._set_sentinel", "locale._setlocale"},
}


def test_the_tables_lack_nothing() -> None:
    modules = (sys, gc, threading, signal, os, resource, locale, faulthandler)
    setters = {
        f"{module.__name__}.{name}"
        for module in modules
        for name in dir(module)
        if any(part.startswith("set") and part != "sets" for part in name.split("_"))
        and callable(getattr(module, name))
    }
    assert setters - set(CHANGES) - set().union(*LEFT_ALONE.values()) == set()
    timers = {getattr(signal, name) for name in dir(signal) if name.startswith("ITIMER_")}
    assert timers - {signal.ItimerError} == set(process_state.TIMERS)
    assert {setting.name for setting in process_state.SETTINGS} <= set(CHANGES)
    assert set(process_state.IGNORED) | process_state.NOT_IGNORED == signal.valid_signals()


def change(connection: Connection, name: str) -> tuple[Any, Any, Any]:
    """The value before a command changes it, in that command, and in the next."""
    code, value = CHANGES[name]
    before = run(connection, f"result = {value}")
    changed = run(connection, f"{code}\nresult = {value}")
    return before, changed, run(connection, f"result = {value}")


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_ends_with_its_command(worker: Worker, name: str) -> None:
    if name == "sys.monitoring" and sys.version_info < (3, 12):
        pytest.skip("this Python has no such thing")
    if name == "os.sched_setaffinity" and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("this machine has one core")
    if name.startswith("RLIMIT_") and 0 in resource.getrlimit(getattr(resource, name)):
        pytest.skip("this limit cannot be lowered")
    if name == "locale.setlocale" and locale.setlocale(locale.LC_ALL) == "C":
        pytest.skip("the worker has this locale already")
    before, changed, after = change(worker.connection, name)
    assert changed != before
    assert after == before
    worker.connection.result("test_print", text="still here")
    assert "still here" in worker.log_text()
    assert "stays as a command left it" not in worker.log_text()
    assert descendants(worker.pid) == []
    worker.terminate()
    wait_until(lambda: not is_alive(worker.pid), "the worker ends at SIGTERM")


def test_changes_end_in_the_sandbox(
    start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker(sandbox=plan(tmp_path / "scratch"))
    connection = worker.wait_ready()
    for name in ("os.chdir", "os.environ", "signal.signal", "RLIMIT_FSIZE", "os.umask"):
        before, changed, after = change(connection, name)
        assert before == after != changed, name
    run(connection, f"libc.signal({int(signal.SIGALRM)}, 0)")
    os.kill(worker.pid, signal.SIGALRM)
    still_answers(worker)


def test_a_process_that_a_command_forks_does_not_answer(worker: Worker) -> None:
    seq = worker.connection.start("test_execute", code=IMPORTS + "result = os.fork() > 0")
    assert worker.connection.reply(seq)[1] == {"success": True, "result": True}
    still_answers(worker)
    assert not worker.connection.has_reply(seq)
    assert descendants(worker.pid) == []


def test_irreversible_changes_are_logged(worker: Worker) -> None:
    run(worker.connection, "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()")
    still_answers(worker)
    assert "a command left a thread running" in worker.log_text()


def test_a_worker_that_cannot_be_restored_ends(worker: Worker) -> None:
    close_output_and_its_copies = (
        "os.chdir('/proc/self/fd')\n"
        "is_output = lambda fd: os.path.realpath(fd) == os.path.realpath('2')\n"
        "for fd in list(filter(is_output, os.listdir())): os.close(int(fd))\n"
    )
    with pytest.raises(WorkerDied, match="the worker exited with code 1"):
        run(worker.connection, close_output_and_its_copies)


def test_the_death_of_a_worker_is_reported_at_once(worker: Worker) -> None:
    seq = worker.connection.start("test_os_exit")
    with pytest.raises(WorkerDied, match=f"request {seq}: the worker exited with code 7"):
        worker.connection.reply(seq)
