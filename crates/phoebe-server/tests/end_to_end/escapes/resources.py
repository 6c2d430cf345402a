"""Payloads that take more than their share. All of them stop by themselves."""

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


def opens_files_without_end(at):
    opened = []
    try:
        for _ in range(5000):
            opened.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for fd in opened:
            os.close(fd)
    return len(opened)
