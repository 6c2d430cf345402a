"""A session's Bundle as bytes and back, in every form in which it leaves or enters a worker.

Reading either gives a whole Bundle or raises; whoever calls decides what becomes of it.
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
    """`write` gets the Bundle, the request's body and what is attached to it; `read` is None for
    what cannot be read."""

    write: Callable[[Any, bytes, bytes], bytes]
    read: Callable[[bytes], Opened] | None


def pack(bundle: Any) -> bytes:
    """The exact state, for the same versions of Python and PHOEBE."""
    return pickle.dumps(bundle, _PICKLE_PROTOCOL)


def unpack(data: bytes) -> Any:
    """What was packed. It executes code: only for what this very session packed."""
    import phoebe

    try:
        bundle = pickle.loads(data)
    except Exception as error:
        raise ValueError(f"The snapshot cannot be read: {describe(error)}") from error
    if not isinstance(bundle, phoebe.Bundle):
        raise ValueError(f"The snapshot holds no Bundle, but a {type(bundle).__name__}")
    return bundle


def _unpack_kept(data: bytes) -> Opened:
    """What this session packed earlier, perhaps under another PHOEBE, which needs a migration."""
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
    """The Bundle in the form of this name; raises ValueError for an unknown one."""
    return _format(name).write(bundle, body, attached)


def restored(name: Any, payload: bytes) -> Opened:
    """The Bundle in the payload, and what its user must know; raises ValueError, or what PHOEBE
    raises."""
    read = _format(name).read
    if read is None:
        raise ValueError(f"A bundle cannot be restored from format {name}")
    return read(payload)


def _format(name: Any) -> Format:
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(f"Unknown format {name!r}; known are {', '.join(FORMATS)}")
    return FORMATS[name]


FORMATS = {
    "pickle": Format(lambda bundle, *_: pack(bundle), _unpack_kept),
    "portable": Format(lambda bundle, *_: portable.write(bundle), portable.read),
    "file": Format(lambda bundle, *_: portable.write(bundle), files.read),
    "script": Format(script.write, None),
}
