"""A worker: holds one session's Bundle and answers its commands, until it is told to end.

One loop over the command socket and the runner, if one is at work. It owns the Bundle; commands
change it, a runner's success replaces it. No error of a command ends the loop.
"""

from __future__ import annotations

import errno
import os
import pickle
import resource
import socket
from collections import deque
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson
import zmq

from . import parallel, protocol, restore, runner, sandbox
from .answer import Answer
from .commands import COMMANDS, Command, Session
from .runner import Runner
from .templates import Templates

_MESSAGE_BYTES_MAX = 512 * 1024 * 1024
_MESSAGES_PER_TURN = 100
_BACKLOG = 8


@dataclass(frozen=True, slots=True)
class Request:
    """An accepted request, and where its answer goes."""

    sender: bytes
    seq: int
    command: Command
    arguments: dict[str, Any]
    cores: int


def run(
    start: protocol.Start, lifeline: socket.socket, templates: Templates, info: dict[str, Any]
) -> NoReturn:
    """Bind, say `ready`, serve. Returns never: it ends with the process."""
    try:
        _limit_memory(start.limits.get("memory_mb"))
        runner.adopt_orphans()
        listener = _listen(start.port)  # in its sandbox it could not
        sandbox.enter(start)
        endpoint = _serve_on(listener)
    except Exception as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        failed = "address_in_use" if in_use else "error"
        text = f"port {start.port}: {error}" if in_use else str(error)
        lifeline.send(protocol.packet({"failed": failed, "error": text}))
        os._exit(3)
    worker = Worker(start, endpoint, Session(templates.first, templates))
    lifeline.send(protocol.packet({"ready": info}))
    worker.serve()


class Worker:
    """The loop and its state: the session, the runner at work, and what waits for its end."""

    def __init__(self, start: protocol.Start, endpoint: zmq.Socket[bytes], session: Session):
        self._start = start
        self._endpoint = endpoint
        self._session = session
        self._last_seq = 0
        self._dropped = 0
        self._runner: Runner | None = None
        self._runner_sender = b""
        self._waiting: deque[Request] = deque()
        self._poller = zmq.Poller()
        self._poller.register(endpoint, zmq.POLLIN)
        self._restore = restore.Snapshot(self._end)
        self._poller.register(self._restore.signalled, zmq.POLLIN)

    def serve(self) -> NoReturn:
        while True:
            ready = dict(self._poller.poll())
            if self._restore.signalled in ready:
                os.read(self._restore.signalled, 4096)
            at_work = self._runner
            if at_work is not None and (at_work.fd in ready or at_work.exit_fd in ready):
                self._follow(at_work, ended=at_work.exit_fd in ready)
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
        if message.kind == "request":
            self._request(sender, message)
        elif message.kind == "cancel":
            self._cancel(message)
        else:
            self._drop(f"a worker takes no {message.kind}")

    def _drop(self, reason: str) -> None:
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:  # 1, 2, 4, 8, … so that no flood fills the log
            print(f"dropped message {self._dropped}: {reason}", flush=True)

    def _request(self, sender: bytes, message: protocol.Message) -> None:
        parsed = _parse_command(message.body)
        if isinstance(parsed, Answer):
            self._reply(sender, message.seq, parsed, changed=False)
            return
        request = Request(sender, message.seq, *parsed, cores=message.cores)
        if self._runner is not None and request.command.kind != "read":
            self._waiting.append(request)
        else:
            self._perform(request)

    def _cancel(self, message: protocol.Message) -> None:
        """End the runner of the target, or take it from those that wait."""
        target, reason = message.header.get("target"), str(message.header.get("reason"))
        if self._runner is not None and self._runner.seq == target:
            self._runner.cancel(reason)
            return
        for request in self._waiting:
            if request.seq == target:
                self._waiting.remove(request)
                answer = Answer.failure(f"Cancelled: {reason}")
                self._reply(request.sender, request.seq, answer, changed=False)
                return

    def _perform(self, request: Request) -> None:
        if request.command.kind == "long":
            self._start_runner(request)
            return
        answer, entered = _call(request.command, self._session, request.arguments)
        self._restore.apply()
        changed = request.command.kind == "change" and entered
        self._reply(request.sender, request.seq, answer, changed=changed)

    def _start_runner(self, request: Request) -> None:
        def run_command() -> tuple[Answer, Any]:
            parallel.grant(request.cores)
            answer, _ = _call(request.command, self._session, request.arguments)
            return answer, self._session.bundle

        try:
            self._runner = Runner(request.seq, run_command, request.command.name)
        except OSError as error:
            answer = Answer.failure(f"The computation could not be started: {error}")
            self._reply(request.sender, request.seq, answer, changed=False)
            return
        self._runner_sender = request.sender
        self._poller.register(self._runner.fd, zmq.POLLIN)
        self._poller.register(self._runner.exit_fd, zmq.POLLIN)

    def _follow(self, at_work: Runner, *, ended: bool) -> None:
        """Pass on progress; at the runner's end answer its request and go on with what waits."""
        for body in at_work.receive():
            header = protocol.progress_header(self._start.session, at_work.seq)
            self._send(self._runner_sender, header, body)
        if not ended:
            return
        self._runner = None
        self._poller.unregister(at_work.fd)
        self._poller.unregister(at_work.exit_fd)
        answer = self._adopt(at_work.outcome())
        self._reply(self._runner_sender, at_work.seq, answer, changed=answer.success)
        while self._waiting and self._runner is None:
            self._perform(self._waiting.popleft())

    def _adopt(self, outcome: runner.Outcome) -> Answer:
        if outcome.bundle is None:
            return outcome.answer
        try:
            self._session.bundle = pickle.loads(outcome.bundle)
        except BaseException as error:
            return Answer.raised(error)
        finally:
            self._restore.apply()
        return outcome.answer

    def _reply(self, sender: bytes, seq: int, answer: Answer, *, changed: bool) -> None:
        header = protocol.reply_header(
            self._start.session, seq, success=answer.success, changed=changed, error=answer.error
        )
        self._send(sender, header, answer.body)

    def _send(self, sender: bytes, header: dict[str, Any], body: bytes) -> None:
        frames = protocol.seal(self._start.key, header, body)
        try:
            self._endpoint.send_multipart([sender, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            print(f"a reply could not be sent: {error}", flush=True)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    return listener


def _serve_on(listener: socket.socket) -> zmq.Socket[bytes]:
    """The command socket. Its threads start here."""
    endpoint: zmq.Socket[bytes] = zmq.Context(io_threads=1).socket(zmq.ROUTER)
    endpoint.linger = 0
    endpoint.maxmsgsize = _MESSAGE_BYTES_MAX
    endpoint.setsockopt(zmq.USE_FD, listener.fileno())
    host, port = listener.getsockname()
    endpoint.bind(f"tcp://{host}:{port}")
    listener.detach()  # it is ZeroMQ's now
    return endpoint


def _limit_memory(memory_mb: int | None) -> None:
    """Bound what this process may allocate beyond what it shares with the zygote."""
    if memory_mb is None:
        return
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    shared = int(fields["VmData"].split()[0]) * 1024
    limit = shared + memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _parse_command(body: bytes) -> tuple[Command, dict[str, Any]] | Answer:
    """The command of a request's body, or the answer that says what is wrong with it."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return Answer.failure(f"The command is not valid JSON: {error}")
    if not isinstance(fields, dict):
        return Answer.failure('A command is a JSON object: {"command": name, …}')
    name = fields.pop("command", None)
    if name is None:
        return Answer.failure('The field "command" is missing: {"command": name, …}')
    if not isinstance(name, str):
        return Answer.failure('The field "command" must be text: {"command": name, …}')
    command = COMMANDS.get(name)
    if command is None:
        return Answer.failure(f"API does not recognize command {name[:200]}.")
    return command, fields


def _call(command: Command, session: Session, arguments: dict[str, Any]) -> tuple[Answer, bool]:
    """The command's answer, and whether its function was entered (its arguments fitted)."""
    try:
        result = command.function(session, **arguments)
    except BaseException as error:
        trace = error.__traceback__
        return Answer.raised(error), trace is None or trace.tb_next is not None
    return Answer.result(result), True
