"""A root folder for workers that holds what they may read, and nothing else.

Landlock says who may open a file, but has no right for `stat`: names, sizes, times and owners of
all files, and which processes there are, would be for everybody to see. In here they do not exist.
A short-lived fork makes a mount namespace with such a root and ends; a process enters it later, in
microseconds. What may be read, and that a process enters, is said by others. Nothing here knows of
PHOEBE.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from dataclasses import dataclass
from typing import NoReturn

from . import forked, mounts

# What every process may open for writing. Others of the folder /dev are named by whoever asks.
_DEVICES = ("/dev/null",)
# Where a Debian system keeps links that lead from one library to another.
_CHOICES = "/etc/alternatives"
_LINKS_MAX = 40  # on the way to one path, as in the kernel
_READ_ONLY = mounts.READ_ONLY | mounts.NO_SUID
_WRITABLE = mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXECUTION
_OPTIONS = "size=256k,nr_inodes=4k,mode=755"  # it holds folders, links and empty files only
_MADE = "made"


class Unavailable(OSError):
    """The kernel, or what this process may do, does not allow it; the text says what."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a process shall find in its root, each at its own path: what it may read, if that is
    there, and the folder in which it may write. `changing`: those of `readable` that may be made,
    or made anew, while the server runs."""

    readable: tuple[str, ...]
    changing: tuple[str, ...]
    writable: str

    def identities(self) -> tuple[tuple[int, int] | None, ...]:
        """Which folders `changing` are now: what is made anew is not what was mounted."""
        return tuple(map(_identity, self.changing))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@dataclass(frozen=True, slots=True)
class Contents:
    """What is mounted in the root, by real paths: for reading and for writing. And the symbolic
    links by which these are named too."""

    copied: tuple[str, ...]
    writable: str
    links: tuple[tuple[str, str], ...]


def contents(wanted: Wanted) -> Contents:
    """What is there of what is wanted. Raises Unavailable where that is all of the machine."""
    links: dict[str, str] = {}
    found = {_follow(path, links) for path in (*wanted.readable, *_DEVICES)}
    real = {path for path in found if path is not None}
    if os.sep in real:
        raise Unavailable(0, "what the interpreter needs includes the root folder itself")
    # None below another: a folder comes with what is in it.
    copied = {path for path in real if not _is_below(path, real)}
    links |= _choices(copied)
    writable = _follow(wanted.writable, links) or wanted.writable
    kept = sorted((path, to) for path, to in links.items() if not _is_below(path, copied))
    return Contents(tuple(sorted(copied)), writable, tuple(kept))


def _choices(copied: set[str]) -> dict[str, str]:
    """The links of the system's choices that lead to what is there."""
    choices: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir(_CHOICES):
            links: dict[str, str] = {}
            real = _follow(entry.path, links)
            if real is not None and _is_below(real, copied):
                choices |= links
    return choices


def _follow(path: str, links: dict[str, str]) -> str | None:
    """The real path, or None where nothing is to be found; adds the links on the way to `links`."""
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
    """Namespaces with such a root, held by descriptors; and what it was made of."""

    wanted: Wanted
    identities: tuple[tuple[int, int] | None, ...]
    mount: int
    user: int | None

    def fit(self, wanted: Wanted) -> bool:
        return self.wanted == wanted and self.identities == wanted.identities()

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


def prepare(wanted: Wanted) -> str | None:
    """Make what `enter` needs, for the forks of this process. Returns what does not allow it."""
    global _prepared
    try:
        _prepared = _make(wanted)
    except Unavailable as error:
        _prepared = error
        return str(error.strerror)
    return None


def descriptors() -> tuple[int, ...]:
    """What a fork must hold until it has called `enter`."""
    return _prepared.descriptors() if isinstance(_prepared, _Namespaces) else ()


def enter(wanted: Wanted) -> None:
    """Put this process, which must have one thread, into such a root, for good.

    Raises Unavailable where that is not allowed; not again where `prepare` has told it.
    """
    global _prepared
    prepared, _prepared = _prepared, None
    if isinstance(prepared, Unavailable):
        return
    if prepared is not None and not prepared.fit(wanted):
        prepared.close()
        prepared = None
    namespaces = prepared or _make(wanted)
    try:
        namespaces.enter()
    except OSError as error:
        raise Unavailable(error.errno, error.strerror) from None
    finally:
        namespaces.close()


def _make(wanted: Wanted) -> _Namespaces:
    """Let a fork make the namespaces: where it fails, this process is as it was."""
    identities = wanted.identities()  # before they are mounted
    holds = contents(wanted)
    needs_user = os.geteuid() != 0
    read_end, write_end = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become_maker(parent, write_end, holds, needs_user=needs_user)
    os.close(write_end)
    try:
        said = os.read(read_end, 1000).decode(errors="replace")
        if said != _MADE:
            raise Unavailable(0, said or "the process that makes the root folder ended")
        mount = _open_namespace(child, "mnt")
        user = _open_namespace(child, "user") if needs_user else None
        return _Namespaces(wanted, identities, mount, user)
    finally:
        os.close(read_end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _open_namespace(pid: int, kind: str) -> int:
    try:
        return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(error.errno, f"/proc/{pid}/ns/{kind}: {error.strerror}") from None


def _become_maker(parent: int, told: int, holds: Contents, *, needs_user: bool) -> NoReturn:
    """The fork's whole life: it makes the namespaces, says so, and waits for its end."""
    try:
        forked.die_with(parent)
        forked.close_all_but(told)
        _build(holds, needs_user=needs_user)
        said = _MADE
    except OSError as error:
        said = ": ".join(str(each) for each in (error.filename, error.strerror) if each)
    except BaseException as error:
        said = repr(error)
    try:
        os.write(told, said.encode(errors="replace")[:1000])
        while True:
            signal.pause()
    finally:
        os._exit(1)


def _build(holds: Contents, *, needs_user: bool) -> None:
    _unshare(needs_user=needs_user)
    mounts.follow_only()
    copies = [(path, _copy(path)) for path in holds.copied]
    writable = mounts.copy(holds.writable)
    mounts.restrict(writable, _WRITABLE)
    # Any folder would do: the old root goes, with what was mounted on it.
    root = holds.writable
    mounts.new_file_system("tmpfs", root, _OPTIONS)
    os.umask(0o022)
    for path, target in holds.links:
        os.makedirs(root + os.path.dirname(path), exist_ok=True)
        os.symlink(target, root + path)
    for path, copy in copies:
        _make_place(root + path, copy)
        mounts.attach(copy, root + path)
    # Last: it may lie in one of the others, where its place is there already.
    with contextlib.suppress(FileExistsError):
        os.makedirs(root + holds.writable)
    mounts.attach(writable, root + holds.writable)
    mounts.become_root(root)
    mounts.restrict(os.open("/", os.O_PATH), _READ_ONLY, all_below=False)


def _unshare(*, needs_user: bool) -> None:
    """Who is not root may mount only in a user namespace, in which all keep their ids."""
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


def _make_place(path: str, copy: int) -> None:
    """An empty folder or file, for a copy to be mounted over."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if stat.S_ISDIR(os.fstat(copy).st_mode):
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
