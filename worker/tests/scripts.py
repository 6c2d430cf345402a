"""The journal of a session, and the comparison of its Bundle with that of its script."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from harness import Connection

from phoebe_worker.environment import VARIABLES

os.environ.update(VARIABLES)  # before PHOEBE is imported, which reading a Bundle does

WITHIN = 1e-12


@dataclass
class State:
    """The input of a script: its initial Bundle, and the commands since."""

    origin: str | None = None
    base: bytes = b""
    entries: list[dict[str, Any]] = field(default_factory=list)


class Journal:
    """The journal of a session: its changing commands in order."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.state = State()

    @property
    def entries(self) -> list[dict[str, Any]]:
        return self.state.entries

    def do(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        fields = {"command": command, **arguments}
        request = self.connection.request(orjson.dumps(fields), base=True)
        message = self.connection.reply_message(request)
        header = message.header
        if header.get("base"):
            self.state = State("loaded", message.attachments[-1])
        elif header["changed"]:
            entry = {"command": fields, "success": header["success"]}
            if "parameter" in header:
                entry["parameter"] = header["parameter"]
            self.entries.append(entry)
        answer: dict[str, Any] = json.loads(message.body)
        return answer

    def done(self, command: str, /, **arguments: Any) -> Any:
        answer = self.do(command, **arguments)
        assert answer["success"], answer
        return answer["result"]

    def upload(self, file: bytes) -> bool:
        """Replace the Bundle by that of a file, if PHOEBE can import it."""
        message = self.connection.restore("file", file, base=True)
        if message.header.get("base"):
            self.state = State("uploaded", message.attachments[-1])
        assert message.header["success"] is message.header.get("base", False)
        return bool(message.header["success"])

    def export(self, **fields: Any) -> Any:
        begins = {"base": self.state.origin} if self.state.origin else {}
        body = orjson.dumps({"entries": self.entries, "phoebe": "2.5.4", **begins, **fields})
        return self.connection.export("script", body, *[self.state.base] * bool(begins))

    def script(self, **fields: Any) -> str:
        message = self.export(**fields)
        assert message.header["success"] is True, message.body
        return str(message.attachments[0].decode())


def run(script: str, folder: Path, *arguments: str) -> tuple[Any, str]:
    """The Bundle that the script builds with stock PHOEBE in another process, and its output."""
    path, kept_in = folder / "session.py", folder / "bundle.pickle"
    keep = f"import pickle\nwith open({str(kept_in)!r}, 'wb') as kept:\n    pickle.dump(b, kept)\n"
    path.write_text(script + keep)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        env={**kept, **VARIABLES},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return pickle.loads(kept_in.read_bytes()), done.stdout + done.stderr


def summary(bundle: Any) -> dict[str, Any]:
    """Every parameter by its tags, without random values and times of creation."""
    known = {}
    for parameter in bundle._params:
        if "uniqueid" in parameter.qualifier:
            continue
        fields = parameter.to_json()
        value = fields.pop("value", None)
        known[parameter.twig, parameter._time and float(parameter._time)] = fields, value
    return known


def assert_equal(built: Any, session: Any) -> None:
    expected, got = summary(session), summary(built)
    assert got.keys() == expected.keys()
    for key, (fields, value) in expected.items():
        assert {**got[key][0], "choices": None} == {**fields, "choices": None}, key
        assert_close(got[key][1], value, key)


def assert_close(got: Any, expected: Any, key: Any) -> None:
    if isinstance(expected, float):
        assert np.isclose(got, expected, rtol=WITHIN, atol=WITHIN, equal_nan=True), key
    elif isinstance(expected, list):
        assert len(got) == len(expected), key
        for one, other in zip(got, expected, strict=True):
            assert_close(one, other, key)
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys(), key
        for name in expected:
            assert_close(got[name], expected[name], key)
    else:
        assert got == expected, key


def bundle_of(connection: Connection) -> Any:
    return pickle.loads(connection.exported("pickle"))
