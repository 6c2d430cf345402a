"""A worker: holds one session's Bundle and answers its commands, until it is told to end.

One loop over the command socket and the runner, if one is at work. It owns the Bundle; commands
change it, a runner's success replaces it. No error of a command ends the loop.
"""

from __future__ import annotations

import contextvars
import errno
import hashlib
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson
import zmq

from . import (
    command_socket,
    limits,
    parallel,
    passband_files,
    process_state,
    protocol,
    random_numbers,
    runner,
    sandbox,
    script,
    snapshots,
)
from .answer import Answer, describe
from .commands import COMMANDS, Command, Refused, Session
from .runner import Runner
from .templates import Templates

_MESSAGES_PER_TURN = 100


def _replace_bundle(session: Session, /, name: Any, payload: bytes) -> dict[str, Any]:
    opened = snapshots.restored(name, payload)
    session.bundle = opened.bundle
    return opened.told()


_RESTORE = Command("restore", "change", _replace_bundle, whole=True, anew=True, imports=True)


@dataclass(frozen=True, slots=True)
class Request:
    """An accepted request, and where its answer goes."""

    sender: bytes
    seq: int
    command: Command
    arguments: dict[str, Any]
    cores: int
    wants_snapshot: bool
    wants_base: bool

    @property
    def may_fail_halfway(self) -> bool:
        """Whether a failure may leave the Bundle changed, which is to be kept then."""
        is_partial = self.command.kind == "change" and not self.command.whole
        return is_partial and self.wants_snapshot

    def answer(self, session: Session) -> tuple[Answer, bool]:
        """The command's answer, and whether the Bundle may differ from before."""
        changes = self.command.kind == "change"
        # What NumPy and others keep in context variables (how errors are treated, how numbers are
        # printed) ends with the command.
        context = contextvars.copy_context()
        try:
            arguments, seed = self.command.prepared(self.arguments)
            if seed is not None:
                random_numbers.seed_random_numbers(seed)
            try:
                result = context.run(self.command.function, session, **arguments)
            finally:  # at once: what the command left would be called with the next function
                process_state.hold_signals()
                sys.settrace(None)
                sys.setprofile(None)
        except Refused as error:
            return Answer.raised(error), False
        except BaseException as error:
            trace = error.__traceback__
            entered = trace is None or trace.tb_next is not None  # the arguments fitted
            return Answer.raised(error), changes and entered and not self.command.whole
        notice = result.get("notice") if self.command.whole else None
        return Answer.result(result, notice), changes


def run(
    start: protocol.Start, lifeline: socket.socket, templates: Templates, info: dict[str, Any]
) -> NoReturn:
    """Bind, say `ready`, serve. Returns never: it ends with the process."""
    try:
        random_numbers.reseed()
        limits.limit_memory(start.limits.get("memory_mb"))
        runner.adopt_orphans()
        status = process_state.open_status()
        listener = command_socket.listen(start.port)  # in its sandbox it could not
        sandbox.enter(start)
        endpoint = command_socket.serve_on(listener)
    except Exception as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        failed = "address_in_use" if in_use else "error"
        text = f"port {start.port}: {error}" if in_use else str(error)
        lifeline.send(protocol.packet({"failed": failed, "error": text}))
        os._exit(3)
    worker = Worker(start, listener, endpoint, Session(templates.first, templates), status)
    lifeline.send(protocol.packet({"ready": info}))
    worker.serve()


class Worker:
    """The loop and its state: the session, the runner at work, and what waits for its end."""

    def __init__(
        self,
        start: protocol.Start,
        listener: int,
        endpoint: zmq.Socket[bytes],
        session: Session,
        status: int,
    ) -> None:
        self._start = start
        self._listener: int | None = listener
        self._endpoint = endpoint
        self._session = session
        self._last_seq = 0
        self._dropped = 0
        # Of the Bundle as it was packed last; None where that was another object.
        self._packed: bytes | None = None
        self._at_work: tuple[Runner, Request] | None = None
        self._waiting: deque[Request] = deque()
        self._takers = {
            "request": self._request,
            "cancel": self._cancel,
            "restore": self._take_restore,
            "export": self._export,
        }
        self._poller = zmq.Poller()
        self._poller.register(endpoint, zmq.POLLIN)
        self._state = process_state.ProcessState(status, self._end)
        self._poller.register(self._state.signalled, zmq.POLLIN)

    def serve(self) -> NoReturn:
        while True:
            ready = dict(self._poller.poll())
            if self._state.signalled in ready:
                os.read(self._state.signalled, 4096)
            if self._at_work is not None:
                at_work, request = self._at_work
                if at_work.fd in ready or at_work.exit_fd in ready:
                    self._follow(at_work, request, ended=at_work.exit_fd in ready)
            if self._endpoint in ready:
                self._receive()

    def _end(self) -> NoReturn:
        """SIGTERM: at once, with the runner."""
        runner.end_children()
        os._exit(0)

    def _receive(self) -> None:
        """Take a bounded number of messages, so that a flood cannot hide the runner's end."""
        for _ in range(_MESSAGES_PER_TURN):
            try:
                sender, *frames = self._endpoint.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._accept(sender, frames)

    def _accept(self, sender: bytes, frames: list[bytes]) -> None:
        try:
            message = protocol.unseal(self._start.key, self._start.session, self._last_seq, frames)
        except protocol.Rejected as rejected:
            self._drop(str(rejected))
            return
        self._last_seq = message.seq
        if self._listener is not None:  # the server is connected
            command_socket.admit_nobody_else(self._listener)
            self._listener = None
        take = self._takers.get(message.kind)
        if take is None:
            self._drop(f"a worker takes no {message.kind}")
        else:
            take(sender, message)

    def _drop(self, reason: str) -> None:
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:  # 1, 2, 4, 8, … so that no flood fills the log
            print(f"dropped message {self._dropped}: {reason}", flush=True)

    def _request(self, sender: bytes, message: protocol.Message) -> None:
        parsed = _parse_command(message.body)
        if isinstance(parsed, Answer):
            self._reply(sender, message.seq, parsed)
            return
        self._schedule(
            Request(
                sender,
                message.seq,
                *parsed,
                message.cores,
                message.wants_snapshot,
                message.wants_base,
            )
        )

    def _take_restore(self, sender: bytes, message: protocol.Message) -> None:
        """Replacing the Bundle is a change like any other, and waits its turn."""
        arguments = {
            "name": message.header.get("format"),
            "payload": b"".join(message.attachments[:1]),
        }
        self._schedule(
            Request(
                sender,
                message.seq,
                _RESTORE,
                arguments,
                1,
                message.wants_snapshot,
                message.wants_base,
            )
        )

    def _export(self, sender: bytes, message: protocol.Message) -> None:
        """The committed Bundle, also while a runner works on the next."""
        try:
            data = snapshots.export(
                self._session.bundle,
                message.header.get("format"),
                message.body,
                b"".join(message.attachments[:1]),
            )
        except BaseException as error:
            self._reply(sender, message.seq, Answer.raised(error))
        else:
            self._reply(sender, message.seq, Answer.result({}), attachments=(data,))
        finally:
            self._mend()

    def _schedule(self, request: Request) -> None:
        if self._at_work is not None and request.command.kind != "read":
            self._waiting.append(request)
        else:
            self._perform(request)

    def _cancel(self, _: bytes, message: protocol.Message) -> None:
        """End the runner of the target, or take it from those that wait."""
        target, reason = message.header.get("target"), str(message.header.get("reason"))
        if self._at_work is not None and self._at_work[1].seq == target:
            self._at_work[0].cancel(reason)
            return
        for request in self._waiting:
            if request.seq == target:
                self._waiting.remove(request)
                answer = Answer.failure(f"Cancelled: {reason}", reason="cancelled")
                self._reply(request.sender, request.seq, answer)
                return

    def _perform(self, request: Request) -> None:
        passband_files.refresh()
        if request.command.kind == "long":
            self._start_runner(request)
            return
        parameter = None
        if request.wants_base and request.command.kind == "change":
            parameter = script.named_parameter(self._session.bundle, request.arguments)
        if request.may_fail_halfway and self._packed is None:
            self._pack_before()
        answer, changed = request.answer(self._session)
        self._mend()
        if changed:
            self._reply_changed(request, answer, parameter=parameter)
        else:
            self._reply(request.sender, request.seq, answer)

    def _mend(self) -> None:
        """After code of the Bundle ran: nothing of it but the Bundle goes on."""
        self._state.mend()
        if self._at_work is None:
            runner.end_children()

    def _start_runner(self, request: Request) -> None:
        def run_command() -> tuple[Answer, Any]:
            parallel.grant(request.cores)
            answer, _ = request.answer(self._session)
            return answer, self._session.bundle

        try:
            started = Runner(run_command, request.command.name)
        except OSError as error:
            text = f"The computation could not be started: {error}"
            answer = Answer.failure(text, reason="the computation could not be started")
            self._reply(request.sender, request.seq, answer)
            return
        self._at_work = started, request
        self._poller.register(started.fd, zmq.POLLIN)
        self._poller.register(started.exit_fd, zmq.POLLIN)

    def _follow(self, at_work: Runner, request: Request, *, ended: bool) -> None:
        """Pass on progress; at the runner's end answer its request and go on with what waits."""
        for body in at_work.receive():
            header = protocol.progress_header(self._start.session, request.seq)
            self._send(request.sender, header, body)
        if not ended:
            return
        self._at_work = None
        self._poller.unregister(at_work.fd)
        self._poller.unregister(at_work.exit_fd)
        outcome = at_work.outcome()
        answer = self._adopt(outcome)
        if answer.success:
            self._reply_changed(request, answer, pickled=outcome.bundle)
        else:
            self._reply(request.sender, request.seq, answer)
        while self._waiting and self._at_work is None:
            self._perform(self._waiting.popleft())

    def _adopt(self, outcome: runner.Outcome) -> Answer:
        if outcome.bundle is None:
            return outcome.answer
        try:
            self._session.bundle = snapshots.unpack(outcome.bundle)
        except BaseException as error:
            return Answer.raised(error)
        finally:
            self._mend()
        return outcome.answer

    def _reply_changed(
        self,
        request: Request,
        answer: Answer,
        *,
        pickled: bytes | None = None,
        parameter: dict[str, Any] | None = None,
    ) -> None:
        """Answer a request that changed the Bundle, with the Bundle and what a script can begin
        with where these were asked for."""
        attachments: list[bytes] = []
        error = base_error = None
        before, self._packed = self._packed, None
        has_base = request.wants_base and request.command.imports and answer.success
        if request.wants_snapshot:
            try:
                attachments = [pickled or self._pack()]
            except BaseException as raised:
                error = describe(raised)
        if not answer.success and before is not None and before == self._packed:
            self._reply(request.sender, request.seq, answer)  # it failed before it changed anything
            return
        if has_base:
            try:
                attachments.append(self._written(script.base))
            except BaseException as raised:
                has_base, base_error = False, describe(raised)
        self._reply(
            request.sender,
            request.seq,
            answer,
            changed=True,
            snapshot_error=error,
            base=has_base,
            base_error=base_error,
            parameter=parameter,
            notice=answer.notice,
            attachments=attachments,
        )

    def _pack(self) -> bytes:
        """The Bundle, pickled; the next change is compared with it."""
        packed = self._written(snapshots.pack)
        self._packed = hashlib.blake2b(packed).digest()
        return packed

    def _pack_before(self) -> None:
        """So that a command that fails before it changed anything is no change."""
        try:
            self._pack()
        except BaseException as error:  # told when the change is to be kept
            print(f"the Bundle cannot be compared: {describe(error)}", flush=True)

    def _written(self, write: Callable[[Any], bytes]) -> bytes:
        try:
            return write(self._session.bundle)
        finally:
            self._mend()

    def _reply(
        self,
        sender: bytes,
        seq: int,
        answer: Answer,
        *,
        changed: bool = False,
        snapshot_error: str | None = None,
        base: bool = False,
        base_error: str | None = None,
        parameter: dict[str, Any] | None = None,
        notice: str | None = None,
        attachments: Sequence[bytes] = (),
    ) -> None:
        header = protocol.reply_header(
            self._start.session,
            seq,
            success=answer.success,
            changed=changed,
            error=answer.error,
            reason=answer.reason,
            snapshot_error=snapshot_error,
            base=base,
            base_error=base_error,
            parameter=parameter,
            notice=notice,
        )
        self._send(sender, header, answer.body, attachments)

    def _send(
        self,
        sender: bytes,
        header: dict[str, Any],
        body: bytes,
        attachments: Sequence[bytes] = (),
    ) -> None:
        frames = protocol.seal(self._start.key, header, body, attachments)
        try:
            self._endpoint.send_multipart([sender, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            print(f"a reply could not be sent: {error}", flush=True)


def _parse_command(body: bytes) -> tuple[Command, dict[str, Any]] | Answer:
    """The command of a request's body, or the answer that says what is wrong with it."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _refused(f"The command is not valid JSON: {error}", "not valid JSON")
    if not isinstance(fields, dict):
        return _refused('A command is a JSON object: {"command": name, …}', "no JSON object")
    name = fields.pop("command", None)
    if name is None:
        return _refused('The field "command" is missing: {"command": name, …}', "no command")
    if not isinstance(name, str):
        return _refused('The field "command" must be text: {"command": name, …}', "no command")
    command = COMMANDS.get(name)
    if command is None:
        return _refused(f"API does not recognize command {name[:200]}.", "unknown command")
    return command, fields


def _refused(error: str, reason: str) -> Answer:
    return Answer.failure(error, reason=reason)
