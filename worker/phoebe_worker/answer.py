"""The answer to one command: what the user gets, and what the reply's header says of it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

import orjson

from .advice import advice_on
from .encode import encode
from .limits import memory_note

_ERROR_CHARACTERS_MAX = 10_000  # PHOEBE repeats a wrong value in its errors, however long
_TRACEBACK_CHARACTERS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is the user's JSON; `error` is None if and only if the command succeeded."""

    body: bytes
    error: str | None

    @property
    def success(self) -> bool:
        return self.error is None

    @classmethod
    def result(cls, value: Any) -> Answer:
        """Success; a failure instead where the value cannot be written as JSON."""
        try:
            return cls(b'{"success":true,"result":' + encode(value) + b"}", None)
        except BaseException as error:
            return cls.failure(f"The result cannot be sent: {describe(error)}")

    @classmethod
    def failure(cls, error: str, trace: str | None = None) -> Answer:
        if len(error) > _ERROR_CHARACTERS_MAX:
            error = error[:_ERROR_CHARACTERS_MAX] + " …"
        fields = {"success": False, "error": error}
        if advice := advice_on(error):
            fields["advice"] = advice
        if trace is not None:
            fields["traceback"] = trace[-_TRACEBACK_CHARACTERS_MAX:]
        return cls(encode(fields), error)

    @classmethod
    def raised(cls, error: BaseException) -> Answer:
        """The failure that an exception tells of."""
        return cls.failure(describe(error), _trace(error))

    def to_record(self) -> bytes:
        """For the pipe from a runner."""
        return encode({"error": self.error}) + b"\n" + self.body

    @classmethod
    def from_record(cls, record: bytes) -> Answer:
        head, _, body = record.partition(b"\n")
        return cls(body, orjson.loads(head)["error"])


def describe(error: BaseException) -> str:
    """The exception's text; its type too where the text alone says little."""
    try:
        text = str(error)
    except BaseException:
        text = ""
    name = type(error).__name__
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return f"The command was ended by {name}{f': {text}' if text else ''}"
    if isinstance(error, MemoryError):
        return f"Memory ran out{f': {text}' if text else ''}.{memory_note()}"
    if isinstance(error, KeyError):
        return f"{name}: {text}"
    return text or name


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:
        return describe(error)
