"""The head of the log: tail -> batcher -> workers -> ring, each batch handed on in the order of the files.

    tail      takes whole lines from the files (intake)         | 2 MiB a worker in its hand, at most 8 MiB, or a line
      spans   a channel of 1                                    | as much
    batcher   cuts spans into batches of at most 100,000 lines  | as much
      slots   a channel of 1, in file order                     | two batches are decoded at once
    workers   threads under one limiter, a chunk each           | about twice the two batches' bytes
    collector waits for each slot in turn, gives places, fills the ring, delivers
      books   counts what was delivered, when nothing waits     | half of what the ring may weigh, and in it

A slow stage makes the tail read later: the file is the buffer. So memory does not depend on the backlog.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import attrs
import trio
from loguru import logger

from hyperwatch.errors import DataError
from hyperwatch.ingest.counters import Counters
from hyperwatch.ingest.deferred import DeferredCounts
from hyperwatch.ingest.format_check import FormatCheck
from hyperwatch.ingest.ring import Ring
from hyperwatch.ingest.tail import Counted, Tail
from hyperwatch.ingest.workers import Job, Workers
from hyperwatch.log.batches import Batch, DecodedChunk, assemble
from hyperwatch.log.dedupe import Deduplicator
from hyperwatch.log.line_reader import LineReader
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.resume import ResumePoint, resume
from hyperwatch.log.tree import Log
from hyperwatch.runtime.watchdog import end_process

__all__ = ["Changes", "Gate", "IngestPipeline"]

_LINGER_S = 0.002  # a node with unbuffered output writes 23,500 times a second: one wake-up serves many writes
_RETRY_S = 1.0  # between attempts at files that cannot be read


class Changes(Protocol):
    """What tells the tail to look again; `watcher.DirectoryWatcher` for a directory that a node writes."""

    def follow(self, directories: Iterable[Path]) -> None:
        """Look after these directories from now on."""

    async def wait(self) -> bool:
        """Returns when something may have changed, and whether a file may have appeared."""


class Gate(Protocol):
    """Stands between decoding and the ring, and lets batches through when, and as far as, it likes: for recordings."""

    @property
    def closed(self) -> bool:
        """Whether nothing will pass any more: then the head ends as if its log had."""

    async def admit(self, batch: Batch) -> tuple[Batch | None, Batch | None]:
        """Waits until some of a batch may pass.

        Returns:
            (what passes now, what is to be asked for next): either may be None. A part begins and ends at a line's start.
        """


@attrs.define(eq=False)
class _Slot:
    """A batch on its way through the workers."""

    job: Job
    chunks: list[DecodedChunk] = attrs.Factory(list)
    done: trio.Event = attrs.Factory(trio.Event)


_T = TypeVar("_T")


class IngestPipeline:
    """Reads a log from `start` on and delivers it.

    Args:
        log: the files.
        start: where to begin.
        ring: keeps what was decoded last. Filled before `deliver` is called.
        deliver: hands a batch on; returns to how many clients it was delivered. It must not wait for any of them.
        changes: tells when to look again. None: the log does not grow, and `run` returns at its end.
        workers: how many threads decode.
        deadline_s: how long the workers may take over a batch. Past it they are cancelled and the batch is tried once
            more; then its lines count as unreadable and the next batch goes on.
        pause: called by workers between pieces.
        gate: asked before the ring is filled, about every batch. None: everything passes at once.
        needs_keys: asked about every batch as it is taken: whether what its events are routed by is asked for at once. If not, it is
            read once the batch has been delivered, and let go of when it has been counted.
        complete: adds to every batch what its events say together, before anyone sees it.
        found: awaited with every batch before it is delivered, for what it lacks.
        stuck: called with a description of a thread that has not reacted to its cancellation; ends the process.
        counters: are kept; they may have counted for a head before this one.

    Attributes:
        looked_s: when the files were last found to hold no more whole lines, by the event loop's clock; -inf before.
        in_flight_bytes: what was taken from the files and has not been delivered.
    """

    def __init__(
        self,
        log: Log,
        start: Cursor,
        ring: Ring,
        deliver: Callable[[Batch], Awaitable[int]],
        *,
        changes: Changes | None = None,
        workers: int = 1,
        deadline_s: float = 30.0,
        pause: Callable[[], None] = trio.from_thread.check_cancelled,
        gate: Gate | None = None,
        needs_keys: Callable[[], bool] = lambda: True,
        complete: Callable[[Batch], Batch] = lambda batch: batch,
        found: Callable[[Batch], Awaitable[None]] | None = None,
        stuck: Callable[[str], None] = end_process,
        counters: Counters | None = None,
    ) -> None:
        self._needs_keys = needs_keys
        self._complete = complete
        self._found = found
        self._trouble = ""
        self._log = log
        self._start = start
        self._ring = ring
        self._deliver = deliver
        self._changes = changes
        self._name = log.stream.directory(log.layout)  # for the log: hours of several streams have the same names
        self._format_check = FormatCheck(self._name, log.stream.noun)
        self._gate = gate
        self._reading = trio.CancelScope()
        self._waiting = trio.CancelScope()  # at the gate
        self.counters = counters or Counters()
        # The ring weighs an event's objects as much again as its bytes: what is open is in it anyway.
        self._deferred = DeferredCounts(
            self.counters, self._format_check, ring.max_bytes // 2, lambda: self.in_flight_bytes > 0
        )
        self.workers = Workers(
            log.stream, log.layout, workers, deadline_s=deadline_s, pause=pause, stuck=stuck, counters=self.counters
        )
        self.stopped = False
        self.looked_s = -math.inf
        self.in_flight_bytes = 0

    def stop(self) -> None:
        """Ends reading. What was read is still decoded and, but for a gate, delivered; then `run` returns."""
        self.stopped = True
        self._reading.cancel("the head was told to stop")
        self._waiting.cancel("the head was told to stop")

    def finish(self) -> None:
        """Ends reading as if the log had ended here."""
        self._reading.cancel("the log has ended")

    async def run(self) -> None:
        """Reads, decodes and delivers until `stop` is called or a log that does not grow has ended.

        Raises:
            OSError: from the files.
            DataError: where a directory cannot be read or a recording is damaged.
        """
        start = await trio.to_thread.run_sync(resume, self._log, self._start)
        async with trio.open_nursery() as watching:
            watching.start_soon(self.workers.watch)
            async with trio.open_nursery() as nursery:
                span_out, span_in = trio.open_memory_channel[list[Counted]](1)
                slot_out, slot_in = trio.open_memory_channel[_Slot](1)
                nursery.start_soon(self._tail, start, span_out)
                nursery.start_soon(self._batcher, span_in, slot_out)
                nursery.start_soon(self._collector, start, slot_in)
            watching.cancel_scope.cancel("all has been delivered")

    async def _tail(self, start: ResumePoint, spans: trio.MemorySendChannel[list[Counted]]) -> None:
        async with spans:
            walk = await trio.to_thread.run_sync(LineReader, self._log, start.cursor.places)
            try:
                with self._reading:
                    await self._read(walk, spans)
            finally:
                walk.close()

    async def _read(self, walk: LineReader, spans: trio.MemorySendChannel[list[Counted]]) -> None:
        intake = Tail(walk, int(self.workers.limiter.total_tokens), grows=self._changes is not None)
        while True:
            rested_s = trio.current_time() + _LINGER_S
            try:
                taken = await intake.take()
            except (OSError, DataError) as error:
                if self._changes is None:
                    raise
                await self._unreadable(error)
                continue
            if taken.batches:
                self.in_flight_bytes += sum(span.end - span.offset for span, _ in taken.batches)
                await _send(spans, taken.batches)
                if self._changes is not None and not taken.more:
                    await trio.sleep_until(rested_s)  # the node is at it: what it writes meanwhile is one read
            elif self._changes is None:
                return
            else:
                self.looked_s = trio.current_time()
                if taken.everywhere:
                    self._trouble = ""
                    self._changes.follow(self._log.directories(place.file for place in walk.places))
                if await self._changes.wait():
                    intake.look_again()
                await trio.sleep_until(rested_s)

    async def _unreadable(self, error: OSError | DataError) -> None:
        """The files cannot be read just now: the place is kept, and they are tried again."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            logger.error("reading waits: {}; it goes on from the same place when the files can be read", error)
        await trio.sleep(_RETRY_S)

    async def _batcher(
        self, spans: trio.MemoryReceiveChannel[list[Counted]], slots: trio.MemorySendChannel[_Slot]
    ) -> None:
        async with spans, slots, trio.open_nursery() as decoding:
            async for span in spans:
                for batch, lines in span:
                    self.counters.batches += 1
                    job = Job(self.counters.batches, batch, lines, self._needs_keys())
                    logger.opt(lazy=True).debug("📦 batch {}", partial(self._words, job))
                    slot = _Slot(job)
                    await _send(slots, slot)
                    decoding.start_soon(self._decode, slot)

    def _words(self, job: Job) -> str:
        span = job.span
        return f"{job.number} taken: {job.lines} lines, {len(span.data)} bytes of {self._name} {span.file} at {span.offset}"

    async def _decode(self, slot: _Slot) -> None:
        slot.chunks = await self.workers.decode(slot.job)
        slot.done.set()

    async def _collector(self, start: ResumePoint, slots: trio.MemoryReceiveChannel[_Slot]) -> None:
        deduplicator = Deduplicator(start.cursor, start.passages)
        async with slots:
            async for slot in slots:
                await slot.done.wait()
                span, number = slot.job.span, slot.job.number
                batch = assemble(self._log.stream, self._start.directory, span, slot.chunks, deduplicator)
                batch = self._complete(batch)
                self._format_check.name_damage(batch)
                self._format_check.name_undated(batch)
                if self._found is not None:
                    await self._found(batch)
                if self._format_check.weigh_lines(batch):
                    self._trouble = ""
                rest: Batch | None = batch
                while rest is not None:
                    part, rest = await self._admit(rest)
                    if part is not None:
                        dropped = self._ring.append(part)
                        clients = await self._deliver(part)
                        if clients:
                            self.counters.sent(part, time.time_ns() // 1_000_000)
                        logger.debug(
                            "📡 {} {}s delivered to {} clients (batch {})",
                            part.events, self._log.stream.noun, clients, number,
                        )  # fmt: skip
                        del dropped
                self.in_flight_bytes -= span.end - span.offset
                self._deferred.add(batch, span.end - span.offset, needs_keys=slot.job.needs_keys)
                await self._deferred.keep()
            await self._deferred.keep(close=True)

    async def _admit(self, batch: Batch) -> tuple[Batch | None, Batch | None]:
        if self._gate is None:
            return batch, None
        with trio.CancelScope() as self._waiting:
            if self.stopped:
                return None, None
            admitted = await self._gate.admit(batch)
            if self._gate.closed:
                self._reading.cancel("the gate is closed")
            return admitted
        return None, None


async def _send(channel: trio.MemorySendChannel[_T], value: _T) -> None:
    """Sends, at once where there is room: all else that the event loop has to do would come first."""
    try:
        channel.send_nowait(value)
    except trio.WouldBlock:
        await channel.send(value)
