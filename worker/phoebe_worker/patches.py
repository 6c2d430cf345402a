"""Replace functions of PHOEBE, each only where PHOEBE's own code is what was read.

A patch names its target, says why it exists and carries the SHA-256 of the source it was written
against. Where the source differs, the patch stays off with one line in the log, and PHOEBE goes on
as it is. Nothing here knows what the patches do.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import linecache
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Patch:
    """One replacement. `target` is `package.module:Class.attribute` or `package.module:name`."""

    target: str
    replacement: Any
    source_sha256: str
    reason: str


_originals: dict[str, Any] = {}


def install(patches: Iterable[Patch]) -> list[str]:
    """Put the replacements in place; returns the targets whose patch stays off."""
    off = [patch.target for patch in patches if not _install(patch)]
    linecache.clearcache()  # reading the sources has filled it
    return off


def uninstall(patches: Iterable[Patch]) -> None:
    """Put PHOEBE's own functions back."""
    for patch in patches:
        if patch.target in _originals:
            owner, name = _locate(patch.target)
            setattr(owner, name, _originals.pop(patch.target))


def original(target: str) -> Any:
    """PHOEBE's own function behind an installed patch."""
    return _originals[target]


def source_sha256(target: str) -> str:
    """The hash that a patch of this target must carry."""
    owner, name = _locate(target)
    found = getattr(owner, name)
    source = inspect.getsource(found.fget if isinstance(found, property) else found)
    return hashlib.sha256(source.encode()).hexdigest()


def _install(patch: Patch) -> bool:
    if patch.target in _originals:
        return True
    try:
        found = source_sha256(patch.target)
        owner, name = _locate(patch.target)
        current = vars(owner)[name]
    except (ImportError, AttributeError, KeyError, OSError, TypeError) as error:
        print(f"patch of {patch.target} stays off: {error!r}", flush=True)
        return False
    if found != patch.source_sha256:
        print(f"patch of {patch.target} stays off: PHOEBE's code is another", flush=True)
        return False
    _originals[patch.target] = current
    setattr(owner, name, patch.replacement)
    return True


def _locate(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name
