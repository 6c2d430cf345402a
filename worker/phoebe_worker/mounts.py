"""The system calls for mounts and namespaces that Python has no functions for.

Callers decide what is mounted where. Linux 5.12 or newer.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXECUTION = 0x1, 0x2, 0x4, 0x8

_MS_REC, _MS_SLAVE = 0x4000, 1 << 19
_MNT_DETACH = 2
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_FROM_DESCRIPTOR = 4
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, -1)

_MountAttributes = ctypes.c_uint64 * 4

_libc = ctypes.CDLL(None, use_errno=True)
_syscall, _unshare, _setns = _libc.syscall, _libc.unshare, _libc.setns
_mount, _umount = _libc.mount, _libc.umount2


def unshare(namespaces: int) -> None:
    """Move this process into new namespaces, which are copies of its own."""
    _call("unshare", _unshare, namespaces)


def join(descriptor: int, namespace: int) -> None:
    """Move this process, which must have one thread, into a namespace of the given kind."""
    _call("setns", _setns, descriptor, namespace)


def receive_mounts_only() -> None:
    """Stop propagating mounts from this namespace; mounts made elsewhere still propagate here."""
    _call("mount", _mount, None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None)


def new_file_system(kind: str, folder: str, options: str) -> None:
    """Mount an empty file system over a folder."""
    source, target, data = os.fsencode(kind), os.fsencode(folder), options.encode()
    flags = ctypes.c_ulong(NO_SUID | NO_DEVICES | NO_EXECUTION)
    _call(f"mount {kind} {folder}", _mount, source, target, source, flags, data)


def copy(path: str) -> int:
    """Copy the mounts at and below a path; returns the descriptor of the unattached copy."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    return _system_call(f"open_tree {path}", _SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)


def restrict(descriptor: int, attributes: int, *, all_below: bool = True) -> None:
    """Set attributes of the mount of a descriptor, and of the mounts below it."""
    wanted = _MountAttributes(attributes, 0, 0, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if all_below else 0)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    _system_call("mount_setattr", _SYS_MOUNT_SETATTR, descriptor, b"", flags, wanted, size)


def attach(descriptor: int, path: str) -> None:
    """Mount a copy of a folder over a folder, or a copy of a file over a file."""
    target = os.fsencode(path)
    flags = _MOVE_MOUNT_FROM_DESCRIPTOR
    _system_call(f"move_mount {path}", _SYS_MOVE_MOUNT, descriptor, b"", _AT_FDCWD, target, flags)


def become_root(folder: str) -> None:
    """Make a folder, which must be a mount, the root of this namespace. It cannot be undone."""
    os.chdir(folder)
    _system_call("pivot_root", _SYS_PIVOT_ROOT, b".", b".")  # the old root is now mounted over it
    _call("umount", _umount, b".", _MNT_DETACH)
    os.chdir("/")


def _call(what: str, function: ctypes._NamedFuncPointer, *arguments: object) -> int:
    result = int(function(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _system_call(what: str, number: int, *arguments: object) -> int:
    return _call(what, _syscall, ctypes.c_long(number), *arguments)
