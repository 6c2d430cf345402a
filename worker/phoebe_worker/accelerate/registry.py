"""The table of patches, and functions that install and uninstall them.

A patch is installed only if the source code of every function that it relies on is exactly the one
that it was written for. This module does not depend on the content of a patch.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SWITCH = "PHOEBE_SERVER_ACCELERATE"
_OFF = {"0", "false", "no", "off"}


@dataclass(slots=True)
class Patch:
    """One replacement. `guards` maps each required function to the SHA-256 of its source."""

    target: str
    reason: str
    equal_because: str
    checked_with: tuple[str, ...]
    guards: dict[str, str]
    replacement: Callable[..., Any]
    original: Any = field(default=None)

    @property
    def installed(self) -> bool:
        return self.original is not None

    def stale(self) -> list[str]:
        """The functions whose source differs from the one that this patch was written for."""
        return [name for name, digest in self.guards.items() if source_digest(name) != digest]


PATCHES: list[Patch] = []


def patch(
    target: str, *, reason: str, equal_because: str, checked_with: tuple[str, ...],
    guards: dict[str, str],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the replacement of `target`, "module:attribute.path"."""

    def enter(replacement: Callable[..., Any]) -> Callable[..., Any]:
        if target not in guards:
            raise ValueError(f"{target} needs a guard of its own source")
        PATCHES.append(Patch(target, reason, equal_because, checked_with, guards, replacement))
        return replacement

    return enter


def enabled() -> bool:
    """Whether the environment permits patches, which is the default."""
    return os.environ.get(SWITCH, "").strip().lower() not in _OFF


def install(log: Callable[[str], None] = print) -> list[str]:
    """Install every patch whose guards match; returns the targets of the others."""
    off = []
    fitting = []
    for each in PATCHES:
        if each.installed:
            continue
        stale = each.stale()
        if stale:
            off.append(each.target)
            log(f"acceleration of {each.target} is off: PHOEBE's {', '.join(stale)} differs")
        else:
            fitting.append(each)
    for each in fitting:
        owner, name = _resolve(each.target)
        each.original = inspect.getattr_static(owner, name)
        setattr(owner, name, _wrap_like(each.original, each.replacement))
    return off


def uninstall() -> None:
    """Restore PHOEBE's functions."""
    for each in PATCHES:
        if each.installed:
            owner, name = _resolve(each.target)
            setattr(owner, name, each.original)
            each.original = None


def original(target: str) -> Callable[..., Any]:
    """PHOEBE's own function, even while a patch replaces it."""
    for each in PATCHES:
        if each.target == target and each.installed:
            return _function(each.original)
    owner, name = _resolve(target)
    return _function(inspect.getattr_static(owner, name))


def source_digest(target: str) -> str | None:
    """SHA-256 of the source code of a function or property; None if it does not exist."""
    try:
        return hashlib.sha256(inspect.getsource(original(target)).encode()).hexdigest()
    except (ImportError, AttributeError, OSError, TypeError):
        return None


def _resolve(target: str) -> tuple[Any, str]:
    """The module or class that holds the target, and the target's name in it."""
    module, _, path = target.partition(":")
    *outer, name = path.split(".")
    owner = importlib.import_module(module)
    for step in outer:
        owner = getattr(owner, step)
    return owner, name


def _function(attribute: Any) -> Any:
    if isinstance(attribute, classmethod):
        return attribute.__func__
    return attribute.fget if isinstance(attribute, property) else attribute


def _wrap_like(attribute: Any, replacement: Callable[..., Any]) -> Any:
    """Wrap the replacement as a property, class method or function, like the attribute."""
    if isinstance(attribute, classmethod):
        return classmethod(replacement)
    return property(replacement) if isinstance(attribute, property) else replacement
