"""The sandbox of a worker: limits, root folder, account, Landlock, seccomp.

A Bundle can run code. Therefore the worker enters the sandbox before it reads data of a user, and
it and its forks are untrusted from then on. `enter` is called after the command socket is bound and
before any thread exists. A forbidden operation fails with an ordinary error. This module does not
know Bundles.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import resource
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator

from . import root_folder
from .protocol import Account, Sandbox, Start

MEBIBYTE = 1024 * 1024
_STACK_MEBIBYTES = 64
_OOM_SCORE = b"500"  # when memory runs out, the kernel kills workers before the server

_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}.get(os.uname().machine, -1)
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD_RULE, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
_CLONE_NEWUSER = 0x10000000
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_CAPABILITY_VERSION_3 = 0x20080522

# Rights of Landlock, by the version of its interface (ABI) that introduced them.
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 5
_MAKE_REGULAR, _TRUNCATE = 1 << 8, 1 << 14
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: 1 << 15}
_NET_RIGHTS = {4: 0b11}  # bind and connect, by TCP
_SCOPES = {6: 0b11}  # abstract Unix sockets and signals
ABI_WANTED = 6
# Repeated denials must not fill the machine's audit log: LOG_SAME_EXEC_OFF, since 7.
_RESTRICT_FLAGS = {7: 1 << 0}

_READ = _READ_FILE | _READ_DIR
# Plain files only. No links, devices or sockets, which refer to objects outside the folder. No
# folders, so that the server can clear it without recursion.
_SCRATCH = _READ | _WRITE_FILE | _TRUNCATE | _REMOVE_FILE | _MAKE_REGULAR

_Ruleset, _PathRule = ctypes.c_uint64 * 3, ctypes.c_uint32 * 3  # a path rule is packed: 64 bits, 32
_CapabilityHeader, _CapabilitySets = ctypes.c_uint32 * 2, ctypes.c_uint32 * 6

_libc = ctypes.CDLL(None, use_errno=True)
_syscall_function, _prctl, _capset = _libc.syscall, _libc.prctl, _libc.capset


ROOT_FOLDER_VARIABLE = "PHOEBE_SERVER_ROOT_FOLDER"


class SandboxError(OSError):
    """A part of the sandbox that cannot be applied."""


def enter(start: Start) -> None:
    """Put this process into the sandbox. With level `enforce`, raises SandboxError on failure."""
    sandbox = start.sandbox
    if sandbox is None:
        return
    _bound_stack()
    _limit("RLIMIT_CORE", 1)  # 1, not 0: prevents cores that the kernel pipes to a program too
    _raise_oom_score()
    _enter_root_folder(sandbox)
    readable = [*sandbox.readable, *interpreter_paths()]
    scratch = os.open(sandbox.scratch, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _use_scratch_folder(sandbox.scratch)
    _change_account(sandbox.account)
    _limit_processes(start.limits.get("processes"))
    _drop_capabilities()
    for name, limit, unit in (
        ("RLIMIT_FSIZE", "file_mb", MEBIBYTE),
        ("RLIMIT_NOFILE", "open_files", 1),
    ):
        if (value := start.limits.get(limit)) is not None:
            _limit(name, value * unit)
    with _tolerated(sandbox):
        _call("no_new_privs", _prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with _tolerated(sandbox):
        _landlock(readable, scratch, required=sandbox.enforced)
    os.close(scratch)
    for program in sandbox.filters:
        with _tolerated(sandbox):
            _install(program)


def prepare_root_folder() -> dict[str, str]:
    """Build the root folder for the workers of a zygote. It holds only what they may read.

    Returns the field of INFO that describes a failure, if there is one.
    """
    text = os.environ.pop(ROOT_FOLDER_VARIABLE, None)
    if text is None:
        return {}
    fields = json.loads(text)
    problem = root_folder.prepare(_root_specification(fields["readable"], fields["scratch"]))
    return {} if problem is None else {"metadata_problem": problem}


def _enter_root_folder(sandbox: Sandbox) -> None:
    """Enter the root folder, which restricts `stat`; Landlock does not.

    Some machines do not permit it, so a failure does not prevent the start.
    """
    # The parent of all scratch folders, because all workers share one root. The random names of
    # scratch folders cannot be guessed.
    scratch = os.path.dirname(sandbox.scratch)
    try:
        root_folder.enter(_root_specification(sandbox.readable, scratch))
    except root_folder.Unavailable as error:
        print(f"metadata of files can be seen: {error.strerror}", flush=True)


def _root_specification(readable: Iterable[str], scratch: str) -> root_folder.Specification:
    named = (*readable, *_interpreter_names())
    return root_folder.Specification(named, _passband_folders(), scratch)


def _passband_folders() -> tuple[str, ...]:
    from phoebe.atmospheres import passbands

    return tuple(filter(os.path.isabs, passbands.list_passband_directories()))


@functools.cache
def _interpreter_names() -> tuple[str, ...]:
    """The folders of this interpreter, PHOEBE and its tables, with unresolved links."""
    # Not the complete prefixes: the folder of an environment may hold other files.
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    for prefix in (sys.prefix, sys.base_prefix):
        paths |= {os.path.join(prefix, each) for each in ("lib", "lib64")}
    paths |= {*sys.path, *_passband_folders()}
    return tuple(sorted(filter(os.path.isabs, paths)))


@functools.cache
def interpreter_paths() -> tuple[str, ...]:
    """The real paths of these folders, without nested ones. Computed once, before the forks."""
    real = sorted({os.path.realpath(path) + os.sep for path in _interpreter_names()})
    return tuple(path for path in real if not any(map(path.startswith, set(real) - {path})))


@contextlib.contextmanager
def _tolerated(sandbox: Sandbox) -> Iterator[None]:
    """Apply a part of the sandbox. Log a failure unless the level is `enforce`."""
    try:
        yield
    except OSError as error:
        if sandbox.enforced:
            raise
        print(f"the sandbox is incomplete: {error}", flush=True)


def _call(what: str, function: ctypes._NamedFuncPointer, *arguments: object) -> int:
    result = int(function(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise SandboxError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *arguments: object) -> int:
    return _call(what, _syscall_function, ctypes.c_long(number), *arguments)


def _limit(name: str, value: int) -> None:
    """Lower both limits to the value, unless they are lower already."""
    number = getattr(resource, name)
    _, hard = resource.getrlimit(number)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(number, (bound, bound))


def _bound_stack() -> None:
    """Limit the stack, which the limit of memory does not count."""
    bound, _ = resource.getrlimit(resource.RLIMIT_STACK)
    most = _STACK_MEBIBYTES * MEBIBYTE
    _limit("RLIMIT_STACK", most if bound == resource.RLIM_INFINITY else min(bound, most))


def _raise_oom_score() -> None:
    with contextlib.suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, _OOM_SCORE)
        os.close(score)


def _use_scratch_folder(scratch: str) -> None:
    os.chdir(scratch)
    os.environ["TMPDIR"] = scratch
    tempfile.tempdir = None


def _change_account(account: Account | None) -> None:
    if account is not None:
        os.setgroups([])
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)


def _limit_processes(processes: int | None) -> None:
    """Limit the number of this worker's processes.

    The kernel counts processes by user, and in a user namespace separately. It does not count
    those of root; the server does.
    """
    if processes is None or os.getuid() == 0:
        return
    if _libc.unshare(_CLONE_NEWUSER) == 0:
        _limit("RLIMIT_NPROC", processes)
        return
    # Some machines do not permit it. The server counts processes too, but less often.
    reason = os.strerror(ctypes.get_errno())
    print(f"the kernel does not count this worker's processes: unshare: {reason}", flush=True)


def _drop_capabilities() -> None:
    """Drop all capabilities, of root and in the new user namespace."""
    _call("capset", _capset, _CapabilityHeader(_CAPABILITY_VERSION_3, 0), _CapabilitySets())


def _landlock(readable: list[str], scratch: int, *, required: bool) -> None:
    abi = _syscall("Landlock", _SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if required and abi < ABI_WANTED:
        raise SandboxError(0, f"Landlock: version {abi} of {ABI_WANTED}")

    def known(rights: dict[int, int]) -> int:
        return sum(each for since, each in rights.items() if since <= abi)

    files, net, scopes = known(_FILE_RIGHTS), known(_NET_RIGHTS), known(_SCOPES)
    attributes = _Ruleset(files, net, scopes)
    size = ctypes.c_size_t(24 if scopes else 16 if net else 8)
    ruleset = _syscall("Landlock", _SYS_LANDLOCK_CREATE, attributes, size, 0)

    def permit(fd: int, rights: int) -> None:
        rule = _PathRule(*_halves(rights & files), fd)
        _syscall("Landlock", _SYS_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)

    for path in readable:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            if required:
                raise SandboxError(error.errno, f"user {os.geteuid()} cannot read {path}") from None
            continue
        permit(fd, _READ if stat.S_ISDIR(os.fstat(fd).st_mode) else _READ_FILE)
        os.close(fd)
    fd = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
    permit(fd, _READ_FILE | _WRITE_FILE | _TRUNCATE)
    os.close(fd)
    permit(scratch, _SCRATCH)
    _syscall("Landlock", _SYS_LANDLOCK_RESTRICT, ruleset, known(_RESTRICT_FLAGS))
    os.close(ruleset)


def _halves(value: int) -> tuple[int, int]:
    low, high = value & 0xFFFFFFFF, value >> 32
    return (low, high) if sys.byteorder == "little" else (high, low)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _install(program: bytes) -> None:
    prepared = _Program(len(program) // 8, program)
    _syscall("seccomp", _SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(prepared))
