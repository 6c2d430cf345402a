"""The command socket: bound before the sandbox, served by ZeroMQ, closed to all but the server.

Any user of the machine can reach a loopback port. Messages are signed, so a stranger is never
obeyed; from the server's first message on he does not even get a connection.
"""

from __future__ import annotations

import os
import socket

import zmq

_MESSAGE_BYTES_MAX = 512 * 1024 * 1024
_BACKLOG = 8
_HANDSHAKE_MILLISECONDS = 5000


def listen(port: int) -> int:
    """Bind and listen; gives the descriptor. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    return listener.detach()


def serve_on(listener: int) -> zmq.Socket[bytes]:
    """ZeroMQ's socket on the listener. Its threads start here."""
    endpoint: zmq.Socket[bytes] = zmq.Context(io_threads=1).socket(zmq.ROUTER)
    endpoint.linger = 0
    endpoint.maxmsgsize = _MESSAGE_BYTES_MAX
    endpoint.handshake_ivl = _HANDSHAKE_MILLISECONDS
    endpoint.setsockopt(zmq.USE_FD, listener)
    endpoint.bind("tcp://127.0.0.1:*")  # a form: it is bound already
    return endpoint


def admit_nobody_else(listener: int) -> None:
    """Stop listening; connections that are open stay.

    ZeroMQ would end those too, were it asked to unbind. So its descriptor is put on something that
    never has news, which closes the listening socket. ZeroMQ looks at it again only when it is
    shut down, and a worker's never is: the process ends.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, listener)
    os.close(null)
