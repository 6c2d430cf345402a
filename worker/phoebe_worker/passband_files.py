"""The passband files that PHOEBE knows: read without running them, read again when they change.

PHOEBE reads the folders once, at its import. It evaluates a header of each file as Python, stops at
the first file that is broken, and never forgets a file that is gone. `guard` replaces that part of
PHOEBE; `refresh` looks at the folders again if something in them changed. Nothing here installs or
removes a file, and nothing here knows of Bundles.
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

# A folder that changed a moment ago may change again without a new time of change.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class PassbandFile:
    """One file as it was when it was read. `entry` is what PHOEBE's table holds for it, and `name`
    the passband's; where the file cannot be used, `problem` says why."""

    stamp: tuple[int, int, int]
    name: str = ""
    entry: dict[str, Any] | None = None
    problem: str = ""


_files: dict[str, PassbandFile] = {}
_seen: tuple[int | None, ...] | None = None


def guard() -> None:
    """Replace PHOEBE's reading of passband folders by the one of this module, and add our folder.

    Must be called before PHOEBE is imported: the import itself reads the folders.
    """
    if _MODULE not in sys.modules:
        sys.meta_path.insert(0, _GuardedImport())


class _GuardedImport(MetaPathFinder):
    """Finds PHOEBE's module of passbands, once, and replaces functions in it as it is imported."""

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
    passbands.eval = _evaluate  # a module's own name comes before the built-in one
    passbands._init_passbands = _initialize
    use_folder(os.environ.get(FOLDER_VARIABLE) or None)


def use_folder(folder: str | None) -> None:
    """Let this folder be searched besides PHOEBE's own, from the next scan on."""
    sys.modules[_MODULE]._pbdir_env = folder  # type: ignore[attr-defined]


def refresh() -> None:
    """Read the folders again if one of them changed. Costs microseconds where none did.

    Raises nothing: a process that a user's code has spoiled answers commands all the same.
    """
    try:
        if _changes() != _seen:
            scan()
    except Exception as error:
        print(f"the passband files cannot be looked at: {error!r}", flush=True)


def scan() -> None:
    """Bring PHOEBE's table up to what is in the folders now. Files that are known are not read."""
    global _seen
    from phoebe.atmospheres import passbands

    changes = _changes()
    recent = time.time_ns() - _SETTLED_NS
    _seen = None if any(each is not None and each > recent for each in changes) else changes
    found: dict[str, PassbandFile] = {}
    for path, stamp in _paths():
        known = _files.get(path)
        found[path] = known if known is not None and known.stamp == stamp else _read(path, stamp)
    _files.clear()
    _files.update(found)
    table = {file.name: file.entry for file in found.values() if file.entry is not None}
    passbands._pbtable.clear()
    passbands._pbtable.update(table)  # of two files of one name the later folder's counts


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
    """All passband files by path, in the order of PHOEBE's folders; broken ones too."""
    return dict(_files)


def _evaluate(text: Any, *_: Any) -> Any:
    """What PHOEBE's `eval` of a header gives for an honest file: a list of texts."""
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
    """PHOEBE's `_init_passbands`. PHOEBE also asks for a refresh where a user names a passband that
    it does not know."""
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
        reason = error.__context__ or error  # PHOEBE's own error hides the reason
        problem = f"{type(reason).__name__}: {reason}"
        print(f"the passband file {path} is passed over: {problem}", flush=True)
        return PassbandFile(stamp, problem=problem)
    finally:
        passbands._pbtable = table
    return PassbandFile(stamp, name, entry)


def _paths() -> list[tuple[str, tuple[int, int, int]]]:
    """The passband files by PHOEBE's own rule for their names."""
    from phoebe.atmospheres import passbands

    paths = []
    for folder in passbands.list_passband_directories():
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue  # a folder that is not there has no files
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
    """When each folder last changed; None where it is not there."""
    from phoebe.atmospheres import passbands

    times: list[int | None] = []
    for folder in passbands.list_passband_directories():
        try:
            times.append(os.stat(folder).st_mtime_ns)
        except OSError:
            times.append(None)
    return tuple(times)
