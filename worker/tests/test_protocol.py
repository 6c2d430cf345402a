"""Messages are accepted or dropped exactly as the golden messages say."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from phoebe_worker import protocol

FIXTURES = sorted((Path(__file__).resolve().parents[2] / "protocol" / "fixtures").glob("*.json"))


def test_there_are_golden_messages() -> None:
    assert len(FIXTURES) > 30


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_golden_message(path: Path) -> None:
    fixture = json.loads(path.read_text(encoding="utf-8"))
    frames = [base64.b64decode(frame) for frame in fixture["frames"]]
    arguments = bytes.fromhex(fixture["key"]), fixture["session"], fixture["last_seq"], frames
    if fixture["valid"]:
        message = protocol.unseal(*arguments)
        assert message.header == fixture["header"]
        assert message.body == fixture["body"].encode()
        assert message.attachments == frames[3:]
    else:
        with pytest.raises(protocol.Rejected, match=f"^{fixture['reason']}$"):
            protocol.unseal(*arguments)


def test_a_sealed_message_is_accepted() -> None:
    key = bytes(range(32))
    header = protocol.reply_header("s", 5, success=False, changed=True, error="x" * 1000)
    message = protocol.unseal(key, "s", None, protocol.seal(key, header, b"{}", [b"a", b""]))
    assert message.header["error"] == "x" * 500
    assert (message.seq, message.kind) == (5, "reply")
    assert (message.body, message.attachments) == (b"{}", [b"a", b""])


def test_an_error_with_a_lone_surrogate_can_be_sent() -> None:
    header = protocol.reply_header("s", 1, success=False, changed=False, error="\ud800")
    protocol.seal(bytes(32), header)


def test_a_long_packet_is_cut_to_fit() -> None:
    packet = protocol.packet({"fatal": "é" * 100_000})
    assert len(packet) <= protocol.PACKET_BYTES_MAX
    assert json.loads(packet)["fatal"].startswith("ééé")


GOOD = {"session": "a", "port": 6560, "key": "ab" * 32, "limits": {"memory_mb": 5}, "new": 1}


def test_start() -> None:
    start = protocol.Start.parse(GOOD)
    assert (start.session, start.port, start.limits) == ("a", 6560, {"memory_mb": 5})
    assert start.key == b"\xab" * 32
    assert "ab" not in repr(start).replace("abs", "")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"session": 5}, "session"),
        ({"port": 0}, "port"),
        ({"port": True}, "port"),
        ({"port": "6560"}, "port"),
        ({"key": "ab"}, "key"),
        ({"key": "zz" * 32}, "key"),
        ({"key": None}, "key"),
        ({"limits": []}, None),
        ({"limits": [1]}, "limits"),
    ],
)
def test_start_names_the_wrong_field(wrong: dict[str, Any], named: str | None) -> None:
    if named is None:
        protocol.Start.parse({**GOOD, **wrong})
        return
    with pytest.raises(ValueError, match=f"start.{named}"):
        protocol.Start.parse({**GOOD, **wrong})
