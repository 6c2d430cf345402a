"""Which PHOEBE wrote a Bundle: what it says itself, else what its content tells."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from packaging.version import Version

from .identities import Fields

_QUALIFIER = "phoebe_version"

# The last PHOEBE of each minor release, and a parameter that Bundles have since then.
_LANDMARKS = (
    ("2.5.4", "component", "loghefrac"),
    ("2.4.23", "setting", "run_checks_server"),
    ("2.3.63", "system", "Av"),
    ("2.2.2", "setting", "run_checks_compute"),
    ("2.1.17", "component", "requiv"),
)
_OLDEST = "2.0.11"


@dataclass(frozen=True, slots=True)
class Written:
    """`notices`: what the user must know of how the version was found."""

    version: Version
    notices: list[str] = field(default_factory=list)

    @property
    def is_of_this_phoebe(self) -> bool:
        """Whether PHOEBE has nothing to migrate: the release is this one, or a later one."""
        return self.version.release[:2] >= _this().release[:2]


def written_by(parameters: list[Fields]) -> Written:
    said = [str(each.get("value")) for each in parameters if each.get("qualifier") == _QUALIFIER]
    known = _parsed(said[0]) if said else None
    if known is not None:
        return Written(known)
    fits = _that_fits(parameters)
    what = f"an unknown version, {said[0][:100]!r}" if said else "a version that it does not name"
    notice = f"The Bundle is of PHOEBE in {what}."
    return Written(fits, [f"{notice} It was read as one of PHOEBE {fits}, by its content."])


def marked(parameters: list[Fields], written: Written) -> list[Fields]:
    """The parameters, in which PHOEBE finds a version that it can read."""
    marked = [each for each in parameters if each.get("qualifier") != _QUALIFIER]
    found = [each for each in parameters if each.get("qualifier") == _QUALIFIER]
    own = found[0] if found else {"Class": "StringParameter", "context": "setting"}
    return [{**own, "qualifier": _QUALIFIER, "value": str(written.version)}, *marked]


def _this() -> Version:
    import phoebe

    return _parsed(phoebe.__version__) or Version(_LANDMARKS[0][0])


def _parsed(text: str) -> Version | None:
    """The version in front of what a developer's PHOEBE adds, as in 2.4.3.dev+branch."""
    number = re.match(r"\d+(\.\d+)+", text.strip())
    return Version(number[0]) if number else None


def _that_fits(parameters: list[Fields]) -> Version:
    has = {(each.get("context"), each.get("qualifier")) for each in parameters}
    for version, context, qualifier in _LANDMARKS:
        if (context, qualifier) in has:
            return min(Version(version), _this())
    return Version(_OLDEST)
