"""Workers: threads that decode a batch, a chunk each, and what becomes of one that does not end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import attrs
import trio
from loguru import logger

from hyperwatch.ingest.counters import Counters
from hyperwatch.ingest.yielding import decoded_here
from hyperwatch.log.batches import DecodedChunk, Decoding, RawBatch, decode
from hyperwatch.node.cuts import chunks, lines_in
from hyperwatch.node.decoder import Need
from hyperwatch.node.slices import UnreadableLine
from hyperwatch.node.streams import Layout, Stream

__all__ = ["Job", "Workers"]

_AT_ONCE_BYTES = 2 * 1024 * 1024  # as much as the event loop reads at once: a thread would hold the interpreter as long
_ATTEMPTS = 2
_HARD_S = 10.0  # what a cancelled worker may take to its next look at that: a piece takes a millisecond
_LOOKS = 10  # in that time


@attrs.frozen
class Job:
    """A batch that is to be decoded."""

    number: int
    """For the log."""
    span: RawBatch
    counted: int | None
    """Its lines, where they were counted."""
    needs_keys: bool
    """Whether what its events are routed by will be asked for."""

    @property
    def lines(self) -> int:
        """Its lines: counted where somebody asks, for that takes a twentieth of what decoding does."""
        return lines_in(self.span.data) if self.counted is None else self.counted

    @property
    def need(self) -> Need:
        """What it is decoded for."""
        return Need.ROUTED if self.needs_keys else Need.TOGETHER


class Workers:
    """Threads under one limiter, and a deadline for each batch.

    Args:
        stream: what the batches hold.
        layout: how they hold it.
        count: how many there are.
        deadline_s: how long they may take over a batch. Past it they are cancelled and the batch is tried once more; then
            its lines count as unreadable.
        pause: called between pieces, in the thread.
        stuck: called with a description of a thread that has not reacted to its cancellation; ends the process.
        counters: are kept.
    """

    def __init__(
        self,
        stream: Stream,
        layout: Layout,
        count: int,
        *,
        deadline_s: float,
        pause: Callable[[], None],
        stuck: Callable[[str], None],
        counters: Counters,
    ) -> None:
        self._stream = stream
        self._layout = layout
        self._name = stream.directory(layout)
        self._deadline_s = deadline_s
        self.pause = pause
        self.stuck = stuck
        self._counters = counters
        self.limiter = trio.CapacityLimiter(count)
        self._threads = trio.CapacityLimiter(
            math.inf
        )  # `limiter` counts them, so that waiting for it takes no deadline
        self._tickets = itertools.count()
        self._busy: dict[int, tuple[Job, float]] = {}  # by ticket: what a thread is at, and since when

    async def decode(self, job: Job) -> list[DecodedChunk]:
        """What a batch comes to, chunk by chunk. A small one is one chunk, and needs no thread."""
        span = job.span
        if 0 < len(span.data) <= _AT_ONCE_BYTES:
            return await self._decode_here(job)
        cuts = chunks(span.data, job.lines, int(self.limiter.total_tokens)) if span.data else []
        for attempt in range(1, _ATTEMPTS + 1):
            began_s = trio.current_time()
            decoded: list[DecodedChunk | None] = [None] * len(cuts)
            with trio.CancelScope() as scope:
                if len(cuts) == 1:
                    await self._work(job, cuts[0], decoded, 0, scope)
                else:
                    async with trio.open_nursery() as workers:
                        for number, cut in enumerate(cuts):
                            workers.start_soon(self._work, job, cut, decoded, number, scope)
            if not scope.cancel_called:
                found = [chunk for chunk in decoded if chunk is not None]
                self._say_done(job, len(cuts), found, began_s)
                return found
            self._counters.deadlines += 1
            logger.warning(
                "⏰ batch {} ({} lines of {} {} at {}) passed its deadline of {} s, attempt {} of {}",
                job.number, job.lines, self._name, span.file, span.offset, self._deadline_s, attempt, _ATTEMPTS,
            )  # fmt: skip
        reason = f"not decoded within {_ATTEMPTS} times {self._deadline_s} s"
        return [
            DecodedChunk([], [UnreadableLine(span.offset, len(span.data), reason, b"", lines=job.lines)], job.lines)
        ]

    async def watch(self) -> None:
        """Looks for a thread that does not end. Does not end itself.

        A scope does not stop a thread, and who waits for one sees nothing of it: so another task looks.
        """
        while True:
            await trio.sleep(_HARD_S / _LOOKS)
            latest_s = trio.current_time() - self._deadline_s - _HARD_S
            for job, since_s in list(self._busy.values()):
                if since_s <= latest_s:
                    self.stuck(
                        f"a worker has not ended {_HARD_S} s after the deadline of batch {job.number} "
                        f"({job.lines} lines of {self._name} {job.span.file} at {job.span.offset})"
                    )

    async def _decode_here(self, job: Job) -> list[DecodedChunk]:
        """Decodes a small batch on the event loop."""
        began_s = trio.current_time()
        cut = 0, len(job.span.data)
        work = Decoding(self._stream, self._layout, job.span, cut, job.need)
        found = [await decoded_here(work)]
        self._say_done(job, 0, found, began_s)
        return found

    def _say_done(self, job: Job, workers: int, found: list[DecodedChunk], began_s: float) -> None:
        logger.debug(
            "✅ All parallel workers done: batch {}, {} workers, {} lines -> {} {}s in {:.4f} s",
            job.number, workers, sum(chunk.lines for chunk in found), sum(slice_.count for chunk in found for slice_ in chunk.slices),
            self._stream.noun, trio.current_time() - began_s,
        )  # fmt: skip

    async def _work(
        self, job: Job, cut: tuple[int, int], results: list[DecodedChunk | None], number: int, batch: trio.CancelScope
    ) -> None:
        """Decodes one chunk in a thread. Its deadline begins when it has a thread, and ends the whole batch."""
        await _acquire(self.limiter)
        try:
            ticket = next(self._tickets)
            self._busy[ticket] = job, trio.current_time()
            try:
                with trio.move_on_after(self._deadline_s) as scope:
                    work = partial(decode, self._stream, self._layout, job.span, cut, self.pause, need=job.need)
                    results[number] = await trio.to_thread.run_sync(work, limiter=self._threads)
            finally:
                del self._busy[ticket]
            if scope.cancelled_caught:
                batch.cancel("the deadline of one of its chunks has passed")
        finally:
            self.limiter.release()


async def _acquire(limiter: trio.CapacityLimiter) -> None:
    """Takes a token, at once where there is one: all else that the event loop has to do would come first."""
    try:
        limiter.acquire_nowait()
    except trio.WouldBlock:
        await limiter.acquire()
