"""Real processes for the tests: a zygote as the server starts it, and workers over ZeroMQ."""

from __future__ import annotations

import array
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import zmq

from phoebe_worker import protocol
from phoebe_worker.sandbox import ROOT_FOLDER_VARIABLE

PACKAGE_DIRECTORY = Path(__file__).resolve().parents[1]
DEADLINE_SECONDS = 60.0

# How the server starts the package; extra code runs before it.
BOOTSTRAP = (
    "import sys, runpy; sys.path.insert(0, {path!r}); {extra}\n"
    "runpy.run_module('phoebe_worker', run_name='__main__')"
)


# Additional commands for the Python processes of the tests, which misbehave.
MISBEHAVIOUR = f"sys.path.insert(0, {str(Path(__file__).parent)!r}); import misbehaviour"

# The same for a process that is to have one thread: these commands import NumPy.
MISBEHAVING = (
    "import os\nfrom phoebe_worker.environment import VARIABLES\n"
    "os.environ.update(VARIABLES)\n" + MISBEHAVIOUR
)


def command_line(mode: str, extra: str = "") -> list[str]:
    code = BOOTSTRAP.format(path=str(PACKAGE_DIRECTORY), extra=extra)
    return [sys.executable, "-I", "-c", code, mode]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def receive_packet(channel: socket.socket, seconds: float = DEADLINE_SECONDS) -> dict[str, Any]:
    """One packet; raises EOFError at end of file, TimeoutError after the deadline."""
    channel.settimeout(seconds)
    data = channel.recv(protocol.PACKET_BYTES_MAX)
    if not data:
        raise EOFError
    return json.loads(data)


def wait_until(condition: Any, what: str, seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def group_members(group: int) -> list[int]:
    """Living processes of a process group."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            members.append(int(entry.name))
    return members


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(c) for c in children] + [d for c in children for d in descendants(int(c))]


class Zygote:
    """A zygote and the control channel to it.

    `root_folder` is told to it as the server does, as JSON.
    """

    def __init__(self, extra: str = "", root_folder: dict[str, Any] | None = None) -> None:
        self.control, theirs = socket_pair()
        told = {} if root_folder is None else {ROOT_FOLDER_VARIABLE: json.dumps(root_folder)}
        self.process = subprocess.Popen(
            command_line("zygote", extra),
            stdin=theirs.fileno(),
            stderr=None,
            close_fds=True,
            env={**os.environ, **told},
        )
        theirs.close()
        self.info: dict[str, Any] = {}
        self.exited: dict[int, dict[str, Any]] = {}
        self._requests = 0

    def wait_ready(self) -> dict[str, Any]:
        self.info = receive_packet(self.control)["ready"]
        return self.info

    def send_fork(self, *fds: int) -> int:
        self._requests += 1
        packet = orjson.dumps({"fork": self._requests})
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.control.sendmsg([packet], ancillary)
        return self._requests

    def next_packet(self) -> dict[str, Any]:
        """The next packet that does not report an exit; exits are stored in `exited`."""
        while True:
            packet = receive_packet(self.control)
            if "exited" not in packet:
                return packet
            self.exited[packet["exited"]] = packet

    def wait_exit(self, pid: int) -> dict[str, Any]:
        while pid not in self.exited:
            packet = receive_packet(self.control)
            self.exited[packet["exited"]] = packet
        return self.exited[pid]

    def close(self) -> None:
        self.control.close()
        self.process.wait(DEADLINE_SECONDS)


class WorkerDied(Exception):
    """A worker ended while a test waited for its answer. The text says how."""


class Connection:
    """The server's end of a worker's command socket.

    With `exit_fd`, the worker's pidfd, whoever waits for an answer learns of the worker's end at
    once; `how_it_ended` tells it in words.
    """

    def __init__(
        self,
        session: str,
        port: int,
        key: bytes,
        exit_fd: int | None = None,
        how_it_ended: Callable[[], str] = str,
    ) -> None:
        self.session, self.port, self.key, self.seq = session, port, key, 0
        self._exit_fd, self._how_it_ended = exit_fd, how_it_ended
        self.progress: list[dict[str, Any]] = []
        self._replies: dict[int, protocol.Message] = {}
        self.context = zmq.Context.instance()
        self.endpoint = self.context.socket(zmq.DEALER)
        self.endpoint.linger = 0
        self.endpoint.connect(f"tcp://127.0.0.1:{port}")
        self._poller = zmq.Poller()
        self._poller.register(self.endpoint, zmq.POLLIN)
        if exit_fd is not None:
            self._poller.register(exit_fd, zmq.POLLIN)

    def header(self, kind: str, **fields: Any) -> dict[str, Any]:
        self.seq += 1
        return {"v": 1, "session": self.session, "seq": self.seq, "kind": kind, **fields}

    def request(self, body: bytes, **fields: Any) -> int:
        """Send a request without waiting for its answer; returns its number."""
        header = self.header("request", **fields)
        self.endpoint.send_multipart(protocol.seal(self.key, header, body))
        return self.seq

    def restore(self, form: Any, *attachments: bytes, **fields: Any) -> protocol.Message:
        """Replace the Bundle; returns the answer."""
        return self.reply_message(self.start_restore(form, *attachments, **fields))

    def start_restore(self, form: Any, *attachments: bytes, **fields: Any) -> int:
        header = self.header("restore", format=form, **fields)
        self.endpoint.send_multipart(protocol.seal(self.key, header, b"", attachments))
        return self.seq

    def export(self, form: Any, body: bytes = b"", *attachments: bytes) -> protocol.Message:
        """The answer to an export in this format."""
        header = self.header("export", format=form)
        self.endpoint.send_multipart(protocol.seal(self.key, header, body, attachments))
        return self.reply_message(self.seq)

    def exported(self, form: str, body: bytes = b"") -> bytes:
        """The Bundle in this format; the export must succeed."""
        message = self.export(form, body)
        assert message.header["success"] is True, message.body
        (attachment,) = message.attachments
        return attachment

    def cancel(self, target: int, reason: str) -> None:
        header = self.header("cancel", target=target, reason=reason)
        self.endpoint.send_multipart(protocol.seal(self.key, header))

    def reply(
        self, seq: int, seconds: float = DEADLINE_SECONDS
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and parsed body of the answer to a request."""
        header, body = self.reply_bytes(seq, seconds)
        return header, json.loads(body)

    def reply_bytes(
        self, seq: int, seconds: float = DEADLINE_SECONDS
    ) -> tuple[dict[str, Any], bytes]:
        message = self.reply_message(seq, seconds)
        return message.header, message.body

    def reply_message(self, seq: int, seconds: float = DEADLINE_SECONDS) -> protocol.Message:
        """The complete answer to a request, with its attachments."""
        deadline = time.monotonic() + seconds
        while seq not in self._replies:
            left = deadline - time.monotonic()
            ready = dict(self._poller.poll(max(left, 0) * 1000))
            if self.endpoint in ready:
                self.take()
            elif self._exit_fd in ready:
                raise WorkerDied(f"no answer to request {seq}: {self._how_it_ended()}")
            elif left <= 0:
                raise TimeoutError(f"no answer to request {seq} within {seconds} s")
        return self._replies.pop(seq)

    def take(self) -> None:
        frames = self.endpoint.recv_multipart()
        message = protocol.unseal(self.key, self.session, None, frames)
        if message.kind == "progress":
            self.progress.append({"seq": message.seq, **json.loads(message.body)})
        else:
            assert message.kind == "reply"
            self._replies[message.seq] = message

    def has_reply(self, seq: int) -> bool:
        while self.endpoint.poll(0):
            self.take()
        return seq in self._replies

    def send(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        """One command and its answer."""
        seq = self.request(orjson.dumps({"command": command, **arguments}))
        return self.reply(seq)[1]

    def start(self, command: str, /, cores: int = 1, **arguments: Any) -> int:
        return self.request(orjson.dumps({"command": command, **arguments}), cores=cores)

    def result(self, command: str, /, **arguments: Any) -> Any:
        """The result of a command that must succeed."""
        answer = self.send(command, **arguments)
        assert answer["success"] is True, answer
        return answer["result"]

    def error(self, command: str, /, **arguments: Any) -> str:
        """The error of a command that must fail."""
        answer = self.send(command, **arguments)
        assert answer["success"] is False, answer
        return answer["error"]

    def close(self) -> None:
        self.endpoint.close()


class Worker:
    """A worker forked by a zygote, its lifeline, its log and a connection to it."""

    def __init__(
        self,
        zygote: Zygote,
        limits: dict[str, Any] | None = None,
        port: int | None = None,
        sandbox: dict[str, Any] | None = None,
    ) -> None:
        self.zygote = zygote
        self.session, self.key = str(uuid.uuid4()), secrets.token_bytes(32)
        self.port = free_port() if port is None else port
        self.lifeline, theirs = socket_pair()
        self.log, log_write = os.pipe()
        self._log_text = b""
        start = {
            "session": self.session,
            "port": self.port,
            "key": self.key.hex(),
            "limits": limits or {},
            "sandbox": sandbox,
        }
        self.lifeline.send(orjson.dumps(start))
        number = zygote.send_fork(theirs.fileno(), log_write)
        theirs.close()
        os.close(log_write)
        packet = zygote.next_packet()
        assert packet["forked"] == number, packet
        self.pid = int(packet["pid"])
        self.connection: Connection

    def wait_ready(self) -> Connection:
        packet = receive_packet(self.lifeline)
        told = {name: self.zygote.info[name] for name in ("python", "phoebe", "template")}
        assert packet == {"ready": told}, packet
        self._exit_fd = os.pidfd_open(self.pid)
        self.connection = Connection(
            self.session, self.port, self.key, self._exit_fd, self._how_it_ended
        )
        return self.connection

    def _how_it_ended(self) -> str:
        exited = self.zygote.wait_exit(self.pid)
        if exited["signal"] is None:
            return f"the worker exited with code {exited['code']}"
        return f"{signal.Signals(exited['signal']).name} ended the worker"

    def runner(self) -> int:
        """The process id of the active runner."""
        wait_until(lambda: descendants(self.pid), "a runner")
        return descendants(self.pid)[0]

    def log_text(self) -> str:
        """The content of the worker's log."""
        while select.select([self.log], [], [], 0)[0]:
            data = os.read(self.log, 65536)
            if not data:
                break
            self._log_text += data
        return self._log_text.decode()

    def close(self) -> None:
        """End the worker by its lifeline; no process of its group may be left."""
        self.lifeline.close()
        if hasattr(self, "connection"):
            self.connection.close()
            os.close(self._exit_fd)
        wait_until(lambda: not group_members(self.pid), "the worker's group is gone", 5)
        self.zygote.wait_exit(self.pid)
        os.close(self.log)

    def terminate(self) -> None:
        os.killpg(self.pid, signal.SIGTERM)
