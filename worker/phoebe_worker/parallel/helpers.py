"""Share out independent pieces of work over forked helpers, in dynamic chunks.

Whoever is free takes the next chunk: chunk numbers wait in a pipe that all read from, large chunks
first, so that nobody waits long at the end. Helpers inherit everything by the fork and send back
pickled results. This module knows nothing of PHOEBE.

Results are those of a serial loop, random numbers included. Each piece starts from the state of the
generators at the fork. The first piece that draws finds there what a loop would give it; those that
draw after it would not, and are computed again, in order. So drawing is costly, but for few pieces.
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
    """A helper ended without saying why: killed, or crashed in C++."""


class HelperTraceback(Exception):
    """The cause of an exception that was raised in a helper: its traceback there, as text."""


def grant(cores: int) -> None:
    """How many processes, this one included, may compute from now on."""
    global _cores
    _cores = max(1, cores)


def granted() -> int:
    return _cores


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one piece of work went. `drawn` is the state of the generators afterwards, None where it
    is as before."""

    result: Any = None
    error: Exception | None = None
    drawn: random_numbers.State | None = None


def share_out(
    count: int,
    compute: Callable[[int], Any],
    done: Callable[[Any], None] | None = None,
    *,
    repeatable: bool = True,
) -> list[Any]:
    """`[compute(0), …, compute(count - 1)]`, computed by as many processes as are granted.

    `done` is called here with each result, in the order in which they come. Of several failures
    the one with the lowest index is raised, as a serial loop would. Raises HelperDied.

    A piece that is not `repeatable` leaves traces in the process that computes it: then this
    process computes only what has to be computed again, and one helper more does its part.
    """
    report = done or (lambda _: None)
    processes = min(_cores, count)
    if processes < 2:
        return _in_order([None] * count, compute, report)
    with _alone():
        team = _Team(count, compute, report, processes, takes_part=repeatable)
        try:
            outcomes = team.outcomes()
        finally:
            team.end()
    return _in_order(outcomes, compute, report)


def _in_order(
    outcomes: list[Outcome | None], compute: Callable[[int], Any], done: Callable[[Any], None]
) -> list[Any]:
    """The results of a loop, given the outcomes of pieces that all started from this state.

    `done` has been called for what drew nothing. What is missing is computed here.
    """
    results = []
    drawn = False
    for index, outcome in enumerate(outcomes):
        if outcome is None or (drawn and outcome.drawn is not None):
            results.append(compute(index))
            done(results[-1])
            drawn = True  # unless it drew nothing, which would make no difference
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
    """Compute from this state of the generators, and go back to it."""
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
def _alone() -> Iterator[None]:
    """While the cores are in use, what is computed inside must not use them again."""
    cores = granted()
    grant(1)
    try:
        yield
    finally:
        grant(cores)


def chunks(count: int, processes: int) -> list[Chunk]:
    """Ranges of indices, in order, that shrink with what is left."""
    least = -(-count // _CHUNKS_MAX)
    bounds = []
    start = 0
    while start < count:
        size = max(least, (count - start) // (4 * processes), 1)
        bounds.append((start, min(start + size, count)))
        start += size
    return bounds


class _Helper:
    """This process's handle on a helper."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid, self.fd = pid, fd
        self.buffer = bytearray()
        self.finished = False


class _Team:
    """The helpers, the chunks that wait, and the results so far."""

    def __init__(
        self,
        count: int,
        compute: Callable[[int], Any],
        done: Callable[[Any], None],
        processes: int,
        *,
        takes_part: bool,
    ) -> None:
        """`processes` compute, this one among them if it `takes_part`."""
        self._compute, self._done, self._takes_part = compute, done, takes_part
        self._state = random_numbers.capture()
        self._outcomes: list[Outcome | None] = [None] * count
        self._chunks = chunks(count, processes)
        self._waiting = self._fill_queue()
        self._poller = select.poll()
        self._helpers: dict[int, _Helper] = {}
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()  # or a collection in a helper would copy the pages it shares with this process
        try:
            for _ in range(processes - 1 if takes_part else processes):
                self._start_helper()
        except OSError:
            self.end()
            raise

    def outcomes(self) -> list[Outcome | None]:
        """What came of each piece; after a failure some may be None."""
        for index in self._taken() if self._takes_part else ():
            outcome = _attempt(self._compute, index, self._state)
            self._take_outcome(index, outcome)
            if outcome.error is not None:
                break
            self._collect(0)
        while self._helpers:
            self._collect(None)
        return self._outcomes

    def end(self) -> None:
        """End what is still at work; nothing of the team is left afterwards."""
        for helper in self._helpers.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(helper.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(helper.pid, 0)
            os.close(helper.fd)
        self._helpers.clear()
        if self._waiting >= 0:
            os.close(self._waiting)
            self._waiting = -1

    def _fill_queue(self) -> int:
        """The read end of a pipe with all chunk numbers; it ends where they end."""
        read_end, write_end = os.pipe()
        os.write(write_end, b"".join(_NUMBER.pack(n) for n in range(len(self._chunks))))
        os.close(write_end)
        return read_end

    def _taken(self) -> Iterator[int]:
        """Indices of the chunks that this process takes."""
        while record := os.read(self._waiting, _NUMBER.size):
            yield from range(*self._chunks[_NUMBER.unpack(record)[0]])

    def _start_helper(self) -> None:
        read_end, write_end = os.pipe()
        with contextlib.suppress(OSError):  # only larger, never needed
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(read_end)
            os.close(write_end)
            raise
        if pid == 0:
            self._become_helper(parent, write_end)
        os.close(write_end)
        os.set_blocking(read_end, False)
        self._helpers[read_end] = _Helper(pid, read_end)
        self._poller.register(read_end, select.POLLIN)

    def _collect(self, timeout: int | None) -> None:
        """Take what helpers have sent; None waits for something."""
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
        self._take_messages(helper)
        if ended:
            self._reap(helper)

    def _take_messages(self, helper: _Helper) -> None:
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
                self._take_outcome(index, outcome)
        del buffer[:start]

    def _take_outcome(self, index: int, outcome: Outcome) -> None:
        """After a failure no new chunks: what lies before it is taken and comes to its end."""
        self._outcomes[index] = outcome
        if outcome.error is not None:
            while os.read(self._waiting, _PIPE_BYTES):
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

    def _become_helper(self, parent: int, write_end: int) -> NoReturn:
        """The helper's whole life. It must never return."""
        code = 1
        try:
            forked.die_with(parent)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            forked.close_all_but(self._waiting, write_end)
            random_numbers.restore(self._state)  # Python seeds its generator anew after a fork
            self._help(write_end)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            forked.leave(code)

    def _help(self, fd: int) -> None:
        while record := os.read(self._waiting, _NUMBER.size):
            if not self._compute_chunk(fd, *self._chunks[_NUMBER.unpack(record)[0]]):
                break
        _send(fd, None)

    def _compute_chunk(self, fd: int, first: int, end: int) -> bool:
        """Compute and send, in part messages where it takes long; False after a failure."""
        outcomes: list[Outcome] = []
        sent_at = time.monotonic()
        for index in range(first, end):
            outcome = _attempt(self._compute, index, self._state)
            if outcome.error is not None:
                failure = replace(outcome, error=_portable(outcome.error))
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


def _portable(error: Exception) -> Exception:
    """The exception if it survives pickling, else one with its text; the traceback as its cause."""
    text = format_trace(error)
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is not type(error) or str(copy) != str(error):
            raise TypeError
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.__cause__ = None
    return _Raised(copy, text)


class _Raised(Exception):
    """An exception on its way: pickles as itself with the helper's traceback as its cause."""

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
