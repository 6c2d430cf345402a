"""PHOEBE's table of passband files, read without executing code and updated when files change.

PHOEBE reads the folders once, at its import. It evaluates a header of each file as Python, fails at
the first invalid file, and keeps removed files in its table. `guard` replaces that part of PHOEBE;
`refresh` reads the folders again if they have changed. This module installs and removes no files,
and does not know Bundles.
"""

from __future__ import annotations

import ast
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_MODULE = "phoebe.atmospheres.passbands"
FOLDER_VARIABLE = "PHOEBE_SERVER_PASSBANDS"

# A recently changed folder may change again within the resolution of its modification time.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class PassbandFile:
    """A file at the time it was read.

    `entry` is its entry in PHOEBE's table, and `name` the name of the passband. `problem` is the
    reason why the file cannot be used.
    """

    stamp: tuple[int, int, int]
    name: str = ""
    entry: dict[str, Any] | None = None
    problem: str = ""


_files: dict[str, PassbandFile] = {}
_scanned_changes: tuple[int | None, ...] | None = None


def guard() -> None:
    """Let this module read the passband folders instead of PHOEBE, and add the server's folder.

    Must be called before the import of PHOEBE, which reads the folders.
    """
    if _MODULE not in sys.modules:
        sys.meta_path.insert(0, _GuardedImport())


class _GuardedImport(MetaPathFinder):
    """Finds PHOEBE's module of passbands once, and replaces functions in it during the import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_guard(module: ModuleType) -> None:
                execute(module)
                _replace(module)

            spec.loader.exec_module = execute_and_guard  # type: ignore[method-assign]
        return spec


def _replace(passbands: Any) -> None:
    passbands.eval = _evaluate  # hides the built-in function in this module
    passbands._init_passbands = _initialize
    use_folder(os.environ.get(FOLDER_VARIABLE) or None)


def use_folder(folder: str | None) -> None:
    """Search this folder in addition to PHOEBE's own, from the next scan on."""
    sys.modules[_MODULE]._pbdir_env = folder  # type: ignore[attr-defined]


def refresh() -> None:
    """Read the folders again if one of them has changed. Otherwise it takes microseconds.

    Raises nothing: code of a user may have damaged the process, which must still answer commands.
    """
    try:
        if _changes() != _scanned_changes:
            scan()
    except Exception as error:
        print(f"the passband files cannot be looked at: {error!r}", flush=True)


def scan() -> None:
    """Update PHOEBE's table from the folders. Does not read unchanged files again."""
    global _scanned_changes
    from phoebe.atmospheres import passbands

    changes = _changes()
    recent = time.time_ns() - _SETTLED_NS
    is_recent = any(each is not None and each > recent for each in changes)
    _scanned_changes = None if is_recent else changes
    found: dict[str, PassbandFile] = {}
    for path, stamp in _paths():
        known = _files.get(path)
        found[path] = known if known is not None and known.stamp == stamp else _read(path, stamp)
    _files.clear()
    _files.update(found)
    table = {file.name: file.entry for file in found.values() if file.entry is not None}
    passbands._pbtable.clear()
    passbands._pbtable.update(table)  # the later folder wins if names are equal


def names() -> list[str]:
    """The passbands that sessions can use now, sorted by name."""
    from phoebe.atmospheres import passbands

    refresh()
    return sorted(passbands.list_installed_passbands())


def choices() -> list[str]:
    """The passbands that a dataset can have, in the order in which PHOEBE's errors list them."""
    from phoebe.atmospheres import passbands

    return list(passbands.list_passbands())


def files() -> dict[str, PassbandFile]:
    """All passband files by path, in the order of PHOEBE's folders, including invalid ones."""
    return dict(_files)


def _evaluate(text: Any, *_: Any) -> Any:
    """Replaces `eval` of a header: parses a list of texts. Raises ValueError for others."""
    if not isinstance(text, str) or len(text) > 100_000:
        raise ValueError("the header CONTENT is no text")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"the header CONTENT is no list of texts: {error}") from None
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("the header CONTENT is no list of texts")
    return value


def _initialize(refresh: bool = False, *_: Any, **__: Any) -> None:
    """Replaces `_init_passbands`. PHOEBE requests a refresh for an unknown passband too."""
    if refresh or not _files:
        scan()


def _read(path: str, stamp: tuple[int, int, int]) -> PassbandFile:
    """Read a file's headers as PHOEBE does."""
    from phoebe.atmospheres import passbands

    table = passbands._pbtable
    passbands._pbtable = {}
    try:
        passbands._init_passband(path)
        ((name, entry),) = passbands._pbtable.items()
    except BaseException as error:
        reason = error.__context__ or error  # PHOEBE's own error does not contain the reason
        problem = f"{type(reason).__name__}: {reason}"
        print(f"the passband file {path} is passed over: {problem}", flush=True)
        return PassbandFile(stamp, problem=problem)
    finally:
        passbands._pbtable = table
    return PassbandFile(stamp, name, entry)


def _paths() -> list[tuple[str, tuple[int, int, int]]]:
    """The passband files, selected by PHOEBE's rule for their names."""
    from phoebe.atmospheres import passbands

    paths = []
    for folder in passbands.list_passband_directories():
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue  # the folder does not exist
        for name in names:
            if ".".join(name.split(".")[1:]) in ("fits", "fits.gz"):
                path = os.path.join(folder, name)
                if (stamp := _stamp(path)) is not None:
                    paths.append((path, stamp))
    return paths


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _changes() -> tuple[int | None, ...]:
    """The modification time of each folder; None if it does not exist."""
    from phoebe.atmospheres import passbands

    times: list[int | None] = []
    for folder in passbands.list_passband_directories():
        try:
            times.append(os.stat(folder).st_mtime_ns)
        except OSError:
            times.append(None)
    return tuple(times)
