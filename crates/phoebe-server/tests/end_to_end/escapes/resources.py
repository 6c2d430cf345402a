"""Payloads that take more than their share. All of them stop by themselves."""

import ctypes
import mmap
import os
import signal
import time

_MEBIBYTE = 1 << 20


def bombs_with_processes(at):
    """150 children, which stay."""
    children = []
    try:
        for _ in range(150):
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            children.append(child)
        time.sleep(2)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return len(children)


def bombs_with_threads(at):
    import threading

    end = threading.Event()
    try:
        for _ in range(150):
            threading.Thread(target=end.wait).start()
        time.sleep(2)
    finally:
        end.set()
    return "150"


def takes_memory(at):
    return len(bytearray(700 * _MEBIBYTE))


def takes_memory_in_a_child(at):
    return len([bytearray(100 * _MEBIBYTE) for _ in range(7)])


def fills_the_disk_with_one_file(at):
    try:
        with open("filler", "wb") as file:
            for _ in range(300):
                file.write(bytes(_MEBIBYTE))
        return os.path.getsize("filler")
    finally:
        os.remove("filler")


def fills_the_disk_with_many_files(at):
    names = [f"filler-{number}" for number in range(6)]
    try:
        for name in names:
            with open(name, "wb") as file:
                for _ in range(60):
                    file.write(bytes(_MEBIBYTE))
        time.sleep(2)
        return "360 MiB"
    finally:
        for name in names:
            if os.path.exists(name):
                os.remove(name)


def _filler(number):
    """A file of 60 MiB that has lost its name, open."""
    with open(f"filler-{number}", "w+b") as file:
        os.remove(file.name)
        for _ in range(60):
            file.write(bytes(_MEBIBYTE))
        file.flush()
        return os.dup(file.fileno())


def fills_the_disk_with_files_that_lost_their_names(at):
    opened = []
    try:
        for number in range(6):
            opened.append(_filler(number))
        time.sleep(7)
        return "360 MiB"
    finally:
        for fd in opened:
            os.close(fd)


def fills_the_disk_with_files_that_are_only_mapped(at):
    mapped = []
    for number in range(6):
        fd = _filler(number)
        size = ctypes.c_size_t(mmap.PAGESIZE)
        _libc.mmap.restype = ctypes.c_void_p
        mapped.append(_libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0))
        os.close(fd)
    time.sleep(7)
    for address in mapped:
        _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE))
    return "360 MiB"


def fills_the_disk_behind_the_end_of_a_file(at):
    keep_size = 1
    with open("filler", "wb") as file:
        size = ctypes.c_long(_MEBIBYTE)
        try:
            _check("fallocate", _libc.fallocate(file.fileno(), keep_size, ctypes.c_long(0), size))
            return os.fstat(file.fileno()).st_blocks
        finally:
            os.remove("filler")


def makes_a_file_that_never_has_a_name(at):
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR))
    return "made"


def makes_a_file_with_flags_that_no_filter_sees(at):
    """openat2 with O_TMPFILE."""
    how = (ctypes.c_uint64 * 3)(os.O_TMPFILE | os.O_RDWR, 0o600, 0)
    fd = _libc.syscall(437, -100, b".", how, ctypes.c_size_t(24))
    os.close(_check("openat2", fd))
    return "made"


def opens_files_without_end(at):
    opened = []
    try:
        for _ in range(5000):
            opened.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for fd in opened:
            os.close(fd)
    return len(opened)
