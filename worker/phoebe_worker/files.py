"""Reads uploaded files of PHOEBE 2 and of PHOEBE 1 ("legacy"), recognized by their content.

It writes nothing to disk, and reads no other files that a PHOEBE 1 file names.
"""

from __future__ import annotations

import io
import re

from . import portable
from .answer import describe
from .migration import Opened

ACCEPTED = (
    "a .phoebe file of PHOEBE 2.0 or later (JSON, as PHOEBE's save writes it), "
    "or a parameter file of PHOEBE 1 (lines as phoebe_lcno = 1)"
)
_LEGACY_LINE = re.compile(r"^\s*phoebe_\w+(\[\d+\])?(\.\w+)?\s*=", re.MULTILINE)


def read(data: bytes) -> Opened:
    """Read the Bundle in a file's bytes. Raises ValueError, which says what is accepted."""
    text = _text(data)
    if text.lstrip().startswith("["):
        kind, importer = "PHOEBE 2", _phoebe_2
    elif _LEGACY_LINE.search(text):
        kind, importer = "PHOEBE 1", _legacy
    else:
        raise ValueError(f"The file is not one that PHOEBE can import. Accepted is {ACCEPTED}.")
    import phoebe

    settings = vars(phoebe.conf).copy()
    try:
        return importer(text)
    except Exception as error:
        raise ValueError(
            f"The {kind} file cannot be imported: {describe(error)}. Accepted is {ACCEPTED}."
        ) from error
    finally:
        vars(phoebe.conf).update(settings)  # a failed import leaves constraints or checks off


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # PHOEBE 1 wrote names and comments in the system's encoding


def _phoebe_2(text: str) -> Opened:
    return portable.read(text.encode(), from_newer=False)


def _legacy(text: str) -> Opened:
    import phoebe

    return Opened(phoebe.Bundle.from_legacy(io.StringIO(text)))
