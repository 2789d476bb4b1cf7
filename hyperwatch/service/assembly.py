"""A stream from its files to its subscribers."""

from __future__ import annotations

from pathlib import Path

import attrs
from loguru import logger

from hyperwatch.feed.catch_up import CatchUp
from hyperwatch.feed.channels.trades import TradePairing
from hyperwatch.feed.hub import Hub
from hyperwatch.feed.registry import StreamSource
from hyperwatch.ingest.counters import Counters
from hyperwatch.ingest.pipeline import Changes, Gate, IngestPipeline
from hyperwatch.ingest.ring import Ring
from hyperwatch.ingest.yielding import Yielder
from hyperwatch.ledger.ledger import Ledger
from hyperwatch.log.batches import Batch, Entry
from hyperwatch.log.identify import name_unserved
from hyperwatch.log.permissions import denied
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.resume import at_head, resume
from hyperwatch.log.tree import Log, Tree
from hyperwatch.node.streams import DIFFS, FILLS, Layout
from hyperwatch.runtime.rate_limit import RateLimiter
from hyperwatch.server.framing import FrameCache

__all__ = ["ServedStream", "place_to_begin"]


@attrs.frozen(eq=False)
class ServedStream:
    """A log, and what decodes, keeps and pushes it."""

    log: Log
    ring: Ring
    hub: Hub
    catch_up: CatchUp
    head: IngestPipeline

    @classmethod
    def of(
        cls,
        log: Log,
        start: Cursor,
        *,
        ring_bytes: int,
        workers: int,
        deadline_s: float,
        changes: Changes | None,
        yielder: Yielder,
        gate: Gate | None = None,
        ledger: Ledger,
        rate_limiter: RateLimiter,
    ) -> ServedStream:
        """Builds one that begins at `start`. Nothing runs yet."""
        ring = Ring(start, ring_bytes)
        hub = Hub(ring, FrameCache)
        counters = ledger.counters[log.stream.name]
        pairing = log.stream is FILLS
        head = IngestPipeline(
            log,
            start,
            ring,
            hub.publish,
            changes=changes,
            workers=workers,
            deadline_s=deadline_s,
            pause=yielder.pause,
            gate=gate,
            needs_keys=_always if pairing else lambda: hub.needs_keys,
            complete=TradePairing(counters).complete if pairing else _as_it_is,
            found=ledger.found,
            counters=counters,
        )
        return cls(log, ring, hub, CatchUp(log, ring, rate_limiter, yielder), head)

    @property
    def counters(self) -> Counters:
        """What has passed through."""
        return self.head.counters

    @property
    def last(self) -> Entry | None:
        """The entry that was delivered last."""
        return self.hub.last

    @property
    def in_flight_bytes(self) -> int:
        """What was taken from the files and has not been delivered."""
        return self.head.in_flight_bytes

    @property
    def looked_s(self) -> float:
        """When all that the files had was taken, by the event loop's clock."""
        return self.head.looked_s

    @property
    def stopped(self) -> bool:
        """Whether it was told to end."""
        return self.head.stopped

    @property
    def workers(self) -> int:
        """How many there are."""
        return int(self.head.workers.limiter.total_tokens)

    @property
    def workers_busy(self) -> int:
        """How many of them decode."""
        return self.head.workers.limiter.borrowed_tokens

    @property
    def source(self) -> StreamSource:
        """What of it clients see."""
        return StreamSource(self.hub, self.catch_up)


def place_to_begin(tree: Tree, since: Cursor | None, ledger: Ledger) -> Cursor:
    """Where a head begins: since another layout's cursor, or at the newest complete line. Blocking.

    Raises:
        OSError: from the files.
        DataError: where a directory or a file may not be read.
    """
    name_unserved(tree)
    try:
        return _place_to_begin(tree, since, ledger)
    except PermissionError as error:
        raise denied(Path(error.filename)) from error


def _place_to_begin(tree: Tree, since: Cursor | None, ledger: Ledger) -> Cursor:
    if tree.stream is DIFFS and tree.layout is Layout.PLAIN:
        logger.warning(
            "{} carry neither time nor block: cursors hold in the same file only, and what a node restart writes "
            "again is delivered again; let the node write --batch-by-block or --stream-with-block-info",
            tree.hourly,
        )
    if since is None:
        logger.info("reading {} from its newest complete line", tree.hourly)
        return ledger.since_last_time(tree, at_head(tree))
    start = resume(tree, since)
    if start.gap is not None:
        ledger.note(start.gap)
    return start.cursor


def _always() -> bool:
    return True


def _as_it_is(batch: Batch) -> Batch:
    return batch
