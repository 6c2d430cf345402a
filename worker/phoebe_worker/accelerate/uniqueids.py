"""New unique ids."""

from __future__ import annotations

import os
import string

from .registry import patch
from .sources import sources

_TARGET = "phoebe.parameters.parameters:_uniqueid"
_LETTERS = string.ascii_uppercase + string.ascii_lowercase
_EVEN = 256 // len(_LETTERS) * len(_LETTERS)  # bytes below share the letters evenly


@patch(
    _TARGET,
    reason="for each of 30 letters it made a generator and asked the kernel anew",
    equal_because="letters of the same alphabet, each as likely, from the same kernel source",
    checked_with=("2.5.4",),
    guards=sources(_TARGET),
)
def _uniqueid(n: int = 30) -> str:
    letters = ""
    while len(letters) < n:
        letters += "".join(_LETTERS[b % len(_LETTERS)] for b in os.urandom(2 * n) if b < _EVEN)
    return letters[:n]
