"""Distributes independent pieces of work over forked helpers, in dynamic chunks.

All processes read the number of their next chunk from one pipe. Large chunks come first, so that
all processes finish at about the same time. Helpers inherit their arguments by the fork and send
back pickled results. This module does not know PHOEBE.

Results equal those of a serial loop, random numbers included. Each piece starts from the state of
the generators at the fork. This is right for the first piece that draws random numbers. Later
pieces that draw are computed again, in order, so drawing is costly if many pieces do it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import pickle
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from .. import forked, random_numbers
from ..answer import format_trace

_NUMBER = struct.Struct("=I")
_LENGTH = struct.Struct("=Q")
_CHUNKS_MAX = 8192  # their numbers must fit into a pipe's buffer (64 KiB)
_PIPE_BYTES = 1 << 20
_SEND_SECONDS = 0.1

Chunk = tuple[int, int]

_cores = 1


class HelperDied(RuntimeError):
    """A helper ended without a result: killed, or crashed in C++."""


class HelperTraceback(Exception):
    """The cause of an exception raised in a helper: the helper's traceback as text."""


def grant(cores: int) -> None:
    """Set how many processes, including this one, may compute."""
    global _cores
    _cores = max(1, cores)


def granted() -> int:
    return _cores


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one piece of work.

    `drawn` is the state of the generators afterwards; None if the piece drew no random numbers.
    """

    result: Any = None
    error: Exception | None = None
    drawn: random_numbers.State | None = None


def distribute(
    count: int,
    compute: Callable[[int], Any],
    done: Callable[[Any], None] | None = None,
    *,
    repeatable: bool = True,
) -> list[Any]:
    """`[compute(0), …, compute(count - 1)]`, computed by as many processes as are granted.

    This process calls `done` with each result, in the order of completion. Of several failures,
    raises the one with the lowest index, as a serial loop does. Raises HelperDied.

    Pieces that are not `repeatable` have side effects in the process that computes them. This
    process then computes only repetitions, and one more helper computes its share.
    """
    report = done or (lambda _: None)
    processes = min(_cores, count)
    if processes < 2:
        return _in_order([None] * count, compute, report)
    with _on_one_core():
        team = _Team(count, compute, report, processes, takes_part=repeatable)
        try:
            outcomes = team.outcomes()
        finally:
            team.end()
    return _in_order(outcomes, compute, report)


def _in_order(
    outcomes: list[Outcome | None], compute: Callable[[int], Any], done: Callable[[Any], None]
) -> list[Any]:
    """The results of a serial loop, from outcomes of pieces that started from the same state.

    Computes missing results. `done` has been called for pieces that drew no random numbers.
    """
    results = []
    drawn = False
    for index, outcome in enumerate(outcomes):
        if outcome is None or (drawn and outcome.drawn is not None):
            results.append(compute(index))
            done(results[-1])
            drawn = True  # has no effect if it drew nothing
            continue
        if outcome.drawn is not None:
            random_numbers.restore(outcome.drawn)
            drawn = True
        if outcome.error is not None:
            raise outcome.error
        if outcome.drawn is not None:
            done(outcome.result)
        results.append(outcome.result)
    return results


def _attempt(compute: Callable[[int], Any], index: int, state: random_numbers.State) -> Outcome:
    """Compute from this state of the generators, and restore it."""
    result, error = None, None
    try:
        result = compute(index)
    except Exception as raised:
        error = raised
    after = random_numbers.capture()
    if after == state:
        return Outcome(result, error)
    random_numbers.restore(state)
    return Outcome(result, error, after)


@contextlib.contextmanager
def _on_one_core() -> Iterator[None]:
    """Grant one core inside the block, because all cores are in use."""
    cores = granted()
    grant(1)
    try:
        yield
    finally:
        grant(cores)


def chunks(count: int, processes: int) -> list[Chunk]:
    """Ranges of indices in order, with sizes that shrink with the remaining count."""
    least = -(-count // _CHUNKS_MAX)
    bounds = []
    start = 0
    while start < count:
        size = max(least, (count - start) // (4 * processes), 1)
        bounds.append((start, min(start + size, count)))
        start += size
    return bounds


class _Helper:
    """This process's handle of a helper."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid, self.fd = pid, fd
        self.buffer = bytearray()
        self.finished = False


class _Team:
    """The helpers, the queue of chunks, and the results so far."""

    def __init__(
        self,
        count: int,
        compute: Callable[[int], Any],
        done: Callable[[Any], None],
        processes: int,
        *,
        takes_part: bool,
    ) -> None:
        """`processes` is the number that compute, including this one if it `takes_part`."""
        self._compute, self._done, self._takes_part = compute, done, takes_part
        self._state = random_numbers.capture()
        self._outcomes: list[Outcome | None] = [None] * count
        self._chunks = chunks(count, processes)
        self._queue_fd = self._fill_queue()
        self._poller = select.poll()
        self._helpers: dict[int, _Helper] = {}
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()  # a collection in a helper would copy shared pages
        try:
            for _ in range(processes - 1 if takes_part else processes):
                self._start_helper()
        except OSError:
            self.end()
            raise

    def outcomes(self) -> list[Outcome | None]:
        """The outcome of each piece. After a failure some may be None."""
        for index in self._own_indices() if self._takes_part else ():
            outcome = _attempt(self._compute, index, self._state)
            self._record_outcome(index, outcome)
            if outcome.error is not None:
                break
            self._collect(0)
        while self._helpers:
            self._collect(None)
        return self._outcomes

    def end(self) -> None:
        """Kill remaining helpers and close all descriptors."""
        for helper in self._helpers.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(helper.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(helper.pid, 0)
            os.close(helper.fd)
        self._helpers.clear()
        if self._queue_fd >= 0:
            os.close(self._queue_fd)
            self._queue_fd = -1

    def _fill_queue(self) -> int:
        """The read end of a pipe that holds all chunk numbers."""
        read_end, write_end = os.pipe()
        os.write(write_end, b"".join(_NUMBER.pack(n) for n in range(len(self._chunks))))
        os.close(write_end)
        return read_end

    def _own_indices(self) -> Iterator[int]:
        """Indices of the chunks that this process takes."""
        while record := os.read(self._queue_fd, _NUMBER.size):
            yield from range(*self._chunks[_NUMBER.unpack(record)[0]])

    def _start_helper(self) -> None:
        read_end, write_end = os.pipe()
        with contextlib.suppress(OSError):  # optional
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(read_end)
            os.close(write_end)
            raise
        if pid == 0:
            self._run_helper(parent, write_end)
        os.close(write_end)
        os.set_blocking(read_end, False)
        self._helpers[read_end] = _Helper(pid, read_end)
        self._poller.register(read_end, select.POLLIN)

    def _collect(self, timeout: int | None) -> None:
        """Receive the data of helpers. A timeout of None waits for some."""
        for fd, _ in self._poller.poll(timeout):
            self._receive(self._helpers[fd])

    def _receive(self, helper: _Helper) -> None:
        ended = False
        while not ended:
            try:
                data = os.read(helper.fd, _PIPE_BYTES)
            except BlockingIOError:
                break
            helper.buffer += data
            ended = not data
        self._parse_messages(helper)
        if ended:
            self._reap(helper)

    def _parse_messages(self, helper: _Helper) -> None:
        buffer, start = helper.buffer, 0
        while len(buffer) >= start + _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            message = pickle.loads(memoryview(buffer)[start + _LENGTH.size : end])
            start = end
            if message is None:
                helper.finished = True
                continue
            for index, outcome in enumerate(message[1], message[0]):
                self._record_outcome(index, outcome)
        del buffer[:start]

    def _record_outcome(self, index: int, outcome: Outcome) -> None:
        """Record an outcome. After a failure, empty the queue; started chunks still finish."""
        self._outcomes[index] = outcome
        if outcome.error is not None:
            while os.read(self._queue_fd, _PIPE_BYTES):
                pass
        elif outcome.drawn is None:
            self._done(outcome.result)

    def _reap(self, helper: _Helper) -> None:
        self._poller.unregister(helper.fd)
        del self._helpers[helper.fd]
        os.close(helper.fd)
        _, status = os.waitpid(helper.pid, 0)
        if not helper.finished:
            raise HelperDied(_describe_exit(os.waitstatus_to_exitcode(status)))

    def _run_helper(self, parent: int, write_end: int) -> NoReturn:
        """Run a helper. It never returns."""
        code = 1
        try:
            forked.die_with_parent(parent)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            forked.close_all_but(self._queue_fd, write_end)
            random_numbers.restore(self._state)  # Python reseeds its generator after a fork
            self._compute_chunks(write_end)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            forked.exit_process(code)

    def _compute_chunks(self, fd: int) -> None:
        while record := os.read(self._queue_fd, _NUMBER.size):
            if not self._compute_chunk(fd, *self._chunks[_NUMBER.unpack(record)[0]]):
                break
        _send(fd, None)

    def _compute_chunk(self, fd: int, first: int, end: int) -> bool:
        """Compute a chunk, and send outcomes at intervals. Returns False after a failure."""
        outcomes: list[Outcome] = []
        sent_at = time.monotonic()
        for index in range(first, end):
            outcome = _attempt(self._compute, index, self._state)
            if outcome.error is not None:
                failure = replace(outcome, error=_picklable(outcome.error))
                _send(fd, (first, [*outcomes, failure]))
                return False
            outcomes.append(outcome)
            if time.monotonic() - sent_at >= _SEND_SECONDS:
                _send(fd, (first, outcomes))
                first, outcomes, sent_at = index + 1, [], time.monotonic()
        _send(fd, (first, outcomes))
        return True


def _send(fd: int, message: Any) -> None:
    data = pickle.dumps(message, 5)
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def _picklable(error: Exception) -> Exception:
    """The exception, or one with its text if it cannot be pickled; its cause is the traceback."""
    text = format_trace(error)
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is not type(error) or str(copy) != str(error):
            raise TypeError
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.__cause__ = None
    return _PicklableError(copy, text)


class _PicklableError(Exception):
    """Wraps an exception; unpickles to it, with the helper's traceback as its cause."""

    def __init__(self, error: Exception, text: str) -> None:
        self.error, self.text = error, text

    def __reduce__(self) -> Any:
        return _with_traceback, (self.error, self.text)


def _with_traceback(error: Exception, text: str) -> Exception:
    error.__cause__ = HelperTraceback("\n" + text)
    return error


def _describe_exit(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "A helper of the computation was killed (SIGKILL), most likely because memory ran out."
        )
    if code < 0:
        return f"A helper of the computation crashed ({signal.Signals(-code).name})."
    return f"A helper of the computation ended without its results (exit code {code})."
