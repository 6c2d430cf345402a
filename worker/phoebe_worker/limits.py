"""The bound of a worker's memory, and how a user is told of it. A runner inherits it."""

from __future__ import annotations

import resource

_MEBIBYTE = 1024 * 1024

_memory_mb: int | None = None


def limit_memory(memory_mb: int | None) -> None:
    """Bound what each process may allocate beyond what it shares with the zygote."""
    global _memory_mb
    if memory_mb is None:
        return
    _memory_mb = memory_mb
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    shared = int(fields["VmData"].split()[0]) * 1024
    limit = shared + memory_mb * _MEBIBYTE
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def memory_note() -> str:
    """Names the limit, for the end of an error about memory; empty where there is none."""
    if _memory_mb is None:
        return ""
    return f" A process of a session may take {_memory_mb} MiB ([resources] worker_memory_mb)."
