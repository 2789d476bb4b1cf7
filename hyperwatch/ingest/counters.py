"""What has passed through the head of a stream: plain integers, which cost next to nothing and are read at any time. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from operator import attrgetter
from typing import cast

import attrs

from hyperwatch.log.batches import Batch, Entry
from hyperwatch.node.keys import OrderKeys
from hyperwatch.node.statuses import StatusClass, class_of_name

__all__ = ["BOUNDS_MS", "Counters", "Histogram"]

BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000)
"""The upper ends of a histogram's buckets, each within its bucket; one more has no end."""

_STATUSES = 256  # told apart; 29 are known, and foreign data may have any number

_STATUS = attrgetter("status")


@attrs.define
class Histogram:
    """How long something took."""

    counts: list[int] = attrs.Factory(lambda: [0] * (len(BOUNDS_MS) + 1))
    """For each bucket, how often it took so long."""
    sum_ms: int = 0

    def add(self, took_ms: int) -> None:
        """Clocks differ by a little: what took less than nothing took nothing."""
        took_ms = max(0, took_ms)
        self.counts[bisect_left(BOUNDS_MS, took_ms)] += 1
        self.sum_ms += took_ms


@attrs.define
class Counters:
    """One stream, since the service started."""

    lines: int = 0
    events: int = 0
    """Without those that the node wrote a second time."""
    repeated: int = 0
    """Those."""
    failures: int = 0
    """Lines that could not be read."""
    unkeyed: int = 0
    """Events of which account, coin or status could not be read."""
    batches: int = 0
    size_bytes: int = 0
    deadlines: int = 0
    """How often a batch's deadline passed."""
    restarts: int = 0
    """How often the node went back and wrote blocks again."""
    quarantined: int = 0
    """Pieces that could not be read and were kept."""
    trades: int = 0
    """Pairs of fills."""
    one_sided: int = 0
    """Fills that were given up: no other side of them came."""
    gaps: Counter[str] = attrs.Factory(Counter)
    """By reason."""
    statuses: Counter[str] = attrs.Factory(Counter)
    """Events by status, at most _STATUSES of them; empty for streams whose events have none."""
    other_statuses: int = 0
    """Events of other statuses."""
    block_to_write: Histogram = attrs.Factory(Histogram)
    """From a block's time to the node's writing it; once for all that was read of a block together."""
    write_to_read: Histogram = attrs.Factory(Histogram)
    """From there to our reading it."""
    read_to_sent: Histogram = attrs.Factory(Histogram)
    """From there to its being handed to every client at the head."""

    def read(self, batch: Batch, size_bytes: int) -> None:
        """A batch has been read."""
        self.lines += batch.lines
        self.events += batch.events
        self.repeated += batch.repeated
        self.restarts += batch.restarts
        self.size_bytes += size_bytes
        self.failures += sum(unreadable.lines for unreadable in batch.unreadable)
        for entry in batch.entries:
            self._entry(entry)
        while len(self.statuses) > _STATUSES:
            self.other_statuses += self.statuses.popitem()[1]  # what came last

    def sent(self, batch: Batch, now_ms: int) -> None:
        """It has been handed to the clients at the head."""
        for entry in batch.entries:
            self.read_to_sent.add(now_ms - entry.read_ms)

    def classes(self) -> Counter[str]:
        """Events by the class of their status, by its name alone: looking at every event would cost too much here."""
        found = Counter({StatusClass.UNKNOWN.value: self.other_statuses})
        for status, count in self.statuses.items():
            found[class_of_name(status).value] += count
        return found

    def _entry(self, entry: Entry) -> None:
        slice_ = entry.slice
        if slice_.keys and isinstance(slice_.keys[0], OrderKeys):
            # Once a run, in C: 0.05 us an event.
            self.statuses.update(map(_STATUS, cast("list[OrderKeys]", slice_.keys)))
            self.other_statuses += self.statuses.pop("", 0)  # of those that could not be routed
        if entry.late or entry.repeated:
            return  # old news
        written_ms = slice_.written_ms
        if written_ms is None:
            return
        self.write_to_read.add(entry.read_ms - written_ms)
        if slice_.time_ms is not None:
            self.block_to_write.add(written_ms - slice_.time_ms)
