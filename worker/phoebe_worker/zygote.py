"""The zygote: a process with PHOEBE imported, from which workers are forked in milliseconds.

It serves fork requests on its control channel and reports the exits of its children. It stays
single-threaded and never runs code of users.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import traceback
from typing import Any, NoReturn

from . import (
    forked,
    lifeline,
    memory,
    passband_files,
    protocol,
    root_folder,
    sandbox,
    templates,
    worker,
)


def run() -> NoReturn:
    """Serve the control channel (standard input) until its end of file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server alone handles Ctrl-C
    control = take_over_stdin()
    # Any data would kill this process; the server sends none before `ready`.
    lifeline.arm(control, whole_group=False)
    try:
        prepared = templates.prepare()
        info = templates.info(prepared)
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            raise RuntimeError(f"{threads} threads after the import; a fork needs exactly one")
        info |= sandbox.prepare_root_folder()
    except BaseException as error:
        traceback.print_exc()
        control.send(protocol.packet({"fatal": f"PHOEBE cannot be used: {error}"}))
        os._exit(1)
    memory.prepare_for_forks()
    lifeline.disarm(control)
    control.send(protocol.packet({"ready": info}))
    Zygote(control, prepared, info).serve()


def take_over_stdin() -> socket.socket:
    """Return standard input as a socket, and replace it by /dev/null."""
    taken = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return taken


class Zygote:
    """The loop over the control channel and the exits of children."""

    def __init__(
        self, control: socket.socket, prepared: templates.Templates, info: dict[str, Any]
    ) -> None:
        self._control = control
        self._templates = prepared
        # Short, because every start of a worker waits for this packet.
        self._info = {name: info[name] for name in ("python", "phoebe", "template")}
        self._child_ended, wakeup = socket.socketpair()
        self._child_ended.setblocking(False)
        wakeup.setblocking(False)
        self._wakeup = wakeup
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler, Python writes no wakeup
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._child_ended, selectors.EVENT_READ)

    def serve(self) -> NoReturn:
        while True:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if self._child_ended in ready:
                self._child_ended.recv(4096)
                self._report_exits()
            if self._control in ready:
                self._handle_request()

    def _send(self, value: dict[str, Any]) -> None:
        try:
            self._control.send(protocol.packet(value))
        except OSError:
            os._exit(0)  # the server is gone

    def _report_exits(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            # The rest of the worker's process group is killed before the worker is reaped: until
            # then, no other process or group can have the id.
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            self._send(
                {
                    "exited": pid,
                    "code": code if code >= 0 else None,
                    "signal": -code if code < 0 else None,
                }
            )

    def _handle_request(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, protocol.PACKET_BYTES_MAX, 16)
        except OSError:
            os._exit(0)
        if not data:
            os._exit(0)
        number: Any = None
        try:
            request = protocol.parse_packet(data)
            if "passbands" in request:
                self._send_passbands(request["passbands"])
                return
            number = request.get("fork")
            if len(fds) != 2:
                raise ValueError(f"a fork needs 2 descriptors (lifeline, log), got {len(fds)}")
            pid = self._fork(*fds)
        except (ValueError, OSError) as error:
            self._send({"failed": number, "error": str(error)})
        else:
            self._send({"forked": number, "pid": pid})
        finally:
            for fd in fds:
                os.close(fd)

    def _send_passbands(self, number: Any) -> None:
        self._send({"passbands": number, "names": passband_files.names()})

    def _fork(self, lifeline_fd: int, log_fd: int) -> int:
        passband_files.refresh()  # once here instead of in every worker
        pid = os.fork()
        if pid == 0:
            self._become_worker(lifeline_fd, log_fd)
        return pid

    def _become_worker(self, lifeline_fd: int, log_fd: int) -> NoReturn:
        """Run the child. It never returns."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(log_fd, 1)
            os.dup2(log_fd, 2)
            for inherited in (self._control, self._child_ended, self._wakeup):
                inherited.detach()
            self._selector.close()
            forked.close_all_but(lifeline_fd, *root_folder.descriptors())
            os.setsid()
            peer = socket.socket(fileno=lifeline_fd)
            start = lifeline.receive_start(peer)  # a spare worker waits here
            lifeline.arm(peer, whole_group=True)
            worker.run(start, peer, self._templates, self._info)
        except BaseException:
            traceback.print_exc()
        finally:
            forked.exit_process(1)
