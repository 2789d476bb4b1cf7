"""The past, for clients: readers that take turns in a few threads and leave room for the head."""

from __future__ import annotations

from functools import partial
from typing import Literal

import attrs
import trio
from loguru import logger

from hyperwatch.ingest.ring import Ring
from hyperwatch.ingest.yielding import Yielder, decoded_here
from hyperwatch.log.batch_reader import READ_BYTES, BatchReader
from hyperwatch.log.batches import Batch
from hyperwatch.log.gaps import Gap
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.bisect import AtBlock, AtTime, resolve
from hyperwatch.log.seek.resume import at_head
from hyperwatch.log.tree import Log, Tree, backlog
from hyperwatch.node.cuts import BATCH_BYTES
from hyperwatch.node.decoder import Need
from hyperwatch.runtime.rate_limit import RateLimiter

__all__ = ["CatchUp", "StartedAt"]

_SAID = 1000  # texts about files that are remembered, so that each is said once
_READERS = (
    1  # at once: it holds the interpreter while it decodes, and with two the live p99 grew by three times as much
)
_SEEKERS = 2  # look for where a subscription begins: they wait for the disk, not for those who read
_ALONE_BYTES = 1024 * 1024  # at once, for who is alone: smaller costs more, and larger leaves the cache


@attrs.frozen
class StartedAt:
    """Where a subscription begins."""

    cursor: Cursor
    serial: int | None
    """The ring's number of the first entry there; None where the files serve it."""
    gap: Gap | None = None
    """What the cursor that was asked for would have had, and is gone."""
    ahead: bool = False
    """Whether what was asked for has not been written yet: then it begins at the newest complete line."""


class CatchUp:
    """Opens the log at cursors and reads it there.

    What a cursor would have had and is gone is a gap for who brought the cursor, and for nobody else: neither the
    ledger nor the log hears of it.

    Args:
        log: the files.
        ring: what of them the head has decoded last.
        rate_limiter: what all readers together may take; those of other streams may share it.
        yielder: of the threads that read.
    """

    def __init__(
        self,
        log: Log,
        ring: Ring,
        rate_limiter: RateLimiter | None = None,
        yielder: Yielder | None = None,
    ) -> None:
        self._yielder = yielder or Yielder(lambda: 0)
        self._rate_limiter = rate_limiter or RateLimiter()
        self.log = log
        self._ring = ring
        self._reading = trio.CapacityLimiter(_READERS)
        self._seeking = trio.CapacityLimiter(_SEEKERS)
        self._said: dict[str, None] = {}  # a dict, not a set: the oldest is forgotten first

    async def start(self, start_point: Cursor | AtTime | AtBlock | Literal["earliest"] | None) -> StartedAt:
        """Where a new subscription begins.

        Raises:
            CursorError: where it is a cursor of another stream, or the log's lines do not tell.
            OSError: where a file cannot be opened.
            DataError: where a directory cannot be read.
        """
        if isinstance(start_point, AtTime | AtBlock):
            found = await trio.to_thread.run_sync(self._look_for, start_point, limiter=self._seeking)
            return found or attrs.evolve(await self.start(None), ahead=True)
        if start_point is None:
            # The newest complete line is where the head stands, unless it has a backlog. Not under the readers' limiter:
            # who wants the present does not wait for those who read the past.
            newest = await trio.to_thread.run_sync(self._beyond_head, self._ring.end)
            if newest is None:
                return StartedAt(self._ring.end, self._ring.end_serial)  # both at once, now: nothing lies between
            start_point = newest
        elif start_point == "earliest":
            start_point = Cursor(self._ring.end.directory)
        cursor, gap = await trio.to_thread.run_sync(self._resolve, start_point, limiter=self._seeking)
        return StartedAt(cursor, None, gap)

    async def open(self, cursor: Cursor, *, needs_keys: bool) -> BatchReader:
        """A reader that begins there, for who looks at what events are routed by or not. Raises CursorError, DataError."""
        return await trio.to_thread.run_sync(partial(self._open, cursor, needs_keys=needs_keys), limiter=self._seeking)

    async def next(self, reader: BatchReader, until: Cursor, share: RateLimiter) -> Batch | None:
        """What follows, as far as `until`; None there. Raises OSError, CursorError, DataError.

        Args:
            reader: where it stands.
            until: where to stop.
            share: what the one who asks may take. What was read last is waited for here, without a hold on a thread.
        """
        await share.take(reader.read_bytes)
        await self._rate_limiter.take(reader.read_bytes)
        if self._yielder.alone and (span := reader.take_cached(until, _ALONE_BYTES)):
            # Nobody else waits for the event loop. A thread would bring the events to another core than sends them.
            return reader.assemble(span, await decoded_here(reader.decoding(span)))
        size_bytes = _ALONE_BYTES if self._yielder.alone else READ_BYTES
        return await trio.to_thread.run_sync(
            reader.next, until, self._yielder.give_way, size_bytes, limiter=self._reading
        )

    def _beyond_head(self, head: Cursor) -> Cursor | None:
        if isinstance(self.log, Tree) and backlog(self.log, head).size_bytes > BATCH_BYTES:
            return at_head(self.log)
        return None

    def _look_for(self, start_point: AtTime | AtBlock) -> StartedAt | None:
        found = resolve(self.log, start_point)
        if found is None and self._ring.end.places:
            self.log.check_there()
        return None if found is None else StartedAt(found.cursor, None, found.gap)

    def _resolve(self, start_point: Cursor) -> tuple[Cursor, Gap | None]:
        reader = self._open(start_point)
        reader.close()  # opened again when it is its turn: until then it is a cursor, and holds no file
        return reader.start, reader.gap

    def _open(self, cursor: Cursor, *, needs_keys: bool = False) -> BatchReader:
        return BatchReader(self.log, cursor, Need.FEW if needs_keys else Need.TOGETHER, say=self._say_once)

    def _say_once(self, text: str) -> None:
        """Any number of clients may come by a file that is passed over."""
        if text not in self._said:
            self._said[text] = None
            if len(self._said) > _SAID:
                del self._said[next(iter(self._said))]
            logger.error(text)
