"""The memory limit of a worker, and its description in errors. A runner inherits the limit."""

from __future__ import annotations

import resource

_MEBIBYTE = 1024 * 1024

_memory_mb: int | None = None


def limit_memory(memory_mb: int | None) -> None:
    """Limit what each process may allocate beyond the memory shared with the zygote."""
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
    """The sentence about the limit that ends an error about memory; empty without a limit."""
    if _memory_mb is None:
        return ""
    return f" A process of a session may take {_memory_mb} MiB ([resources] worker_memory_mb)."
