"""Payloads that talk to somebody."""

import ctypes
import errno
import os
import socket
import stat


def _send(family, kind, address, data=b"hello"):
    with socket.socket(family, kind) as sender:
        sender.settimeout(5)
        sender.connect(address)
        sender.sendall(data)
    return "sent"


def asks_the_server(at):
    with socket.create_connection(("127.0.0.1", at.http_port), 5) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        return connection.recv(100)


def reaches_out_by_tcp(at):
    return _send(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", at.tcp))


def reaches_out_by_tcp_without_connecting(at):
    fast_open = 0x20000000
    with socket.socket() as sender:
        sender.sendto(b"hello", fast_open, ("127.0.0.1", at.tcp))
    return "sent"


def reaches_out_by_udp(at):
    return _send(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", at.udp))


def reaches_out_by_unix_socket(at):
    return _send(socket.AF_UNIX, socket.SOCK_STREAM, at.unix)


def reaches_out_by_abstract_socket(at):
    return _send(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + at.abstract)


def sends_from_a_pair_of_sockets(at):
    """A datagram socket of a pair may send to others too."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as target:
        target.bind("\0" + at.abstract + str(os.getpid()))
        left.sendto(b"hello", "\0" + at.abstract + str(os.getpid()))
        return target.recv(10)


def listens_on_another_port(at):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        return listener.getsockname()[1]


def listens_by_udp(at):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def opens_ipv6(at):
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as opened:
        return opened.fileno()


def opens_netlink(at):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as opened:
        opened.bind((0, 0))
        return opened.getsockname()


def _reaches_the_kernel(what, result):
    """Whether a call on no descriptor fails for that reason only, and would work on another."""
    error = ctypes.get_errno()
    if result != -1 or error != errno.EBADF:
        raise OSError(error, what)
    return "asked"


def sends_descriptors(at):
    """Descriptors that are sent and never received count for the user, who runs out of them."""
    return _reaches_the_kernel("sendmsg", _libc.sendmsg(-1, None, 0))


def shuts_a_socket_down(at):
    return _reaches_the_kernel("shutdown", _libc.shutdown(-1, socket.SHUT_RD))


def sets_options_of_its_connection(at):
    for descriptor in range(3, 256):
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
        except OSError:
            continue
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if connection.family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 16)
                return "set"
    raise LookupError("no connection")
