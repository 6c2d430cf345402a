"""A worker: holds one session's Bundle and answers its commands.

One loop serves the command socket and the runner, if there is one. The worker owns the Bundle.
Commands change it, and a successful runner replaces it. No error of a command ends the loop.
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


def _restore_bundle(session: Session, /, name: Any, payload: bytes) -> dict[str, Any]:
    opened = snapshots.restore(name, payload)
    session.bundle = opened.bundle
    return opened.result()


_RESTORE = Command("restore", "change", _restore_bundle, atomic=True, resets=True, imports=True)


@dataclass(frozen=True, slots=True)
class Request:
    """An accepted request, and the sender that gets the answer."""

    sender: bytes
    seq: int
    command: Command
    arguments: dict[str, Any]
    cores: int
    background: bool
    wants_snapshot: bool
    wants_base: bool

    @classmethod
    def of(
        cls, sender: bytes, message: protocol.Message, command: Command, arguments: dict[str, Any]
    ) -> Request:
        turn = message.cores, message.background
        fields = *turn, message.wants_snapshot, message.wants_base
        return cls(sender, message.seq, command, arguments, *fields)

    @property
    def may_change_partially(self) -> bool:
        """Whether a failing command may have changed the Bundle, which must then be saved."""
        is_partial = self.command.kind == "change" and not self.command.atomic
        return is_partial and self.wants_snapshot

    def answer(self, session: Session) -> tuple[Answer, bool]:
        """Run the command; returns the answer, and whether it may have changed the Bundle."""
        changes = self.command.kind == "change"
        # Changes of context variables end with the command: NumPy keeps its treatment of errors and
        # its print options there.
        context = contextvars.copy_context()
        try:
            arguments, seed = self.command.decoded_arguments(self.arguments)
            if seed is not None:
                random_numbers.seed_random_numbers(seed)
            try:
                result = context.run(self.command.function, session, **arguments)
            finally:  # before any other call: it would run a trace function of the command
                process_state.block_signals()
                sys.settrace(None)
                sys.setprofile(None)
        except Refused as error:
            return Answer.raised(error), False
        except BaseException as error:
            trace = error.__traceback__
            entered = trace is None or trace.tb_next is not None  # the function was entered
            return Answer.raised(error), changes and entered and not self.command.atomic
        notice = result.get("notice") if self.command.atomic else None
        return Answer.result(result, notice), changes


def run(
    start: protocol.Start, lifeline: socket.socket, templates: Templates, info: dict[str, Any]
) -> NoReturn:
    """Bind the command socket, send `ready`, and serve until the process ends."""
    try:
        random_numbers.reseed()
        limits.limit_memory(start.limits.get("memory_mb"))
        runner.adopt_orphans()
        status = process_state.open_status()
        listener = command_socket.listen(start.port)  # the sandbox forbids it later
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
    """The loop and its state: the session, the active runner, and the requests queued for it."""

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
        # Of the Bundle when it was last pickled; None after the Bundle has been replaced.
        self._packed_digest: bytes | None = None
        self._running: tuple[Runner, Request] | None = None
        self._queue: deque[Request] = deque()
        self._handlers = {
            "request": self._handle_request,
            "cancel": self._handle_cancel,
            "restore": self._handle_restore,
            "export": self._handle_export,
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
            if self._running is not None:
                active, request = self._running
                if active.fd in ready or active.exit_fd in ready:
                    self._handle_runner(active, request, ended=active.exit_fd in ready)
            if self._endpoint in ready:
                self._receive()

    def _end(self) -> NoReturn:
        """At SIGTERM, end this process and the runner at once."""
        runner.end_children()
        os._exit(0)

    def _receive(self) -> None:
        """Receive a bounded number of messages, so that a flood cannot delay the runner's end."""
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
            command_socket.stop_listening(self._listener)
            self._listener = None
        handle = self._handlers.get(message.kind)
        if handle is None:
            self._drop(f"a worker takes no {message.kind}")
        else:
            handle(sender, message)

    def _drop(self, reason: str) -> None:
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:  # 1, 2, 4, 8, … so that no flood fills the log
            print(f"dropped message {self._dropped}: {reason}", flush=True)

    def _handle_request(self, sender: bytes, message: protocol.Message) -> None:
        parsed = _parse_command(message.body)
        if isinstance(parsed, Answer):
            self._reply(sender, message.seq, parsed)
        else:
            self._schedule(Request.of(sender, message, *parsed))

    def _handle_restore(self, sender: bytes, message: protocol.Message) -> None:
        """Schedule the replacement of the Bundle like any other change."""
        arguments = {
            "name": message.header.get("format"),
            "payload": b"".join(message.attachments[:1]),
        }
        self._schedule(Request.of(sender, message, _RESTORE, arguments))

    def _handle_export(self, sender: bytes, message: protocol.Message) -> None:
        """Send the committed Bundle, even while a runner is active."""
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
            self._restore_process()

    def _schedule(self, request: Request) -> None:
        if self._running is not None and request.command.kind != "read":
            self._queue.append(request)
        else:
            self._execute(request)

    def _handle_cancel(self, _: bytes, message: protocol.Message) -> None:
        """Kill the runner of the target request, or remove the request from the queue."""
        target, reason = message.header.get("target"), str(message.header.get("reason"))
        if self._running is not None and self._running[1].seq == target:
            self._running[0].cancel(reason)
            return
        for request in self._queue:
            if request.seq == target:
                self._queue.remove(request)
                answer = Answer.failure(f"Cancelled: {reason}", reason="cancelled")
                self._reply(request.sender, request.seq, answer)
                return

    def _execute(self, request: Request) -> None:
        passband_files.refresh()
        if request.command.kind == "long":
            self._start_runner(request)
            return
        parameter = None
        if request.wants_base and request.command.kind == "change":
            parameter = script.named_parameter(self._session.bundle, request.arguments)
        if request.may_change_partially and self._packed_digest is None:
            self._pack_before()
        answer, changed = request.answer(self._session)
        self._restore_process()
        if changed:
            self._reply_changed(request, answer, parameter=parameter)
        else:
            self._reply(request.sender, request.seq, answer)

    def _restore_process(self) -> None:
        """Restore the process after code of the Bundle has run, and end processes it started."""
        self._state.restore()
        if self._running is None:
            runner.end_children()

    def _start_runner(self, request: Request) -> None:
        def run_command() -> tuple[Answer, Any]:
            parallel.grant(request.cores)
            if request.background:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            answer, _ = request.answer(self._session)
            return answer, self._session.bundle

        try:
            started = Runner(run_command, request.command.name)
        except OSError as error:
            text = f"The computation could not be started: {error}"
            answer = Answer.failure(text, reason="the computation could not be started")
            self._reply(request.sender, request.seq, answer)
            return
        self._running = started, request
        self._poller.register(started.fd, zmq.POLLIN)
        self._poller.register(started.exit_fd, zmq.POLLIN)

    def _handle_runner(self, active: Runner, request: Request, *, ended: bool) -> None:
        """Forward progress. At the runner's end answer its request and run the queue."""
        for body in active.receive():
            header = protocol.progress_header(self._start.session, request.seq)
            self._send(request.sender, header, body)
        if not ended:
            return
        self._running = None
        self._poller.unregister(active.fd)
        self._poller.unregister(active.exit_fd)
        outcome = active.outcome()
        answer = self._adopt_bundle(outcome)
        if answer.success:
            self._reply_changed(request, answer, pickled=outcome.bundle)
        else:
            self._reply(request.sender, request.seq, answer)
        while self._queue and self._running is None:
            self._execute(self._queue.popleft())

    def _adopt_bundle(self, outcome: runner.Outcome) -> Answer:
        if outcome.bundle is None:
            return outcome.answer
        try:
            self._session.bundle = snapshots.unpack(outcome.bundle)
        except BaseException as error:
            return Answer.raised(error)
        finally:
            self._restore_process()
        return outcome.answer

    def _reply_changed(
        self,
        request: Request,
        answer: Answer,
        *,
        pickled: bytes | None = None,
        parameter: dict[str, Any] | None = None,
    ) -> None:
        """Answer a request that changed the Bundle.

        On request, attach the pickled Bundle and the base for scripts.
        """
        attachments: list[bytes] = []
        error = base_error = None
        before, self._packed_digest = self._packed_digest, None
        has_base = request.wants_base and request.command.imports and answer.success
        if request.wants_snapshot:
            try:
                attachments = [pickled or self._pack()]
            except BaseException as raised:
                error = describe(raised)
        if not answer.success and before is not None and before == self._packed_digest:
            self._reply(request.sender, request.seq, answer)  # nothing was changed
            return
        if has_base:
            try:
                attachments.append(self._serialize(script.base))
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
        """Pickle the Bundle, and keep the digest for a comparison after the next change."""
        packed = self._serialize(snapshots.pack)
        self._packed_digest = hashlib.blake2b(packed).digest()
        return packed

    def _pack_before(self) -> None:
        """Keep a digest of the Bundle, to detect whether a failing command changed it."""
        try:
            self._pack()
        except BaseException as error:  # reported when the change is to be saved
            print(f"the Bundle cannot be compared: {describe(error)}", flush=True)

    def _serialize(self, write: Callable[[Any], bytes]) -> bytes:
        try:
            return write(self._session.bundle)
        finally:
            self._restore_process()

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
    """The command in a request's body, or the answer that describes what is wrong with it."""
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
