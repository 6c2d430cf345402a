"""The answer to one command: the user's JSON, and the fields of the reply's header.

The user gets the exception's text and traceback without the server's folders. The log gets the
exception's class or a text of this server, and nothing that a user sent.
"""

from __future__ import annotations

import os
import sys
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
    """`body` is the user's JSON; `error` is None if and only if the command succeeded.

    `reason` describes a failure in the log. `notice` tells the user about a Bundle that was read.
    """

    body: bytes
    error: str | None
    reason: str | None = None
    notice: str | None = None

    @property
    def success(self) -> bool:
        return self.error is None

    @classmethod
    def result(cls, value: Any, notice: str | None = None) -> Answer:
        """A success, or a failure if the value cannot be written as JSON."""
        try:
            return cls(b'{"success":true,"result":' + encode(value) + b"}", None, notice=notice)
        except BaseException as error:
            text = f"The result cannot be sent: {describe(error)}"
            return cls.failure(text, reason="the result cannot be sent")

    @classmethod
    def failure(cls, error: str, *, reason: str, trace: str | None = None) -> Answer:
        """`reason` is for the log and must hold nothing that the user sent."""
        if len(error) > _ERROR_CHARACTERS_MAX:
            error = error[:_ERROR_CHARACTERS_MAX] + " …"
        fields = {"success": False, "error": error}
        if advice := advice_on(error):
            fields["advice"] = advice
        if trace is not None:
            fields["traceback"] = trace[-_TRACEBACK_CHARACTERS_MAX:]
        return cls(encode(fields), error, reason)

    @classmethod
    def raised(cls, error: BaseException) -> Answer:
        """The failure that an exception describes."""
        return cls.failure(describe(error), reason=_class_name(error), trace=format_trace(error))

    def to_record(self) -> bytes:
        """For the pipe from a runner."""
        return encode({"error": self.error, "reason": self.reason}) + b"\n" + self.body

    @classmethod
    def from_record(cls, record: bytes) -> Answer:
        head, _, body = record.partition(b"\n")
        fields = orjson.loads(head)
        return cls(body, fields["error"], fields["reason"])


def describe(error: BaseException) -> str:
    """The exception's text, with its type where the text alone is not clear."""
    try:
        text = _without_folders(str(error), "…/")
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


def format_trace(error: BaseException) -> str:
    """The traceback, with paths relative to the packages: `phoebe/…`, `phoebe_worker/…`."""
    try:
        return _without_folders("".join(traceback.format_exception(error)), "")
    except BaseException:
        return describe(error)


def _without_folders(text: str, instead: str) -> str:
    """The text, with `instead` in place of the folders of modules and of the session's files."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folders = {here, sys.prefix, sys.base_prefix, os.path.expanduser("~"), *sys.path}
    try:
        folders.add(os.getcwd())
    except OSError:
        pass  # it is removed
    for folder in sorted(filter(os.path.isabs, folders), key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(folder.rstrip("/") + "/", instead)
    return text


def _class_name(error: BaseException) -> str:
    """The name of the exception's class, or of its first base that an imported module defines.

    A user's code may have made the class.
    """
    try:
        for each in type(error).__mro__:
            module = sys.modules.get(getattr(each, "__module__", ""))
            if getattr(module, each.__name__, None) is each:
                return each.__name__
    except BaseException:
        pass  # the class is hostile
    return "BaseException"
