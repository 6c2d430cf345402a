"""Wire format: signed messages over ZeroMQ, and JSON packets over Unix sockets.

This module converts between objects and bytes. It opens no sockets and knows no commands.
"""

from __future__ import annotations

import base64
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

VERSION = 1
PACKET_BYTES_MAX = 64 * 1024
HEADER_ERROR_CHARACTERS_MAX = 500
HEADER_NOTICE_CHARACTERS_MAX = 4000

KINDS = frozenset({"request", "cancel", "restore", "export", "reply", "progress"})
SEQ_MAX = 2**64 - 1


class Rejected(Exception):
    """A message that must be dropped without an answer. The text gives the reason."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message whose signature, session, version and sequence number are valid."""

    header: dict[str, Any]
    body: bytes
    attachments: list[bytes] = field(default_factory=list)

    @property
    def seq(self) -> int:
        return int(self.header["seq"])

    @property
    def kind(self) -> str:
        return str(self.header["kind"])

    @property
    def cores(self) -> int:
        """The number of cores granted to a request; 1 unless the header gives it."""
        cores = self.header.get("cores", 1)
        return cores if isinstance(cores, int) and cores >= 1 else 1

    @property
    def background(self) -> bool:
        """Whether a long command gives way to all other work of the machine."""
        return self.header.get("background") is True

    @property
    def wants_snapshot(self) -> bool:
        """Whether the reply must carry the changed Bundle."""
        return self.header.get("snapshot") is True

    @property
    def wants_base(self) -> bool:
        """Whether the reply must carry the base for scripts, if the command imports a Bundle."""
        return self.header.get("base") is True


def sign(key: bytes, frames: Sequence[bytes]) -> bytes:
    """HMAC-SHA-256 over the frames, each preceded by its length (8 bytes, big-endian)."""
    digest = hmac.new(key, digestmod="sha256")
    for frame in frames:
        digest.update(struct.pack(">Q", len(frame)))
        digest.update(frame)
    return digest.digest()


def seal(
    key: bytes, header: dict[str, Any], body: bytes = b"", attachments: Sequence[bytes] = ()
) -> list[bytes]:
    """The frames of a signed message."""
    frames = [orjson.dumps(header), body, *attachments]
    return [sign(key, frames), *frames]


def unseal(key: bytes, session: str, last_seq: int | None, frames: Sequence[bytes]) -> Message:
    """Verify a message. Raises `Rejected`.

    `last_seq` is the greatest sequence number accepted so far. It is None for replies and progress,
    which repeat the number of their request.
    """
    if len(frames) < 3:
        raise Rejected("too few frames")
    signature, *signed = frames
    if not hmac.compare_digest(signature, sign(key, signed)):
        raise Rejected("wrong signature")
    try:
        header = orjson.loads(signed[0])
    except orjson.JSONDecodeError:
        raise Rejected("header is not JSON") from None
    if not isinstance(header, dict):
        raise Rejected("header is not an object")
    if type(header.get("v")) is not int or header["v"] != VERSION:
        raise Rejected("unknown version")
    if header.get("session") != session:
        raise Rejected("another session")
    if not isinstance(header.get("kind"), str) or header["kind"] not in KINDS:
        raise Rejected("unknown kind")
    seq = header.get("seq")
    if not isinstance(seq, int) or isinstance(seq, bool) or not 0 < seq <= SEQ_MAX:
        raise Rejected("seq is not a positive integer")
    if last_seq is not None and seq <= last_seq:
        raise Rejected("seq is not new")
    return Message(header, signed[1], list(signed[2:]))


def reply_header(
    session: str,
    seq: int,
    *,
    success: bool,
    changed: bool,
    error: str | None,
    reason: str | None = None,
    snapshot_error: str | None = None,
    base: bool = False,
    base_error: str | None = None,
    parameter: dict[str, Any] | None = None,
    notice: str | None = None,
) -> dict[str, Any]:
    """Header of the answer to request `seq`.

    `changed`: the command may have changed the Bundle. `base`: the last attachment is the base for
    scripts. `parameter`: the tags of the parameter that the command names by its unique id.
    `error` is for the user, `reason` for the log.
    """
    header: dict[str, Any] = {
        "v": VERSION,
        "session": session,
        "seq": seq,
        "kind": "reply",
        "success": success,
        "changed": changed,
        "error": _truncate(error),
    }
    if reason is not None:
        header["reason"] = _truncate(reason)
    if snapshot_error is not None:
        header["snapshot_error"] = _truncate(snapshot_error)
    if base:
        header["base"] = True
    if base_error is not None:
        header["base_error"] = _truncate(base_error)
    if parameter is not None:
        header["parameter"] = parameter
    if notice is not None:
        header["notice"] = _valid_text(notice[:HEADER_NOTICE_CHARACTERS_MAX])
    return header


def progress_header(session: str, seq: int) -> dict[str, Any]:
    """Header of a progress message about request `seq`."""
    return {"v": VERSION, "session": session, "seq": seq, "kind": "progress"}


def packet(value: dict[str, Any]) -> bytes:
    """One packet of the control channel or a lifeline. Truncates long texts in it."""
    data = orjson.dumps(value)
    if len(data) > PACKET_BYTES_MAX:
        cut = {k: _valid_text(v[:4000]) if isinstance(v, str) else v for k, v in value.items()}
        data = orjson.dumps(cut)
    return data


def parse_packet(data: bytes) -> dict[str, Any]:
    """The JSON object of a packet. Raises ValueError."""
    value = orjson.loads(data)
    if not isinstance(value, dict):
        raise ValueError("a packet must be a JSON object")
    return value


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The sandbox of a worker. If `enforced`, the worker does not start when a part fails."""

    enforced: bool
    filters: list[bytes]
    readable: list[str]
    scratch: str
    account: Account | None

    @classmethod
    def parse(cls, value: Any) -> Sandbox:
        """Check the fields. Raises ValueError, which names the error."""
        try:
            account = value.get("account")
            return cls(
                enforced={"enforce": True, "best-effort": False}[value["level"]],
                filters=[base64.b64decode(each, validate=True) for each in value["filters"]],
                readable=[str(path) for path in value["readable"]],
                scratch=str(value["scratch"]),
                account=account and Account(int(account["uid"]), int(account["gid"])),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"start.sandbox cannot be used: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Start:
    """The settings of a worker, sent at its start. The key is not part of the repr."""

    session: str
    port: int
    key: bytes = field(repr=False)
    limits: dict[str, int] = field(default_factory=dict)
    sandbox: Sandbox | None = None

    @classmethod
    def parse(cls, value: Any) -> Start:
        """Check the fields. Raises ValueError, which names the wrong field."""
        if not isinstance(value, dict):
            raise ValueError("start must be a JSON object")
        session, port = value.get("session"), value.get("port")
        limits = value.get("limits") or {}
        if not isinstance(session, str) or not session:
            raise ValueError("start.session must be text")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise ValueError("start.port must be a port number")
        try:
            key = bytes.fromhex(str(value.get("key")))
        except ValueError:
            key = b""
        if len(key) != 32:
            raise ValueError("start.key must be 64 hex digits")
        if not isinstance(limits, dict) or not all(type(each) is int for each in limits.values()):
            raise ValueError("start.limits must be a JSON object of whole numbers")
        sandbox = value.get("sandbox")
        return cls(session, port, key, limits, sandbox and Sandbox.parse(sandbox))


def _truncate(error: str | None) -> str | None:
    return None if error is None else _valid_text(error[:HEADER_ERROR_CHARACTERS_MAX])


def _valid_text(text: str) -> str:
    """The text without lone surrogates, which JSON in UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
