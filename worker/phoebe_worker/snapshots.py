"""Serializes and restores a session's Bundle, in every format that a worker sends or receives.

A function that reads returns a complete Bundle or raises.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import files, portable, script
from .answer import describe
from .migration import Opened

_PICKLE_PROTOCOL = 5


@dataclass(frozen=True, slots=True)
class Format:
    """A format of Bundles.

    `write` takes the Bundle, the request's body and its attachment. `read` is None if the format
    cannot be restored.
    """

    write: Callable[[Any, bytes, bytes], bytes]
    read: Callable[[bytes], Opened] | None


def pack(bundle: Any) -> bytes:
    """Pickle the exact state, for the same versions of Python and PHOEBE."""
    return pickle.dumps(bundle, _PICKLE_PROTOCOL)


def unpack(data: bytes) -> Any:
    """Unpickle a Bundle. This executes code: only for data that this session has packed."""
    import phoebe

    try:
        bundle = pickle.loads(data)
    except Exception as error:
        raise ValueError(f"The snapshot cannot be read: {describe(error)}") from error
    if not isinstance(bundle, phoebe.Bundle):
        raise ValueError(f"The snapshot holds no Bundle, but a {type(bundle).__name__}")
    return bundle


def _unpack_same_version(data: bytes) -> Opened:
    """Unpickle a Bundle of this session. Raises ValueError for one of another PHOEBE."""
    import phoebe

    bundle = unpack(data)
    written = [each.get_value() for each in bundle._params if each.qualifier == "phoebe_version"]
    if written[:1] != [phoebe.__version__]:
        raise ValueError(
            f"The snapshot is of PHOEBE {written[0] if written else 'of unknown version'}, this is "
            f"{phoebe.__version__}; the portable form is for that"
        )
    return Opened(bundle)


def export(bundle: Any, name: Any, body: bytes, attached: bytes = b"") -> bytes:
    """Serialize the Bundle in the named format. Raises ValueError for an unknown format."""
    return _format(name).write(bundle, body, attached)


def restore(name: Any, payload: bytes) -> Opened:
    """Read the Bundle in the payload. Raises ValueError and PHOEBE's exceptions."""
    read = _format(name).read
    if read is None:
        raise ValueError(f"A bundle cannot be restored from format {name}")
    return read(payload)


def _format(name: Any) -> Format:
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(f"Unknown format {name!r}; known are {', '.join(FORMATS)}")
    return FORMATS[name]


FORMATS = {
    "pickle": Format(lambda bundle, *_: pack(bundle), _unpack_same_version),
    "portable": Format(lambda bundle, *_: portable.write(bundle), portable.read),
    "file": Format(lambda bundle, *_: portable.write(bundle), files.read),
    "script": Format(script.write, None),
}
