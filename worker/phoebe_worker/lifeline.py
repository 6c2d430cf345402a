"""The lifeline: the kernel kills this process when the server closes its end of a socket.

A thread or a Python signal handler would have to wait for the end of a computation in C. `O_ASYNC`
with `F_SETSIG` makes the kernel itself send SIGKILL at once. Linux only.
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
    """Receive the one packet that the server writes to a lifeline.

    Exits if the lifeline closes or the packet is invalid.
    """
    data = peer.recv(protocol.PACKET_BYTES_MAX)
    if not data:
        os._exit(0)
    try:
        return protocol.Start.parse(protocol.parse_packet(data))
    except ValueError as error:
        peer.send(protocol.packet({"failed": "error", "error": str(error)}))
        os._exit(1)


def arm(peer: socket.socket, *, whole_group: bool) -> None:
    """Let the kernel send SIGKILL when the peer closes the socket or sends data.

    With `whole_group` it kills the process group, which this process must lead.
    """
    fd = peer.fileno()
    fcntl.fcntl(fd, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpid() if whole_group else os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    if _is_closed(fd):  # the peer closed it before the signal was set up
        if whole_group:
            os.killpg(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def disarm(peer: socket.socket) -> None:
    """Revert `arm`, so that the peer may send data."""
    fd = peer.fileno()
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_ASYNC)


def _is_closed(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLHUP | select.POLLRDHUP)
    return bool(poller.poll(0))
