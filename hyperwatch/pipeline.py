"""A stream from its files to its subscribers."""

from __future__ import annotations

from pathlib import Path

import attrs
from loguru import logger

from hyperwatch.feed.hub import Hub
from hyperwatch.feed.streams import Source
from hyperwatch.feed.trades import Pairing
from hyperwatch.log.access import denied
from hyperwatch.log.batch import Batch
from hyperwatch.log.courtesy import Courtesy
from hyperwatch.log.cursor import Cursor
from hyperwatch.log.files import Log, Tree
from hyperwatch.log.head import Changes, Gate, Head
from hyperwatch.log.past import Past
from hyperwatch.log.ring import Ring
from hyperwatch.log.scan import name_unserved
from hyperwatch.log.start import at_head, begin
from hyperwatch.log.throttle import Throttle
from hyperwatch.node.streams import DIFFS, FILLS, Layout
from hyperwatch.records import Records

__all__ = ["Pipeline", "place_to_begin"]


@attrs.frozen(eq=False)
class Pipeline:
    """A log, and what decodes, keeps and pushes it."""

    log: Log
    ring: Ring
    hub: Hub
    past: Past
    head: Head

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
        courtesy: Courtesy,
        gate: Gate | None = None,
        records: Records,
        throttle: Throttle,
    ) -> Pipeline:
        """Builds one that begins at `start`. Nothing runs yet."""
        ring = Ring(start, ring_bytes)
        hub = Hub(ring)
        counters = records.counters[log.stream.name]
        pairing = log.stream is FILLS
        head = Head(
            log,
            start,
            ring,
            hub.publish,
            changes=changes,
            workers=workers,
            deadline_s=deadline_s,
            pause=courtesy.pause,
            gate=gate,
            keyed=_always if pairing else lambda: hub.keyed,
            complete=Pairing(counters).complete if pairing else _as_it_is,
            found=records.found,
            counters=counters,
        )
        return cls(log, ring, hub, Past(log, ring, throttle, courtesy), head)

    @property
    def source(self) -> Source:
        """What of it clients see."""
        return Source(self.hub, self.past)


def place_to_begin(tree: Tree, since: Cursor | None, records: Records) -> Cursor:
    """Where a head begins: since another layout's cursor, or at the newest complete line. Blocking.

    Raises:
        OSError: from the files.
        DataError: where a directory or a file may not be read.
    """
    name_unserved(tree)
    try:
        return _place_to_begin(tree, since, records)
    except PermissionError as error:
        raise denied(Path(error.filename)) from error


def _place_to_begin(tree: Tree, since: Cursor | None, records: Records) -> Cursor:
    if tree.stream is DIFFS and tree.layout is Layout.PLAIN:
        logger.warning(
            "{} carry neither time nor block: cursors hold in the same file only, and what a node restart writes "
            "again is delivered again; let the node write --batch-by-block or --stream-with-block-info",
            tree.hourly,
        )
    if since is None:
        logger.info("reading {} from its newest complete line", tree.hourly)
        return records.since_last_time(tree, at_head(tree))
    start = begin(tree, since)
    if start.gap is not None:
        records.note(start.gap)
    return start.cursor


def _always() -> bool:
    return True


def _as_it_is(batch: Batch) -> Batch:
    return batch
