"""What the process asks of those who keep its memory: the C library's allocator, and Python's collector of cycles."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

__all__ = ["give_back", "keep_flat", "seldom_collect"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # M_* of <malloc.h>
_LARGE_BYTES = 4 * 1024 * 1024  # above what is read at once
_KEPT_BYTES = 4 * 1024 * 1024
_NEW_OBJECTS, _YOUNG, _MIDDLE = 50_000, 10, 10  # Python's default is 700, 10, 10


def keep_flat() -> bool:
    """Has freed memory go back to the system. Call it before there are threads.

    glibc gives each thread an arena of its own and raises the size from which blocks are mapped one by one up to 32 MiB:
    measured over 10 million lines, batches of megabytes that pass from thread to thread left 300 MiB resident and growing
    where 175 MiB, flat, are with one arena and a fixed size.

    What is read and built again and again is below that size, and as much is kept for the next time: of all that reading
    the past costs, a third was the system's handing out of pages that had just been given back.

    Returns:
        False where the C library has no such settings (musl needs none).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    wanted = {_ARENA_MAX: 1, _MMAP_THRESHOLD: _LARGE_BYTES, _TRIM_THRESHOLD: _KEPT_BYTES}
    return all(mallopt(*each) for each in wanted.items())


def give_back() -> None:
    """Gives memory that is free back to the system, where much was used for a while and is not any more.

    A connection that has ended is in cycles with the error that ended it, and these are collected seldom. What the allocator has
    free within its heap goes back only when it is told so. Takes some milliseconds, of which the collector's stop everybody.
    """
    gc.collect()
    with suppress(AttributeError, OSError):  # musl has no such call, and needs none
        ctypes.CDLL(None).malloc_trim(0)


def seldom_collect() -> None:
    """Has the collector of cycles look seldom, and never at what is there already: modules, classes, the program.

    Decoding makes a list for every line and drops it again at once, in no cycle: by the default the collector looked
    through all of them every 700 lines. What cycles there are, tasks and errors make: a few in a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, _YOUNG, _MIDDLE)
