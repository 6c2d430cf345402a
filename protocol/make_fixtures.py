"""Write the golden messages in `protocol/fixtures/`: `python protocol/make_fixtures.py`.

The tests of the Rust crate and of the Python package both read them. Each file is one message:

    name      the file's name
    key       the session's key, hexadecimal
    session   the session that the receiver belongs to
    last_seq  the greatest sequence number that the receiver has accepted
    frames    the message's frames, base64
    valid     whether the receiver accepts it
    reason    why not, as the Python side words it; null for a valid one
    header    the parsed header of a valid one, else null
    body      the body's text of a valid one, else null

The output depends on nothing but this script and `phoebe_worker.protocol`.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT.parent / "worker"))

from phoebe_worker import protocol  # noqa: E402

KEY = bytes(range(32))
SESSION = "3f2b8c1e-5d47-4a6b-9e0f-7c1d2a3b4c5d"
LAST_SEQ = 6


def header(kind: str, seq: int = 7, **fields: Any) -> dict[str, Any]:
    return {"v": 1, "session": SESSION, "seq": seq, "kind": kind, **fields}


def sealed(
    head: dict[str, Any], body: str = "", key: bytes = KEY, attached: tuple[bytes, ...] = ()
) -> list[bytes]:
    return protocol.seal(key, head, body.encode(), attached)


def sealed_raw(*frames: bytes) -> list[bytes]:
    """Frames signed as they are."""
    return [protocol.sign(KEY, frames), *frames]


def changed(frames: list[bytes], index: int, old: bytes, new: bytes) -> list[bytes]:
    """One frame altered after signing."""
    assert old in frames[index]
    return [f.replace(old, new, 1) if i == index else f for i, f in enumerate(frames)]


SET_VALUE = '{"command": "set_value", "twig": "period@binary", "value": 1.5}'
REQUEST = sealed(header("request"), SET_VALUE)
REPLY = header("reply", success=True, changed=False, error=None)
FAILED = header("reply", success=False, changed=True, error="could not convert string: 'é'")
DONE = '{"success":true,"result":{}}'
PICKLED = bytes(range(128, 256))
BASE = bytes.fromhex("789c8b8e0500011500b9")
RESTORE = sealed(
    header("restore", format="portable"), attached=('[{"qualifier":"note","value":"Ω"}]'.encode(),)
)
JOURNAL = (
    '{"entries":[{"command":{"command":"set_value","twig":"period@binary","value":1.5},'
    '"success":true}],"phoebe":"2.5.4"}'
)
CANCEL = header("cancel", 8, target=7, reason="by the user")

VALID: dict[str, list[bytes]] = {
    "request": REQUEST,
    "request_unicode": sealed(header("request"), '{"command":"ping","note":"Ω ☉ é"}'),
    "request_empty_body": sealed(header("request")),
    "request_large_seq": sealed(header("request", 2**53 + 1), SET_VALUE),
    "cancel": sealed(CANCEL),
    "reply": sealed(REPLY, '{"success":true,"result":{"status":"ready"}}'),
    "reply_failed": sealed(FAILED, '{"success":false,"error":"could not convert string: \'é\'"}'),
    "progress": sealed(header("progress"), '{"fraction":0.25,"stage":"run_compute"}'),
    "progress_unknown": sealed(header("progress"), '{"fraction":null,"stage":"run_solver"}'),
    "attachment": sealed(REPLY, DONE, attached=(b"\x00\xff\x80", b"")),
    "request_snapshot": sealed(header("request", snapshot=True, cores=2), SET_VALUE),
    "reply_snapshot": sealed({**REPLY, "changed": True}, DONE, attached=(PICKLED,)),
    "reply_snapshot_error": sealed(
        {**REPLY, "changed": True, "snapshot_error": "cannot pickle 'module' object"}, DONE
    ),
    "request_base": sealed(header("request", snapshot=True, base=True), SET_VALUE),
    "reply_base": sealed({**REPLY, "changed": True, "base": True}, DONE, attached=(PICKLED, BASE)),
    "reply_base_error": sealed(
        {**REPLY, "changed": True, "base_error": "Memory ran out"}, DONE, attached=(PICKLED,)
    ),
    "reply_parameter": sealed(
        {**REPLY, "changed": True, "parameter": {"qualifier": "period", "component": "binary"}},
        DONE,
    ),
    "reply_notice": sealed(
        {
            **REPLY,
            "changed": True,
            "notice": "It was read as one of PHOEBE 2.4.23, by its content.",
        },
        DONE,
    ),
    "restore_pickle": sealed(header("restore", format="pickle"), attached=(PICKLED,)),
    "restore_portable": RESTORE,
    "restore_file": sealed(
        header("restore", format="file", snapshot=True), attached=(b"[\n{}\n]\n",)
    ),
    "export_pickle": sealed(header("export", format="pickle")),
    "export_portable": sealed(header("export", format="portable")),
    "export_file": sealed(header("export", format="file")),
    "export_script": sealed(header("export", format="script"), JOURNAL),
    "export_script_base": sealed(
        header("export", format="script"), '{"base":"uploaded",' + JOURNAL[1:], attached=(BASE,)
    ),
    "header_with_unknown_field": sealed(header("request", extra=[1]), SET_VALUE),
}

INVALID: dict[str, list[bytes]] = {
    "tampered_body": changed(REQUEST, 2, b"1.5", b"9.5"),
    "tampered_header": changed(REQUEST, 1, b'"seq":7', b'"seq":9'),
    "tampered_attachment": changed(RESTORE, 3, b"note", b"Note"),
    "attachment_removed": RESTORE[:3],
    "tampered_signature": [bytes([REQUEST[0][0] ^ 1]) + REQUEST[0][1:], *REQUEST[1:]],
    "short_signature": [REQUEST[0][:31], *REQUEST[1:]],
    "empty_signature": [b"", *REQUEST[1:]],
    "wrong_key": sealed(header("request"), SET_VALUE, bytes(32)),
    "byte_moved_to_body": [REQUEST[0], REQUEST[1][:-1], REQUEST[1][-1:] + REQUEST[2]],
    "byte_moved_to_header": [REQUEST[0], REQUEST[1] + REQUEST[2][:1], REQUEST[2][1:]],
    "frames_swapped": [REQUEST[0], REQUEST[2], REQUEST[1]],
    "frame_added": [*REQUEST, b""],
    "frame_split": [REQUEST[0], REQUEST[1], REQUEST[2][:5], REQUEST[2][5:]],
    "replayed_seq": sealed(header("request", LAST_SEQ), SET_VALUE),
    "older_seq": sealed(header("request", 1), SET_VALUE),
    "cancel_replayed_seq": sealed(header("cancel", LAST_SEQ, target=3, reason="")),
    "negative_seq": sealed(header("request", -1), SET_VALUE),
    "text_seq": sealed({**header("request"), "seq": "7"}, SET_VALUE),
    "fractional_seq": sealed({**header("request"), "seq": 7.5}, SET_VALUE),
    "missing_seq": sealed({"v": 1, "session": SESSION, "kind": "request"}, SET_VALUE),
    "wrong_session": sealed(
        {**header("request"), "session": "00000000-0000-4000-8000-000000000000"}, SET_VALUE
    ),
    "missing_session": sealed({"v": 1, "seq": 7, "kind": "request"}, SET_VALUE),
    "unknown_version": sealed({**header("request"), "v": 2}, SET_VALUE),
    "missing_version": sealed({"session": SESSION, "seq": 7, "kind": "request"}, SET_VALUE),
    "unknown_kind": sealed(header("shutdown"), SET_VALUE),
    "header_not_utf8": sealed_raw(
        REQUEST[1].replace(b"request", b"req\xff\xfeuest"), SET_VALUE.encode()
    ),
    "header_not_json": sealed_raw(b'{"v":1,', SET_VALUE.encode()),
    "header_not_object": sealed_raw(b"[1]", SET_VALUE.encode()),
    "header_empty": sealed_raw(b"", SET_VALUE.encode()),
    "two_frames": sealed_raw(REQUEST[1]),
    "one_frame": [REQUEST[0]],
    "no_frames": [],
}


def fixture(name: str, frames: list[bytes], valid: bool) -> dict[str, Any]:
    parsed: dict[str, Any] = {"reason": None, "header": None, "body": None}
    try:
        message = protocol.unseal(KEY, SESSION, LAST_SEQ, frames)
    except protocol.Rejected as rejected:
        if valid:
            raise
        parsed["reason"] = str(rejected)
    else:
        assert valid, name
        parsed.update(header=message.header, body=message.body.decode())
    return {
        "name": name,
        "key": KEY.hex(),
        "session": SESSION,
        "last_seq": LAST_SEQ,
        "frames": [base64.b64encode(frame).decode() for frame in frames],
        "valid": valid,
        **parsed,
    }


def main() -> None:
    directory = ROOT / "fixtures"
    directory.mkdir(exist_ok=True)
    for path in directory.glob("*.json"):
        path.unlink()
    for messages, valid in ((VALID, True), (INVALID, False)):
        for name, frames in messages.items():
            text = json.dumps(fixture(name, frames, valid), indent=1, ensure_ascii=False)
            (directory / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
