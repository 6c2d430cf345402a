"""Dying with the server: the kernel kills this process when the other end of a socket closes.

A watching thread or a Python signal handler would wait for a computation in C to come to an end.
`O_ASYNC` with `F_SETSIG` makes the kernel send SIGKILL itself, at once. Linux only.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket

from . import protocol

F_SETSIG = 10  # not in the fcntl module before Python 3.14


def receive_start(peer: socket.socket) -> protocol.Start:
    """The one packet that the server writes to a lifeline. Where there is none, or a wrong one, the
    process ends."""
    data = peer.recv(protocol.PACKET_BYTES_MAX)
    if not data:
        os._exit(0)
    try:
        return protocol.Start.parse(protocol.parse_packet(data))
    except ValueError as error:
        peer.send(protocol.packet({"failed": "error", "error": str(error)}))
        os._exit(1)


def arm(peer: socket.socket, *, whole_group: bool) -> None:
    """From now on, SIGKILL at the peer's end of file (or at data from it).

    `whole_group`: for the process group, which this process must lead; otherwise for this process.
    """
    fd = peer.fileno()
    fcntl.fcntl(fd, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpid() if whole_group else os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    if _is_closed(fd):  # it closed before the kernel knew whom to tell
        if whole_group:
            os.killpg(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def disarm(peer: socket.socket) -> None:
    """Undo `arm`: the peer may send data again."""
    fd = peer.fileno()
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_ASYNC)


def _is_closed(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLHUP | select.POLLRDHUP)
    return bool(poller.poll(0))
