"""A runner: a fork of the worker in which one long command runs as a transaction.

The child works on its copy-on-write Bundle and sends records over a pipe: progress, then the
answer, then the pickled Bundle. The worker's Bundle does not change until the worker adopts the
new one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from . import forked, progress, random_numbers, snapshots
from .answer import Answer
from .limits import memory_note

PROGRESS, ANSWER, BUNDLE = b"P", b"A", b"B"
_RECORD = struct.Struct(">cQ")
_READ_BYTES = 1 << 20
_NICENESS = 10  # higher than the worker's, so that short commands of other sessions run first

_children_fd = -1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a runner ended. `bundle` is pickled; None if the command failed."""

    answer: Answer
    bundle: bytes | None


class Runner:
    """The worker's handle of the child. `fd` is readable when `receive` has data."""

    def __init__(self, run: Callable[[], tuple[Answer, Any]], stage: str) -> None:
        """Fork; `run` is called in the child and returns the answer and the Bundle (or None)."""
        self.cancelled: str | None = None
        self._buffer = bytearray()
        self._answer: bytes | None = None
        self._bundle: bytes | None = None
        self.fd, write_end = os.pipe()
        worker = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _run_child(worker, write_end, run, stage)
        os.close(write_end)
        os.set_blocking(self.fd, False)
        self.exit_fd = os.pidfd_open(self._pid)

    def cancel(self, reason: str) -> None:
        """Kill the child. `outcome` then reports the cancellation and the reason."""
        self.cancelled = reason
        os.kill(self._pid, signal.SIGKILL)

    def receive(self) -> Iterator[bytes]:
        """Read available data without waiting; yields the bodies of progress messages."""
        while True:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            self._buffer += data
        while len(self._buffer) >= _RECORD.size:
            tag, length = _RECORD.unpack_from(self._buffer)
            end = _RECORD.size + length
            if len(self._buffer) < end:
                return
            record = bytes(self._buffer[_RECORD.size : end])
            del self._buffer[:end]
            if tag == PROGRESS:
                yield record
            elif tag == ANSWER:
                self._answer = record
            elif tag == BUNDLE:
                self._bundle = record

    def outcome(self) -> Outcome:
        """Reap the ended child, end processes that it left, and return its outcome."""
        _, status = os.waitpid(self._pid, 0)
        self.close()
        if self.cancelled is not None:
            text = f"Cancelled: {self.cancelled}"
            return Outcome(Answer.failure(text, reason="cancelled"), None)
        code = os.waitstatus_to_exitcode(status)
        if code == 0 and self._answer is not None:
            answer = Answer.from_record(self._answer)
            if not answer.success:
                return Outcome(answer, None)
            if self._bundle is not None:
                return Outcome(answer, self._bundle)
        text = _describe_exit(code)
        return Outcome(Answer.failure(text, reason=text.partition(".")[0]), None)

    def close(self) -> None:
        """Close the descriptors and end processes that the command started."""
        os.close(self.fd)
        os.close(self.exit_fd)
        end_children()


def adopt_orphans() -> None:
    """Let this process become the parent of processes whose runner has ended.

    Must be called before the sandbox, which forbids to open the list of children.
    """
    global _children_fd
    forked.prctl(forked.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        _children_fd = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)


def end_children() -> None:
    """Kill and reap every child of this process."""
    while children := _children():
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue


def _children() -> list[int]:
    try:
        return [int(pid) for pid in os.pread(_children_fd, _READ_BYTES, 0).split()]
    except (OSError, ValueError):
        return []  # code of a Bundle may have closed the descriptor


def _run_child(
    worker: int, write_end: int, run: Callable[[], tuple[Answer, Any]], stage: str
) -> None:
    """Run the child. It never returns and never uses the inherited ZeroMQ socket."""
    code = 1
    try:
        forked.die_with_parent(worker)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.nice(_NICENESS)
        # The worker's sockets must be closed here: the server detects the worker's end by them.
        forked.close_all_but(write_end)
        random_numbers.reseed()
        _report_progress(write_end, stage)
        answer, bundle = run()
        pickled = snapshots.pack(bundle) if answer.success else b""
        _write(write_end, ANSWER, answer.to_record())
        if answer.success:
            _write(write_end, BUNDLE, pickled)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        forked.exit_process(code)


def _write(fd: int, tag: bytes, record: bytes) -> None:
    view = memoryview(_RECORD.pack(tag, len(record)) + record)
    while view:
        view = view[os.write(fd, view) :]


def _report_progress(fd: int, stage: str) -> None:
    """Send the progress of PHOEBE's computes and solvers."""
    import phoebe

    def report(fraction: float | None) -> None:
        _write(fd, PROGRESS, orjson.dumps({"fraction": fraction, "stage": stage}))

    report(None)
    phoebe.progressbars_on()
    progress.report_to(report)


def _describe_exit(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "The computation was killed (SIGKILL), most likely because memory ran out."
            f"{memory_note()} The bundle is as it was before."
        )
    if code < 0:
        known = {number.value: number.name for number in signal.Signals}
        name = known.get(-code, f"signal {-code}")
        note = memory_note() if code == -signal.SIGABRT else ""  # C++ aborts when memory runs out
        return f"The computation crashed ({name}).{note} The bundle is as it was before."
    return (
        f"The computation ended without an answer (exit code {code}). "
        "The bundle is as it was before."
    )
