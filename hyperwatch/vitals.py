"""The service's vital signs, looked at once a second: how far it is behind, whether the node writes, how fast all goes."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

import attrs
import trio

from hyperwatch.errors import DataError
from hyperwatch.feed.connection import Connection
from hyperwatch.feed.guard import Guard
from hyperwatch.log.counters import BOUNDS_MS, Counters, Histogram
from hyperwatch.log.files import Backlog, Tree, backlog
from hyperwatch.pipeline import Pipeline
from hyperwatch.records import Records
from hyperwatch.streams import Feed

__all__ = ["LOOK_S", "Moment", "Sign", "Trouble", "Vitals", "quantile_ms"]

LOOK_S = 1.0
_MOMENTS = 300  # five minutes of a stream: 100 KiB
_HANGS_S = 5.0  # the files' sizes are there in a millisecond; a disk that does not answer is not waited for
_LOOKED_S = 2.0  # the head looks every quarter of a second


@attrs.frozen
class Moment:
    """A stream at one moment, and what happened since the moment before it."""

    time_ms: int
    took_s: float
    """Since the moment before."""
    lines: int
    events: int
    size_bytes: int
    lag_bytes: int
    """What lies in the files and has not been delivered."""
    lag_s: float
    """How long ago the node wrote what was read last, where more of it lies there; else 0."""
    idle_s: float
    """How long the node has written nothing."""
    block_to_write_ms: float | None
    """The median since the moment before; None where there was nothing."""
    write_to_read_ms: float | None
    """The 99th percentile, as the next."""
    read_to_sent_ms: float | None


@attrs.define(eq=False)
class Sign:
    """What is known of one stream."""

    pipeline: Pipeline
    counters: Counters
    caught_up_s: float
    """When nothing was left in the files that could be read, by that clock."""
    written_ns: int
    """When the node wrote last, as far as its files tell; when the service started, before."""
    written_s: float
    """When that was seen, by that clock."""
    looked_s: float
    last: Counters
    """As they were at the last look."""
    free_bytes: int | None = None
    """What is left on the disk with the node's files; None before anybody could look."""
    moments: deque[Moment] = attrs.Factory(lambda: deque(maxlen=_MOMENTS))

    @property
    def stream(self) -> str:
        """Its name."""
        return self.pipeline.log.stream.name

    @property
    def now(self) -> Moment | None:
        """As it was looked at last; None before."""
        return self.moments[-1] if self.moments else None


@attrs.frozen
class Trouble:
    """Why the service is not ready."""

    kind: Literal["node_stale", "hyperwatch_behind", "stopping"]
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Vitals:
    """Outlives the feeds: a layout may end and another begin.

    Args:
        guard: counts whom it refuses.
        stall_s: how long a node may write nothing.
        behind_s: how far hyperwatch may be behind it.
        now_ns: the wall clock, UTC.
        now_s: the clock by which spans are measured; the event loop's, as the head's.

    Attributes:
        counters: of every stream.
        signs: of every stream that is followed, by its name; those of order statuses first.
        records: what was found.
        looks: how many there were.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        stall_s: float,
        behind_s: float,
        now_ns: Callable[[], int] = time.time_ns,
        now_s: Callable[[], float] = trio.current_time,
    ) -> None:
        self.guard = guard
        self.counters: defaultdict[str, Counters] = defaultdict(Counters)
        self.signs: dict[str, Sign] = {}
        self.records = Records(None)
        self.looks = 0
        self.started_ms = now_ns() // 1_000_000
        self._stall_s = stall_s
        self._behind_s = behind_s
        self._now_ns = now_ns
        self._now_s = now_s
        self._feed: Feed | None = None
        self._looking = trio.CapacityLimiter(1)  # of all that ever hang, one thread is lost

    def follow(self, feed: Feed, records: Records) -> None:
        """This is the feed from now on."""
        self._feed = feed
        self.records = records
        self._meet()

    def connections(self) -> Collection[Connection]:
        """The clients."""
        return () if self._feed is None else self._feed.server.connections

    def _meet(self) -> None:
        """Streams may have been found since the last look, or are read in another layout now."""
        now_s, old = self._now_s(), self.signs
        self.signs = {}
        for pipeline in () if self._feed is None else self._feed.pipelines:
            name = pipeline.log.stream.name
            known = old.get(name)
            if known is None or known.pipeline is not pipeline:
                counters = self.counters[name]
                sign = Sign(pipeline, counters, now_s, self._now_ns(), now_s, now_s, _copy(counters))
                sign.moments.extend(known.moments if known is not None else ())
                known = sign
            self.signs[name] = known

    async def watch(self) -> None:
        """Looks every LOOK_S. Does not end."""
        while True:
            await self.look()
            self.guard.chatter.settle()
            await trio.sleep(LOOK_S)

    async def look(self) -> None:
        """Looks once; a disk that does not answer takes no more than _HANGS_S a stream."""
        self._meet()
        for sign in list(self.signs.values()):
            found: tuple[Backlog, int] | None = None
            with trio.move_on_after(_HANGS_S):
                found = await trio.to_thread.run_sync(
                    _measure, sign.pipeline, abandon_on_cancel=True, limiter=self._looking
                )
            if found is not None:
                sign.free_bytes = found[1]
            self._note(sign, found[0] if found is not None else None)
        self.looks += 1

    def troubles(self) -> list[Trouble]:
        """Why the service is not ready; none: it is."""
        if not self.signs:
            return [Trouble("node_stale", "the node has written nothing yet")]
        troubles = list(self._late())
        idle_s = min((sign.now.idle_s for sign in self.signs.values() if sign.now is not None), default=0.0)
        if idle_s >= self._stall_s:
            text = f"the node has written nothing for {idle_s:.0f} s; is it running, and has it peers?"
            troubles.append(Trouble("node_stale", text))
        if any(sign.pipeline.head.stopped for sign in self.signs.values()):
            troubles.append(Trouble("stopping", "the service ends"))
        return troubles

    def _late(self) -> Iterator[Trouble]:
        for sign in self.signs.values():
            if sign.now is not None and sign.now.lag_s > self._behind_s:
                text = f"{sign.now.lag_bytes} bytes of {sign.stream} are unread, and {sign.now.lag_s:.1f} s old"
                yield Trouble("hyperwatch_behind", text)

    def _note(self, sign: Sign, found: Backlog | None) -> None:
        now_s, now_ns = self._now_s(), self._now_ns()
        head, before, after = sign.pipeline.head, sign.last, _copy(sign.counters)
        if found is not None:
            if found.written_ns and found.written_ns != sign.written_ns:
                # How long ago that was is asked of the wall clock, which may jump: but for the first time it is within a look.
                ago_s = max(0.0, (now_ns - found.written_ns) / 1e9)
                if sign.moments:
                    ago_s = min(ago_s, now_s - sign.looked_s)
                sign.written_ns, sign.written_s = found.written_ns, now_s - ago_s
            # What is left where the head has just looked is a line that is not complete yet.
            at_end = now_s - head.looked_s < _LOOKED_S and not head.pending_bytes
            if at_end or not found.size_bytes:
                sign.caught_up_s = now_s
        size_bytes = found.size_bytes if found is not None else sign.now.lag_bytes if sign.now is not None else 0
        sign.moments.append(
            Moment(
                time_ms=now_ns // 1_000_000,
                took_s=now_s - sign.looked_s,
                lines=after.lines - before.lines,
                events=after.events - before.events,
                size_bytes=after.size_bytes - before.size_bytes,
                lag_bytes=size_bytes,
                lag_s=_lag_s(sign, now_s, now_ns, known=found is not None),
                idle_s=now_s - sign.written_s,
                block_to_write_ms=_between(before.block_to_write, after.block_to_write, 0.5),
                write_to_read_ms=_between(before.write_to_read, after.write_to_read, 0.99),
                read_to_sent_ms=_between(before.read_to_sent, after.read_to_sent, 0.99),
            )
        )
        sign.last, sign.looked_s = after, now_s


def quantile_ms(counts: Sequence[int], share: float) -> float | None:
    """What so much of all took no longer than, within a bucket by the rule of three, as Prometheus does.

    Args:
        counts: of a histogram's buckets.
        share: 0.5 for the median.

    Returns:
        None where nothing was counted; the last bound where it lies above that.
    """
    wanted = share * sum(counts)
    if not wanted:
        return None
    below, low = 0, 0
    for count, high in zip(counts, BOUNDS_MS, strict=False):
        if below + count >= wanted:
            return low + (high - low) * (wanted - below) / count
        below, low = below + count, high
    return float(BOUNDS_MS[-1])


def _measure(pipeline: Pipeline) -> tuple[Backlog, int] | None:
    """(what is left to read, bytes left on that disk); None where the files cannot be read, as the head says. Blocking."""
    if not isinstance(pipeline.log, Tree):
        return None
    try:
        return backlog(pipeline.log, pipeline.ring.end), shutil.disk_usage(pipeline.log.root).free
    except (OSError, DataError):
        return None


def _lag_s(sign: Sign, now_s: float, now_ns: int, *, known: bool) -> float:
    """Nothing unread is older than the last moment without any, nor than what was read last."""
    since_s = now_s - sign.caught_up_s
    last = sign.pipeline.hub.last
    written_ms = None if last is None else last.run.written_ms or last.run.time_ms
    if not known or written_ms is None:
        return since_s
    return max(0.0, min(since_s, (now_ns // 1_000_000 - written_ms) / 1000))


def _between(before: Histogram, after: Histogram, share: float) -> float | None:
    return quantile_ms([now - then for then, now in zip(before.counts, after.counts, strict=True)], share)


def _copy(counters: Counters) -> Counters:
    """As it is now, as far as moments are made of it."""
    return attrs.evolve(
        counters,
        block_to_write=Histogram(list(counters.block_to_write.counts)),
        write_to_read=Histogram(list(counters.write_to_read.counts)),
        read_to_sent=Histogram(list(counters.read_to_sent.counts)),
    )
