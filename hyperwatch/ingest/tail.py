"""Taking lines from the files: at once what the system has in memory, the rest in a thread."""

from __future__ import annotations

import math
from typing import NamedTuple

import attrs
import trio

from hyperwatch.log.batches import RawBatch
from hyperwatch.log.line_reader import LOOK_S, LineReader
from hyperwatch.node.cuts import BATCH_BYTES, BATCH_LINES, first_lines, lines_in

__all__ = ["Counted", "Tail", "Taken"]

_CACHED_BYTES = 2 * 1024 * 1024  # more than nearly every block
_ROW = 8  # reads of that size after one another: what is still there then is a backlog, and read in a thread
_READ_BYTES = 2 * 1024 * 1024  # in a thread, for each worker: more fills caches and memory, less costs hand-overs

Counted = tuple[RawBatch, int | None]
"""A batch and its lines, where they were counted."""


class Taken(NamedTuple):
    """What a look at the files came to."""

    batches: list[Counted]
    more: bool
    """Whether there is likely more."""
    everywhere: bool
    """Whether directories were looked at too, not only the files that are open."""


class Tail:
    """A walk's next lines.

    What a node has just written is in the system's memory, and reading it there waits for no disk: so it is read on the
    event loop. A thread takes a millisecond to wake and to be waited for, which is longer than reading most blocks. It does
    where the disk would have to be asked, where there may be other files, and where there is a backlog.

    Args:
        walk: where it stands; its owner closes it.
        workers: how many threads decode what is taken.
        grows: whether the log grows. What does not is read in threads.
    """

    def __init__(self, walk: LineReader, workers: int, *, grows: bool) -> None:
        self._walk = walk
        self._grows = grows
        self._read_bytes = min(BATCH_BYTES, workers * _READ_BYTES)
        self._row = 0
        self._looked_s = -math.inf  # everywhere

    def look_again(self) -> None:
        """A file may have appeared: the next look is everywhere."""
        self._looked_s = -math.inf
        self._walk.look_again()

    async def take(self) -> Taken:
        """The next lines, none where there are none now. Raises as LineReader.take does."""
        if self._grows and self._row < _ROW:
            taken = self._take_cached()
            if taken is not None:
                return taken
        batches = await trio.to_thread.run_sync(_take, self._walk, self._read_bytes)
        more = sum(len(span.data) for span, _ in batches) >= self._read_bytes // 2
        self._row = _ROW if more else 0
        self._looked_s = trio.current_time()
        return Taken(batches, more, everywhere=True)

    def _take_cached(self) -> Taken | None:
        """None where only a thread can tell."""
        try:
            span = self._walk.take_cached(_CACHED_BYTES)
        except BlockingIOError:
            return None
        if span is not None:
            more = len(span.data) >= _CACHED_BYTES // 2
            self._row = self._row + 1 if more else 0
            return Taken([(span, None)], more, everywhere=False)
        if trio.current_time() - self._looked_s >= LOOK_S:
            return None
        return Taken([], more=False, everywhere=False)


def _take(walk: LineReader, size_bytes: int) -> list[Counted]:
    """The next span as batches of at most BATCH_LINES lines; none where there is none now. Raises as LineReader.take does."""
    span = walk.take(size_bytes)
    batches: list[Counted] = []
    while span is not None:
        lines = lines_in(span.data)
        if lines <= BATCH_LINES:
            batches.append((span, lines))
            break
        length = first_lines(span.data, BATCH_LINES)
        batches.append((attrs.evolve(span, data=span.data[:length]), BATCH_LINES))
        span = span.from_line(length)
    return batches
