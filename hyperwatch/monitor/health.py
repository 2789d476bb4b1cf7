"""The service's health, looked at once a second: how far it is behind, whether the node writes, how fast all goes."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

import attrs
import trio

from hyperwatch.errors import DataError
from hyperwatch.ingest.counters import BOUNDS_MS, Counters, Histogram
from hyperwatch.ledger.ledger import Ledger
from hyperwatch.log.tree import Backlog, Tree, backlog
from hyperwatch.monitor.probe import ServiceProbe, StreamProbe
from hyperwatch.server.admission import Admission
from hyperwatch.server.connection import Connection

__all__ = ["LOOK_S", "HealthMonitor", "NotReady", "Sample", "StreamHealth", "quantile_ms"]

LOOK_S = 1.0
_SAMPLES = 300  # five minutes of a stream: 100 KiB
_HANGS_S = 5.0  # the files' sizes are there in a millisecond; a disk that does not answer is not waited for
_LOOKED_S = 2.0  # the head looks every quarter of a second


@attrs.frozen
class Sample:
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
class StreamHealth:
    """What is known of one stream."""

    probe: StreamProbe
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
    samples: deque[Sample] = attrs.Factory(lambda: deque(maxlen=_SAMPLES))

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.probe.log.stream.name

    @property
    def now(self) -> Sample | None:
        """As it was looked at last; None before."""
        return self.samples[-1] if self.samples else None


@attrs.frozen
class NotReady:
    """Why the service is not ready."""

    kind: Literal["node_stale", "hyperwatch_behind", "stopping"]
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class HealthMonitor:
    """Outlives the feeds: a layout may end and another begin.

    Args:
        admission: counts whom it refuses.
        stall_s: how long a node may write nothing.
        behind_s: how far hyperwatch may be behind it.
        now_ns: the wall clock, UTC.
        now_s: the clock by which spans are measured; the event loop's, as the head's.

    Attributes:
        counters: of every stream.
        streams: of every stream that is followed, by its name; those of order statuses first.
        ledger: what was found.
        looks: how many there were.
    """

    def __init__(
        self,
        admission: Admission,
        *,
        stall_s: float,
        behind_s: float,
        now_ns: Callable[[], int] = time.time_ns,
        now_s: Callable[[], float] = trio.current_time,
    ) -> None:
        self.admission = admission
        self.counters: defaultdict[str, Counters] = defaultdict(Counters)
        self.streams: dict[str, StreamHealth] = {}
        self.ledger = Ledger(None)
        self.looks = 0
        self.started_ms = now_ns() // 1_000_000
        self._stall_s = stall_s
        self._behind_s = behind_s
        self._now_ns = now_ns
        self._now_s = now_s
        self._service: ServiceProbe | None = None
        self._looking = trio.CapacityLimiter(1)  # of all that ever hang, one thread is lost

    def follow(self, service: ServiceProbe, ledger: Ledger) -> None:
        """This is the service from now on."""
        self._service = service
        self.ledger = ledger
        self._meet()

    def connections(self) -> Collection[Connection]:
        """The clients."""
        return () if self._service is None else self._service.connections

    def _meet(self) -> None:
        """Streams may have been found since the last look, or are read in another layout now."""
        now_s, old = self._now_s(), self.streams
        self.streams = {}
        for probe in () if self._service is None else self._service.probes:
            name = probe.log.stream.name
            known = old.get(name)
            if known is None or known.probe is not probe:
                counters = self.counters[name]
                met = StreamHealth(probe, counters, now_s, self._now_ns(), now_s, now_s, _copy(counters))
                met.samples.extend(known.samples if known is not None else ())
                known = met
            self.streams[name] = known

    async def watch(self) -> None:
        """Looks every LOOK_S. Does not end."""
        while True:
            await self.look()
            self.admission.client_log.settle()
            await trio.sleep(LOOK_S)

    async def look(self) -> None:
        """Looks once; a disk that does not answer takes no more than _HANGS_S a stream."""
        self._meet()
        for stream in list(self.streams.values()):
            found: tuple[Backlog, int] | None = None
            with trio.move_on_after(_HANGS_S):
                found = await trio.to_thread.run_sync(
                    _measure, stream.probe, abandon_on_cancel=True, limiter=self._looking
                )
            if found is not None:
                stream.free_bytes = found[1]
            self._note(stream, found[0] if found is not None else None)
        self.looks += 1

    def troubles(self) -> list[NotReady]:
        """Why the service is not ready; none: it is."""
        if not self.streams:
            return [NotReady("node_stale", "the node has written nothing yet")]
        troubles = list(self._late())
        idle_s = min((stream.now.idle_s for stream in self.streams.values() if stream.now is not None), default=0.0)
        if idle_s >= self._stall_s:
            text = f"the node has written nothing for {idle_s:.0f} s; is it running, and has it peers?"
            troubles.append(NotReady("node_stale", text))
        if any(stream.probe.stopped for stream in self.streams.values()):
            troubles.append(NotReady("stopping", "the service ends"))
        return troubles

    def _late(self) -> Iterator[NotReady]:
        for stream in self.streams.values():
            if stream.now is not None and stream.now.lag_s > self._behind_s:
                text = f"{stream.now.lag_bytes} bytes of {stream.name} are unread, and {stream.now.lag_s:.1f} s old"
                yield NotReady("hyperwatch_behind", text)

    def _note(self, stream: StreamHealth, found: Backlog | None) -> None:
        now_s, now_ns = self._now_s(), self._now_ns()
        probe, before, after = stream.probe, stream.last, _copy(stream.counters)
        if found is not None:
            if found.written_ns and found.written_ns != stream.written_ns:
                # How long ago that was is asked of the wall clock, which may jump: but for the first time it is within a look.
                ago_s = max(0.0, (now_ns - found.written_ns) / 1e9)
                if stream.samples:
                    ago_s = min(ago_s, now_s - stream.looked_s)
                stream.written_ns, stream.written_s = found.written_ns, now_s - ago_s
            # What is left where the head has just looked is a line that is not complete yet.
            at_end = now_s - probe.looked_s < _LOOKED_S and not probe.in_flight_bytes
            if at_end or not found.size_bytes:
                stream.caught_up_s = now_s
        size_bytes = found.size_bytes if found is not None else stream.now.lag_bytes if stream.now is not None else 0
        stream.samples.append(
            Sample(
                time_ms=now_ns // 1_000_000,
                took_s=now_s - stream.looked_s,
                lines=after.lines - before.lines,
                events=after.events - before.events,
                size_bytes=after.size_bytes - before.size_bytes,
                lag_bytes=size_bytes,
                lag_s=_lag_s(stream, now_s, now_ns, known=found is not None),
                idle_s=now_s - stream.written_s,
                block_to_write_ms=_between(before.block_to_write, after.block_to_write, 0.5),
                write_to_read_ms=_between(before.write_to_read, after.write_to_read, 0.99),
                read_to_sent_ms=_between(before.read_to_sent, after.read_to_sent, 0.99),
            )
        )
        stream.last, stream.looked_s = after, now_s


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


def _measure(probe: StreamProbe) -> tuple[Backlog, int] | None:
    """(what is left to read, bytes left on that disk); None where the files cannot be read, as the head says. Blocking."""
    if not isinstance(probe.log, Tree):
        return None
    try:
        return backlog(probe.log, probe.ring.end), shutil.disk_usage(probe.log.root).free
    except (OSError, DataError):
        return None


def _lag_s(stream: StreamHealth, now_s: float, now_ns: int, *, known: bool) -> float:
    """Nothing unread is older than the last moment without any, nor than what was read last."""
    since_s = now_s - stream.caught_up_s
    last = stream.probe.last
    written_ms = None if last is None else last.slice.written_ms or last.slice.time_ms
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
