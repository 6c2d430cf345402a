"""A root folder for workers that holds only what they may read.

Landlock restricts the opening of files but not `stat`: without this root folder, workers could see
names, sizes, times and owners of all files, and all processes. A short-lived fork builds a mount
namespace with the root folder; a process enters it later, within microseconds. Callers decide what
may be read. This module does not know PHOEBE.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from dataclasses import dataclass
from typing import NoReturn

from . import forked, mounts

# The devices that every process gets. Callers name others.
_DEVICES = ("/dev/null",)
# Debian keeps links from one library to another here.
_ALTERNATIVES = "/etc/alternatives"
_LINKS_MAX = 40  # for one path, as in the kernel
_READ_ONLY = mounts.READ_ONLY | mounts.NO_SUID
_WRITABLE = mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXECUTION
_OPTIONS = "size=256k,nr_inodes=4k,mode=755"  # it holds folders, links and empty files only
_BUILT = "made"


class Unavailable(OSError):
    """The kernel or the rights of this process do not permit a root folder."""


@dataclass(frozen=True, slots=True)
class Specification:
    """The paths that a process finds in its root folder.

    `readable` paths need not exist. `changing` are those of them that may be created or replaced
    while the server runs. `writable` is the one folder in which the process may write.
    """

    readable: tuple[str, ...]
    changing: tuple[str, ...]
    writable: str

    def identities(self) -> tuple[tuple[int, int] | None, ...]:
        """Device and inode of each folder in `changing`, to detect replaced folders."""
        return tuple(map(_identity, self.changing))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of the root folder: mounts for reading and for writing, by their real paths,
    and the symbolic links that lead to them."""

    copied: tuple[str, ...]
    writable: str
    links: tuple[tuple[str, str], ...]


def contents(specification: Specification) -> Contents:
    """The existing part of the specification. Raises Unavailable if it includes "/" itself."""
    links: dict[str, str] = {}
    found = {_resolve(path, links) for path in (*specification.readable, *_DEVICES)}
    real = {path for path in found if path is not None}
    if os.sep in real:
        raise Unavailable(0, "what the interpreter needs includes the root folder itself")
    # Without nested paths, because a folder is mounted with its contents.
    copied = {path for path in real if not _is_below(path, real)}
    links |= _alternatives(copied)
    writable = _resolve(specification.writable, links) or specification.writable
    kept = sorted((path, to) for path, to in links.items() if not _is_below(path, copied))
    return Contents(tuple(sorted(copied)), writable, tuple(kept))


def _alternatives(copied: set[str]) -> dict[str, str]:
    """The links in /etc/alternatives that lead into mounted paths."""
    alternatives: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir(_ALTERNATIVES):
            links: dict[str, str] = {}
            real = _resolve(entry.path, links)
            if real is not None and _is_below(real, copied):
                alternatives |= links
    return alternatives


def _resolve(path: str, links: dict[str, str]) -> str | None:
    """The real path, None if it does not exist. Adds the links on the way to `links`."""
    left, at, followed = path.split(os.sep)[::-1], "", 0
    while left:
        name = left.pop()
        if name in ("", os.curdir):
            continue
        if name == os.pardir:
            at = at.rpartition(os.sep)[0]
            continue
        step = f"{at}/{name}"
        try:
            status = os.lstat(step)
            target = os.readlink(step) if stat.S_ISLNK(status.st_mode) else None
        except OSError:
            return None
        if target is None:
            at = step
            continue
        links[step] = target
        followed += 1
        if followed > _LINKS_MAX:
            return None
        at = "" if target.startswith(os.sep) else at
        left += target.split(os.sep)[::-1]
    return at or os.sep


def _is_below(path: str, folders: set[str]) -> bool:
    while path := path.rpartition(os.sep)[0]:
        if path in folders:
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Namespaces:
    """The descriptors of namespaces with a root folder, and its specification."""

    specification: Specification
    identities: tuple[tuple[int, int] | None, ...]
    mount: int
    user: int | None

    def matches(self, specification: Specification) -> bool:
        return self.specification == specification and self.identities == specification.identities()

    def enter(self) -> None:
        if self.user is not None:
            mounts.join(self.user, mounts.CLONE_NEWUSER)
        mounts.join(self.mount, mounts.CLONE_NEWNS)

    def close(self) -> None:
        for descriptor in self.descriptors():
            os.close(descriptor)

    def descriptors(self) -> tuple[int, ...]:
        return (self.mount,) if self.user is None else (self.mount, self.user)


_prepared: _Namespaces | Unavailable | None = None


def prepare(specification: Specification) -> str | None:
    """Build the namespaces that forks of this process `enter`. Returns the reason of a failure."""
    global _prepared
    try:
        _prepared = _make_namespaces(specification)
    except Unavailable as error:
        _prepared = error
        return str(error.strerror)
    return None


def descriptors() -> tuple[int, ...]:
    """The descriptors that a fork must keep open until it has called `enter`."""
    return _prepared.descriptors() if isinstance(_prepared, _Namespaces) else ()


def enter(specification: Specification) -> None:
    """Move this process, which must have one thread, into the root folder. It cannot leave.

    Raises Unavailable if that is not permitted, unless `prepare` has already reported it.
    """
    global _prepared
    prepared, _prepared = _prepared, None
    if isinstance(prepared, Unavailable):
        return
    if prepared is not None and not prepared.matches(specification):
        prepared.close()
        prepared = None
    namespaces = prepared or _make_namespaces(specification)
    try:
        namespaces.enter()
    except OSError as error:
        raise Unavailable(error.errno, error.strerror) from None
    finally:
        namespaces.close()


def _make_namespaces(specification: Specification) -> _Namespaces:
    """Build the namespaces in a fork, so that a failure does not affect this process."""
    identities = specification.identities()  # before the mounts
    layout = contents(specification)
    needs_user = os.geteuid() != 0
    read_end, write_end = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _run_builder(parent, write_end, layout, needs_user=needs_user)
    os.close(write_end)
    try:
        report = os.read(read_end, 1000).decode(errors="replace")
        if report != _BUILT:
            raise Unavailable(0, report or "the process that makes the root folder ended")
        mount = _open_namespace(child, "mnt")
        user = _open_namespace(child, "user") if needs_user else None
        return _Namespaces(specification, identities, mount, user)
    finally:
        os.close(read_end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _open_namespace(pid: int, kind: str) -> int:
    try:
        return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(error.errno, f"/proc/{pid}/ns/{kind}: {error.strerror}") from None


def _run_builder(parent: int, report_fd: int, layout: Contents, *, needs_user: bool) -> NoReturn:
    """Run the fork: build the namespaces, report it, and wait to be killed."""
    try:
        forked.die_with_parent(parent)
        forked.close_all_but(report_fd)
        _build(layout, needs_user=needs_user)
        report = _BUILT
    except OSError as error:
        report = ": ".join(str(each) for each in (error.filename, error.strerror) if each)
    except BaseException as error:
        report = repr(error)
    try:
        os.write(report_fd, report.encode(errors="replace")[:1000])
        while True:
            signal.pause()
    finally:
        os._exit(1)


def _build(layout: Contents, *, needs_user: bool) -> None:
    _unshare(needs_user=needs_user)
    mounts.receive_mounts_only()
    copies = [(path, _copy(path)) for path in layout.copied]
    writable = mounts.copy(layout.writable)
    mounts.restrict(writable, _WRITABLE)
    # Any folder is suitable: the old root is unmounted later.
    root = layout.writable
    mounts.new_file_system("tmpfs", root, _OPTIONS)
    os.umask(0o022)
    for path, target in layout.links:
        os.makedirs(root + os.path.dirname(path), exist_ok=True)
        os.symlink(target, root + path)
    for path, copy in copies:
        _make_mount_point(root + path, copy)
        mounts.attach(copy, root + path)
    # Last: it may be below one of the others, where its folder exists already.
    with contextlib.suppress(FileExistsError):
        os.makedirs(root + layout.writable)
    mounts.attach(writable, root + layout.writable)
    mounts.become_root(root)
    mounts.restrict(os.open("/", os.O_PATH), _READ_ONLY, all_below=False)


def _unshare(*, needs_user: bool) -> None:
    """Create the mount namespace. A user other than root needs a user namespace for it."""
    if not needs_user:
        mounts.unshare(mounts.CLONE_NEWNS)
        return
    user, group = os.geteuid(), os.getegid()
    mounts.unshare(mounts.CLONE_NEWUSER | mounts.CLONE_NEWNS)
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{file}", "w") as written:
            written.write(text)


def _copy(path: str) -> int:
    copy = mounts.copy(path)
    is_device = stat.S_ISCHR(os.fstat(copy).st_mode)
    mounts.restrict(copy, _READ_ONLY if is_device else _READ_ONLY | mounts.NO_DEVICES)
    return copy


def _make_mount_point(path: str, copy: int) -> None:
    """Create an empty folder or file, over which a copy can be mounted."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if stat.S_ISDIR(os.fstat(copy).st_mode):
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
