"""To the feed: the service itself, with a gate before its ring that keeps the pace and the bounds."""

from __future__ import annotations

import math
from functools import partial

import attrs
import trio
from loguru import logger

from hyperwatch.config import DEFAULT_DEADLINE_S, DEFAULT_RING_BYTES, Address, default_workers
from hyperwatch.ingest.watcher import DirectoryWatcher
from hyperwatch.log.batches import Batch
from hyperwatch.replay.pacing import Pace
from hyperwatch.replay.plan import Job, Report
from hyperwatch.replay.range import Bounds
from hyperwatch.server.admission import Admission
from hyperwatch.server.limits import Limits
from hyperwatch.service.frontend import Frontend
from hyperwatch.service.service import listen, serve, stop_on_signals
from hyperwatch.service.stream_set import StreamSet

__all__ = ["Gate", "broadcast"]

_LOOK_S = 0.02
_SETTLE_S = 60.0  # for clients that are behind when the recording has ended


async def broadcast(  # noqa: ASYNC128  `serve` calls started()
    job: Job,
    address: Address,
    wait_clients: int,
    report: Report,
    *,
    watch: DirectoryWatcher | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves a job as the feed until its end or a signal.

    Args:
        job: what.
        address: where to listen.
        wait_clients: how many clients must have a live subscription before the first event.
        report: is kept.
        watch: tells when the log has grown; None: it does not grow.
        task_status: is told the port.

    Raises:
        UsageError: where it cannot listen.
    """
    listeners = await listen(address)
    gate = Gate(job.wanted.bounds, job.pace, report)
    feed = StreamSet.of(
        job.log,
        job.start,
        ring_bytes=DEFAULT_RING_BYTES,
        workers=default_workers(),
        deadline_s=DEFAULT_DEADLINE_S,
        changes=watch,
        gate=gate,
        frontend=Frontend(
            Admission(Limits(catch_up_mb_s=math.inf, client_catch_up_mb_s=math.inf, client_share=math.inf))
        ),  # no node to spare
    )
    stopping = trio.Event()
    async with trio.open_nursery() as root:
        await root.start(stop_on_signals, stopping.set)
        try:
            await serve(
                feed,
                listeners,
                stopping,
                task_status,
                before=partial(_gather, feed, wait_clients),
                after=partial(_settle, feed),
                goodbye=(1000, "end of the recording"),
            )
        finally:
            report.interrupted = feed.main.head.stopped
            report.unreadable = feed.main.head.counters.failures
        root.cancel_scope.cancel("the end")


class Gate:
    """Lets through what lies inside, when it is due.

    Args:
        bounds: what lies inside. A batch that is wholly behind them closes the gate.
        pace: when what is due. None: everything at once.
        report: is kept.
    """

    def __init__(self, bounds: Bounds, pace: Pace | None, report: Report) -> None:
        self._bounds = bounds
        self._pace = pace
        self._report = report
        self._fresh: Batch | None = None
        self.closed = False

    async def admit(self, batch: Batch) -> tuple[Batch | None, Batch | None]:
        """As in head.Gate."""
        if batch is not self._fresh:
            self._report.count(batch, log=False)  # the head logs damage itself
        if self.closed or self._bounds.behind(batch):
            self.closed = True
            return None, None
        batch = self._within(batch)
        count = len(batch.entries)
        if self._pace is not None and count:
            await trio.sleep(self._pace.wait_s(batch.entries[0].slice.time_ms, trio.current_time()))
            count = self._due(batch, self._pace)
        part, self._fresh = _split(batch, count)
        self._report.written += part.events
        return part, self._fresh

    def _within(self, batch: Batch) -> Batch:
        """Without what lies at its end behind the bounds, so that the ring ends where they do."""
        count = len(batch.entries)
        while count and self._bounds.ends_before(batch.entries[count - 1].slice):
            count -= 1
        return _split(batch, count)[0]

    def _due(self, batch: Batch, pace: Pace) -> int:
        """How many entries may go, the first always; a line's entries go together."""
        now_s = trio.current_time()
        for number, entry in enumerate(batch.entries[1:], 1):
            within_line = any(place.events_read for place in entry.before.places)
            if not within_line and pace.wait_s(entry.slice.time_ms, now_s):
                return number
        return len(batch.entries)


def _split(batch: Batch, count: int) -> tuple[Batch, Batch | None]:
    """(the first `count` entries, the rest if there is any)."""
    if count >= len(batch.entries):
        return batch, None
    first, rest = batch.entries[:count], batch.entries[count:]
    events = sum(entry.slice.count for entry in first)
    weight = batch.weight_bytes * events // max(1, batch.events)
    seam = rest[0].before
    return (
        attrs.evolve(batch, entries=first, after=seam, events=events, weight_bytes=weight),
        attrs.evolve(
            batch, entries=rest, before=seam, events=batch.events - events, weight_bytes=batch.weight_bytes - weight
        ),
    )


async def _gather(feed: StreamSet, wait_clients: int) -> None:
    """Waits for clients, or for a signal."""
    if wait_clients > feed.main.hub.live_clients():
        logger.info("waiting for {} clients with a subscription", wait_clients)
    while feed.main.hub.live_clients() < wait_clients and not feed.main.head.stopped:  # noqa: ASYNC110  nobody announces this
        await trio.sleep(_LOOK_S)


async def _settle(feed: StreamSet) -> None:
    """Waits until every client has heard everything, or for a signal; _SETTLE_S at most."""
    with trio.move_on_after(_SETTLE_S) as scope:
        while (late := _behind(feed)) and not feed.main.head.stopped:  # noqa: ASYNC110  nobody announces this
            await trio.sleep(_LOOK_S)
    if scope.cancelled_caught:
        logger.warning("{} clients are still behind after {:g} s; they are let go", late, _SETTLE_S)


def _behind(feed: StreamSet) -> int:
    return sum(connection.behind for connection in feed.server.connections)
