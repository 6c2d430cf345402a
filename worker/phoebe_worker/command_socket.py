"""The command socket: bound before the sandbox, served by ZeroMQ, for the server only.

Any user of the machine can connect to a loopback port. Messages without the server's signature are
dropped. After the server's first message the worker accepts no further connections.
"""

from __future__ import annotations

import os
import socket

import zmq

_MESSAGE_BYTES_MAX = 512 * 1024 * 1024
_BACKLOG = 8
_HANDSHAKE_MILLISECONDS = 5000


def listen(port: int) -> int:
    """Bind and listen; returns the descriptor. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    return listener.detach()


def serve_on(listener: int) -> zmq.Socket[bytes]:
    """A ZeroMQ socket on the listener. Starts ZeroMQ's threads."""
    endpoint: zmq.Socket[bytes] = zmq.Context(io_threads=1).socket(zmq.ROUTER)
    endpoint.linger = 0
    endpoint.maxmsgsize = _MESSAGE_BYTES_MAX
    endpoint.handshake_ivl = _HANDSHAKE_MILLISECONDS
    endpoint.setsockopt(zmq.USE_FD, listener)
    endpoint.bind("tcp://127.0.0.1:*")  # required by ZeroMQ; the socket is already bound
    return endpoint


def stop_listening(listener: int) -> None:
    """Stop listening. Open connections stay open.

    ZeroMQ's unbind would close them. Instead /dev/null replaces the descriptor, which closes the
    listening socket. ZeroMQ uses the descriptor again only at shutdown, and a worker never shuts
    ZeroMQ down.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, listener)
    os.close(null)
