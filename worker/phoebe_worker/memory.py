"""The zygote's memory, made ready to be shared: little of it, in large pages, left alone by `gc`.

The time of a fork grows with the number of mapped pages. Linux only; where the kernel cannot do a
step, memory stays as it is.
"""

from __future__ import annotations

import ctypes
import gc

_MADV_COLLAPSE = 25  # since Linux 6.1: small pages into large ones, now
_LARGE_PAGE = 2 * 1024 * 1024


def settle() -> None:
    """Collect garbage, give free memory back, merge pages, and freeze what is left."""
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    for start, end in _private_regions():
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE)
    gc.freeze()


def _private_regions() -> list[tuple[int, int]]:
    """Whole large pages of the heap and other anonymous memory."""
    regions = []
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            addresses, access, _, _, _, *name = line.split()
            if access != "rw-p" or name not in ([], ["[heap]"]):
                continue
            start, end = (int(each, 16) for each in addresses.split("-"))
            start = -(-start // _LARGE_PAGE) * _LARGE_PAGE
            end = end // _LARGE_PAGE * _LARGE_PAGE
            if end > start:
                regions.append((start, end))
    return regions
