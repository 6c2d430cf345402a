"""Finds the version of PHOEBE that wrote a Bundle: the stated one, or one derived from content."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from packaging.version import Version

from .identities import Fields

_QUALIFIER = "phoebe_version"

# The last PHOEBE of each minor release, and a parameter introduced in it.
_LANDMARKS = (
    ("2.5.4", "component", "loghefrac"),
    ("2.4.23", "setting", "run_checks_server"),
    ("2.3.63", "system", "Av"),
    ("2.2.2", "setting", "run_checks_compute"),
    ("2.1.17", "component", "requiv"),
)
_OLDEST = "2.0.11"


@dataclass(frozen=True, slots=True)
class WriterVersion:
    """A version of PHOEBE, and notices for the user about how it was found."""

    version: Version
    notices: list[str] = field(default_factory=list)

    @property
    def is_current(self) -> bool:
        """Whether no migration is needed: the release is the installed one or a later one."""
        return self.version.release[:2] >= _installed_version().release[:2]


def find_version(parameters: list[Fields]) -> WriterVersion:
    stated = [str(each.get("value")) for each in parameters if each.get("qualifier") == _QUALIFIER]
    known = _parsed(stated[0]) if stated else None
    if known is not None:
        return WriterVersion(known)
    version = _version_from_content(parameters)
    what = "a version that it does not name"
    if stated:
        what = f"an unknown version, {stated[0][:100]!r}"
    notice = (
        f"The Bundle is of PHOEBE in {what}. "
        f"It was read as one of PHOEBE {version}, by its content."
    )
    return WriterVersion(version, [notice])


def with_version(parameters: list[Fields], written: WriterVersion) -> list[Fields]:
    """The parameters, with the version in a form that PHOEBE can read."""
    others = [each for each in parameters if each.get("qualifier") != _QUALIFIER]
    found = [each for each in parameters if each.get("qualifier") == _QUALIFIER]
    own = found[0] if found else {"Class": "StringParameter", "context": "setting"}
    return [{**own, "qualifier": _QUALIFIER, "value": str(written.version)}, *others]


def _installed_version() -> Version:
    import phoebe

    return _parsed(phoebe.__version__) or Version(_LANDMARKS[0][0])


def _parsed(text: str) -> Version | None:
    """The version without the suffix of a development version, as in 2.4.3.dev+branch."""
    number = re.match(r"\d+(\.\d+)+", text.strip())
    return Version(number[0]) if number else None


def _version_from_content(parameters: list[Fields]) -> Version:
    has = {(each.get("context"), each.get("qualifier")) for each in parameters}
    for version, context, qualifier in _LANDMARKS:
        if (context, qualifier) in has:
            return min(Version(version), _installed_version())
    return Version(_OLDEST)
