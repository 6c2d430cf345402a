"""Payloads against the kernel: more rights, more rooms, memory that nobody counts."""

import ctypes
import mmap
import os
import resource
import sys

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_PERSONALITY_NO_RANDOMIZATION = 0x0040000
_X86 = os.uname().machine == "x86_64"


def makes_a_user_namespace(at):
    return _in_a_child(lambda: _check("unshare", _libc.unshare(_CLONE_NEWUSER)))


def mounts_a_file_system(at):
    def mount():
        _check("unshare", _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
        _check("mount", _libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
        return "mounted"

    return _in_a_child(mount)


def changes_its_personality(at):
    changed = _libc.personality(_PERSONALITY_NO_RANDOMIZATION)
    _check("personality", changed)
    _libc.personality(changed)
    return changed


def sets_up_io_uring(at):
    fd = _libc.syscall(425, 8, ctypes.create_string_buffer(120))
    os.close(_check("io_uring_setup", fd))
    return fd


def adds_a_key(at):
    number = 248 if _X86 else 217
    process_keyring = -2
    key = _libc.syscall(number, b"user", b"escape", b"x", ctypes.c_size_t(1), process_keyring)
    return _check("add_key", key)


def makes_memory_with_a_name(at):
    fd = os.memfd_create("hidden")
    os.close(fd)
    return fd


def makes_memory_that_stays(at):
    """System V memory outlives its maker."""
    number = _check("shmget", _libc.shmget(0, ctypes.c_size_t(4096), 0o600))
    _libc.shmctl(number, 0, None)
    return number


def takes_memory_that_is_not_counted(at):
    """Shared memory of no file is not counted by the limit of data."""
    shared = mmap.mmap(-1, 1 << 20)
    shared.close()
    return "taken"


def takes_memory_that_grows_down(at):
    """Memory that grows like a stack is not counted by the limit of data either."""
    grows_down = 0x100
    taken = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | grows_down)
    taken.close()
    return "taken"


def lets_its_stack_grow(at):
    before = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = 1 << 30
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, before[1] if before[1] < 0 else wanted))
    resource.setrlimit(resource.RLIMIT_STACK, before)
    return before


def makes_a_message_queue(at):
    queue = _check("mq_open", _libc.mq_open(b"/escape", os.O_RDWR | os.O_CREAT, 0o600, None))
    _libc.mq_unlink(b"/escape")
    os.close(queue)
    return queue


def wants_core_files(at):
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    wanted = 1 << 20
    resource.setrlimit(resource.RLIMIT_CORE, (wanted, hard if hard < 0 else max(hard, wanted)))
    return resource.getrlimit(resource.RLIMIT_CORE)


def starts_by_clone3(at):
    """clone3 hides its flags from filters: here a new user namespace."""
    arguments = (ctypes.c_uint64 * 11)(_CLONE_NEWUSER, 0, 0, 0, 17)
    child = _libc.syscall(435, arguments, ctypes.c_size_t(88))
    if child == 0:
        os._exit(0)
    _check("clone3", child)
    os.waitpid(child, 0)
    return "started"


def root_changes_its_user(at):
    return _in_a_child(lambda: os.setresuid(12345, 12345, 12345) or os.getuid())


def root_changes_its_root(at):
    return _in_a_child(lambda: os.chroot("/tmp") or os.getcwd())


def root_makes_a_device(at):
    os.mknod("device", 0o20600, os.makedev(1, 1))
    os.remove("device")
    return "made"


def root_opens_a_raw_socket(at):
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) as opened:
        return opened.fileno()


def root_loads_a_program_into_the_kernel(at):
    """bpf(BPF_MAP_CREATE): an array of one element."""
    attributes = (ctypes.c_uint32 * 32)(2, 4, 8, 1)
    number = 321 if _X86 else 280
    fd = _check("bpf", _libc.syscall(number, 0, attributes, 128))
    os.close(fd)
    return sys.platform
