"""Payloads against other processes: the neighbour's worker, the zygote, the server."""

import ctypes
import os
import resource
import signal
import subprocess

_PTRACE_SEIZE, _PTRACE_DETACH = 0x4206, 17
_SYS_PIDFD_GETFD = 438
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine, -1)
_CLONE_PARENT = 0x8000
_PR_SET_CHILD_SUBREAPER = 36


def _memory(pid, word):
    """The part of a process's writable memory that holds the word."""
    regions = []
    for line in open(f"/proc/{pid}/maps"):
        addresses, access, *_ = line.split()
        if access.startswith("rw"):
            regions.append([int(each, 16) for each in addresses.split("-")])
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for start, end in regions:
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue
            if (found := data.find(word)) >= 0:
                return data[found : found + 100].decode("latin-1")
    raise OSError("not found in memory")


def reads_the_servers_environment(at):
    return open(f"/proc/{at.server}/environ").read()


def reads_the_servers_memory(at):
    return _memory(at.server, b"canary" + b"-")


def reads_the_neighbours_memory(at):
    return _memory(at.neighbour, b"canary" + b"-")


def copies_the_neighbours_memory(at):
    """process_vm_readv of the stack, at whose end the environment is."""

    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    start, end = 0, 1
    for line in () if at.contained else open(f"/proc/{at.neighbour}/maps"):
        if line.rstrip().endswith("[stack]"):
            start, end = (int(each, 16) for each in line.split()[0].split("-"))
    buffer = ctypes.create_string_buffer(end - start)
    here, there = Vector(ctypes.addressof(buffer), end - start), Vector(start, end - start)
    arguments = ctypes.byref(here), 1, ctypes.byref(there), 1, 0
    _check("process_vm_readv", _libc.process_vm_readv(at.neighbour, *arguments))
    return buffer.raw.index(at.instance.encode())


def opens_the_neighbours_environment(at):
    return open(f"/proc/{at.neighbour}/environ").read()


def opens_the_neighbours_descriptors(at):
    return os.listdir(f"/proc/{at.neighbour}/fd")


def traces_the_neighbour(at):
    _check("ptrace", _libc.ptrace(_PTRACE_SEIZE, at.neighbour, None, None))
    _libc.kill(at.neighbour, signal.SIGCONT)
    os.waitpid(at.neighbour, 0x40000000)
    _check("detach", _libc.ptrace(_PTRACE_DETACH, at.neighbour, None, None))
    return "traced"


def steals_a_descriptor_of_the_neighbour(at):
    pidfd = os.pidfd_open(at.neighbour)
    fd = _check("pidfd_getfd", _libc.syscall(_SYS_PIDFD_GETFD, pidfd, 1, 0))
    os.close(fd)
    os.close(pidfd)
    return fd


def signals_the_server(at):
    os.kill(at.server, signal.SIGCONT)
    return "signalled"


def signals_the_zygote(at):
    os.kill(at.zygote, signal.SIGCONT)
    return "signalled"


def signals_the_neighbour(at):
    os.kill(at.neighbour, signal.SIGCONT)
    return "signalled"


def signals_the_neighbour_by_descriptor(at):
    pidfd = os.pidfd_open(at.neighbour)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    finally:
        os.close(pidfd)
    return "signalled"


def limits_the_neighbour(at):
    before = resource.prlimit(at.neighbour, resource.RLIMIT_CORE)
    resource.prlimit(at.neighbour, resource.RLIMIT_CORE, before)
    return before


def slows_the_neighbour(at):
    before = os.getpriority(os.PRIO_PROCESS, at.neighbour)
    os.setpriority(os.PRIO_PROCESS, at.neighbour, min(before + 1, 19))
    return os.getpriority(os.PRIO_PROCESS, at.neighbour)


def pins_the_neighbour(at):
    os.sched_setaffinity(at.neighbour, os.sched_getaffinity(at.neighbour))
    return "pinned"


def leaves_its_process_group(at):
    return _in_a_child(lambda: (os.setsid(), os.getpgrp() == os.getpid()))


def starts_a_sibling(at):
    """A process that is not its child, but its parent's."""
    child = _libc.syscall(_SYS_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    return _check("clone", child)


def gives_its_orphans_away(at):
    """Processes whose parents are gone are then nobody's whom the server knows."""
    _check("prctl", _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))
    return "given away"


def runs_a_program(at):
    return subprocess.run(["/bin/echo", "ran"], capture_output=True, text=True, check=True).stdout


def runs_a_shell(at):
    status = os.system("exit 7")
    if os.waitstatus_to_exitcode(status) != 7:
        raise OSError(f"no shell: {status}")
    return "ran"


def runs_a_program_from_memory(at):
    fd = os.memfd_create("program")
    with open("/bin/true", "rb") as program:
        os.write(fd, program.read())
    return _in_a_child(lambda: os.execv(f"/proc/self/fd/{fd}", ["true"])) or "ran"


def runs_its_own_program(at):
    with open("program", "wb") as copy, open("/bin/true", "rb") as program:
        copy.write(program.read())
    os.chmod("program", 0o755)
    try:
        return _in_a_child(lambda: os.execv(os.path.abspath("program"), ["program"])) or "ran"
    finally:
        os.remove("program")
