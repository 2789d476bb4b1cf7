"""What the process asks of the C library's allocator."""

from __future__ import annotations

import ctypes

__all__ = ["keep_flat"]

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # M_* of <malloc.h>
_LARGE_BYTES = 256 * 1024


def keep_flat() -> bool:
    """Has freed memory go back to the system. Call it before there are threads.

    glibc gives each thread an arena of its own and raises the size from which blocks are mapped one by one up to 32 MiB:
    measured over 10 million lines, batches of megabytes that pass from thread to thread left 300 MiB resident and growing
    where 175 MiB, flat, are with one arena and a fixed size.

    Returns:
        False where the C library has no such settings (musl needs none).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(_ARENA_MAX, 1) and mallopt(_MMAP_THRESHOLD, _LARGE_BYTES))
