"""The past, for clients: readers that take turns in a few threads and leave room for the head."""

from __future__ import annotations

import time
from typing import Literal

import trio

from hyperwatch.log.batch import Batch
from hyperwatch.log.cursor import Cursor
from hyperwatch.log.files import Log, Tree, backlog_bytes
from hyperwatch.log.reader import Reader
from hyperwatch.log.ring import Ring
from hyperwatch.log.start import at_head
from hyperwatch.node.lines import BATCH_BYTES

__all__ = ["Past", "polite_pause"]

_READERS = 2  # at once: each holds the interpreter while it decodes, and the head comes first
_REST_S = 5e-5


def polite_pause() -> None:
    """Between pieces, in a thread: ends a cancelled job, and lets the event loop run.

    Giving up the interpreter by a short sleep keeps the loop's wake-ups at 1 ms, where 30 ms were measured without it.
    """
    trio.from_thread.check_cancelled()
    time.sleep(_REST_S)


class Past:
    """Opens the log at cursors and reads it there.

    Args:
        log: the files.
        ring: what of them the head has decoded last.
    """

    def __init__(self, log: Log, ring: Ring) -> None:
        self.log = log
        self._ring = ring
        self._limiter = trio.CapacityLimiter(_READERS)

    async def start(self, wish: Cursor | Literal["earliest"] | None) -> tuple[Cursor, Reader | None]:
        """Where a new subscription begins, and the reader that serves it from there; None where the ring does.

        Raises:
            CursorError: where there is no such place.
            DataError: where the files cannot be read.
        """
        return await trio.to_thread.run_sync(self._start, wish, self._ring.end, limiter=self._limiter)

    async def open(self, cursor: Cursor) -> Reader:
        """A reader that begins there. Raises CursorError, DataError."""
        return await trio.to_thread.run_sync(Reader, self.log, cursor, limiter=self._limiter)

    async def next(self, reader: Reader, until: Cursor) -> Batch | None:
        """What follows, as far as `until`; None there. Raises OSError, CursorError, DataError."""
        return await trio.to_thread.run_sync(reader.next, until, polite_pause, limiter=self._limiter)

    def _start(self, wish: Cursor | Literal["earliest"] | None, head: Cursor) -> tuple[Cursor, Reader | None]:
        if wish is None:
            # The newest complete line is where the head stands, unless it has a backlog.
            if not isinstance(self.log, Tree) or backlog_bytes(self.log, head) <= BATCH_BYTES:
                return head, None
            wish = at_head(self.log)
        elif wish == "earliest":
            wish = Cursor(head.directory)
        return wish, Reader(self.log, wish)
