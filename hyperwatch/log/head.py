"""The head of the log: tail -> batcher -> workers -> ring, each batch handed on in the order of the files.

    tail      takes whole lines from the files                  | 2 MiB a worker in its hand, at most 8 MiB, or a line
      spans   a channel of 1                                    | as much
    batcher   cuts spans into batches of at most 100,000 lines  | as much
      slots   a channel of 1, in file order                     | two batches are decoded at once
    workers   threads under one limiter, a chunk each           | about twice the two batches' bytes
    collector waits for each slot in turn, gives places, fills the ring, delivers

A slow stage makes the tail read later: the file is the buffer. So memory does not depend on the backlog.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import attrs
import trio
from loguru import logger

from hyperwatch.errors import DataError, FormatChangedError
from hyperwatch.log.batch import Batch, Decoded, Span, assemble, decode
from hyperwatch.log.counters import Counters
from hyperwatch.log.cursor import Cursor
from hyperwatch.log.files import Log
from hyperwatch.log.repeats import Repeats
from hyperwatch.log.ring import Ring
from hyperwatch.log.start import Start, begin
from hyperwatch.log.stuck import end_process
from hyperwatch.log.walk import Walk
from hyperwatch.node.lines import BATCH_BYTES, BATCH_LINES, chunks, first_lines
from hyperwatch.node.runs import Damage

__all__ = ["Changes", "Gate", "Head"]

_LINGER_S = 0.002  # a node with unbuffered output writes 23,500 times a second: one wake-up serves many writes
_READ_BYTES = 2 * 1024 * 1024  # at once, for each worker: more fills caches and memory, less costs hand-overs
_ATTEMPTS = 2
_HARD_S = 10.0  # what a cancelled worker may take to its next look at that: a piece takes a millisecond
_FORMAT_LINES = 1000
_RETRY_S = 1.0  # between attempts at files that cannot be read
_DAMAGE_LOGGED = 5  # of one batch: a damaged file must not fill the disk with log


class Changes(Protocol):
    """What tells the tail to look again; `watch.Watch` for a directory that a node writes."""

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

    number: int
    span: Span
    lines: int
    chunks: list[Decoded] = attrs.Factory(list)
    done: trio.Event = attrs.Factory(trio.Event)


class Head:
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
        complete: adds to every batch what its events say together, before anyone sees it.
        found: awaited with every batch before it is delivered, for what it lacks.
        stuck: called with a description of a thread that has not reacted to its cancellation; ends the process.
        counters: are kept; they may have counted for a head before this one.

    Attributes:
        looked_s: when the files were last found to hold no more whole lines, by the event loop's clock; -inf before.
        pending_bytes: what was taken from the files and has not been delivered.
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
        complete: Callable[[Batch], Batch] = lambda batch: batch,
        found: Callable[[Batch], Awaitable[None]] | None = None,
        stuck: Callable[[str], None] = end_process,
        counters: Counters | None = None,
    ) -> None:
        self._complete = complete
        self._found = found
        self._stuck = stuck
        self._trouble = ""
        self._judged_lines = self._judged_failures = 0
        self._log = log
        self._start = start
        self._ring = ring
        self._deliver = deliver
        self._changes = changes
        self._name = log.stream.directory(log.layout)  # for the log: hours of several streams have the same names
        self._deadline_s = deadline_s
        self._pause = pause
        self._read_bytes = min(BATCH_BYTES, workers * _READ_BYTES)
        self._gate = gate
        self._reading = trio.CancelScope()
        self._waiting = trio.CancelScope()  # at the gate
        self.limiter = trio.CapacityLimiter(workers)
        self._threads = trio.CapacityLimiter(
            math.inf
        )  # `limiter` counts them, so that waiting for it takes no deadline
        self.counters = counters or Counters()
        self.stopped = False
        self.looked_s = -math.inf
        self.pending_bytes = 0

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
        start = await trio.to_thread.run_sync(begin, self._log, self._start)
        async with trio.open_nursery() as nursery:
            span_out, span_in = trio.open_memory_channel[Span](1)
            slot_out, slot_in = trio.open_memory_channel[_Slot](1)
            nursery.start_soon(self._tail, start, span_out)
            nursery.start_soon(self._batcher, span_in, slot_out)
            nursery.start_soon(self._collector, start, slot_in)

    async def _tail(self, start: Start, spans: trio.MemorySendChannel[Span]) -> None:
        async with spans:
            walk = await trio.to_thread.run_sync(Walk, self._log, start.cursor.places)
            try:
                with self._reading:
                    await self._read(walk, spans)
            finally:
                walk.close()

    async def _read(self, walk: Walk, spans: trio.MemorySendChannel[Span]) -> None:
        while True:
            try:
                span = await trio.to_thread.run_sync(walk.take, self._read_bytes)
            except (OSError, DataError) as error:
                if self._changes is None:
                    raise
                await self._unreadable(error)
                continue
            if span is not None:
                self.pending_bytes += span.end - span.offset
                await spans.send(span)
            elif self._changes is None:
                return
            else:
                self._trouble = ""  # it has looked everywhere
                self.looked_s = trio.current_time()
                rested = trio.current_time() + _LINGER_S
                self._changes.follow(self._log.directories(place.file for place in walk.places))
                if await self._changes.wait():
                    walk.look_again()
                await trio.sleep_until(rested)

    async def _unreadable(self, error: OSError | DataError) -> None:
        """The files cannot be read just now: the place is kept, and they are tried again."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            logger.error("reading waits: {}; it goes on from the same place when the files can be read", error)
        await trio.sleep(_RETRY_S)

    async def _batcher(self, spans: trio.MemoryReceiveChannel[Span], slots: trio.MemorySendChannel[_Slot]) -> None:
        async with spans, slots, trio.open_nursery() as decoding:
            async for span in spans:
                for batch in _batches(span):
                    self.counters.batches += 1
                    lines = batch.data.count(b"\n")
                    slot = _Slot(self.counters.batches, batch, lines)
                    logger.debug(
                        "📦 batch {} taken: {} lines, {} bytes of {} {} at {}",
                        slot.number, lines, len(batch.data), self._name, batch.file, batch.offset,
                    )  # fmt: skip
                    await slots.send(slot)
                    decoding.start_soon(self._decode, slot)

    async def _decode(self, slot: _Slot) -> None:
        cuts = chunks(slot.span.data, slot.lines, int(self.limiter.total_tokens)) if slot.span.data else []
        for attempt in range(1, _ATTEMPTS + 1):
            began = trio.current_time()
            decoded: list[Decoded | None] = [None] * len(cuts)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as workers:
                    for number, cut in enumerate(cuts):
                        workers.start_soon(self._work, slot, cut, decoded, number, scope)
            if not scope.cancel_called:
                slot.chunks = [chunk for chunk in decoded if chunk is not None]
                logger.debug(
                    "✅ All parallel workers done: batch {}, {} workers, {} lines -> {} {}s in {:.4f} s",
                    slot.number, len(cuts), slot.lines,
                    sum(len(run.events) for chunk in slot.chunks for run in chunk.runs), self._log.stream.noun,
                    trio.current_time() - began,
                )  # fmt: skip
                break
            self.counters.deadlines += 1
            logger.warning(
                "⏰ batch {} ({} lines of {} {} at {}) passed its deadline of {} s, attempt {} of {}",
                slot.number, slot.lines, self._name, slot.span.file, slot.span.offset,
                self._deadline_s, attempt, _ATTEMPTS,
            )  # fmt: skip
        else:
            reason = f"not decoded within {_ATTEMPTS} times {self._deadline_s} s"
            data = slot.span.data
            slot.chunks = [
                Decoded([], [Damage(slot.span.offset, len(data), reason, b"", lines=slot.lines)], slot.lines)
            ]
        slot.done.set()

    async def _work(
        self, slot: _Slot, cut: tuple[int, int], results: list[Decoded | None], number: int, batch: trio.CancelScope
    ) -> None:
        """Decodes one chunk in a thread. Its deadline begins when it has a thread, and ends the whole batch."""
        async with self.limiter:
            watching = trio.CancelScope(shield=True)  # a worker that was cancelled is just what is watched
            async with trio.open_nursery() as guard:
                guard.start_soon(self._guard, slot, watching)
                try:
                    with trio.move_on_after(self._deadline_s) as scope:
                        results[number] = await trio.to_thread.run_sync(
                            decode,
                            self._log.stream,
                            self._log.layout,
                            slot.span,
                            cut,
                            self._pause,
                            limiter=self._threads,
                        )
                finally:
                    watching.cancel("the worker is done")
                if scope.cancelled_caught:
                    batch.cancel("the deadline of one of its chunks has passed")

    async def _guard(self, slot: _Slot, watching: trio.CancelScope) -> None:
        with watching:
            await trio.sleep(self._deadline_s + _HARD_S)
            self._stuck(
                f"a worker has not ended {_HARD_S} s after the deadline of batch {slot.number} "
                f"({slot.lines} lines of {self._name} {slot.span.file} at {slot.span.offset})"
            )

    async def _collector(self, start: Start, slots: trio.MemoryReceiveChannel[_Slot]) -> None:
        repeats = Repeats(start.cursor, start.passages)
        async with slots:
            async for slot in slots:
                await slot.done.wait()
                batch = assemble(self._log.stream.name, self._start.directory, slot.span, slot.chunks, repeats)
                batch = self._complete(batch)
                self._count(slot.span, batch)
                if self._found is not None:
                    await self._found(batch)
                self._judge(batch)
                rest: Batch | None = batch
                while rest is not None:
                    part, rest = await self._admit(rest)
                    if part is not None:
                        self._ring.append(part)
                        clients = await self._deliver(part)
                        if clients:
                            self.counters.sent(part, time.time_ns() // 1_000_000)
                        logger.debug(
                            "📡 {} {}s delivered to {} clients (batch {})",
                            part.events, self._log.stream.noun, clients, slot.number,
                        )  # fmt: skip
                self.pending_bytes -= slot.span.end - slot.span.offset

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

    def _judge(self, batch: Batch) -> None:
        """Raises FormatChangedError where half of the last _FORMAT_LINES lines could not be read."""
        self._judged_lines += batch.lines
        self._judged_failures += sum(damage.lines for damage in batch.damage if damage.data)
        if self._judged_lines < _FORMAT_LINES:
            return
        lines, failures = self._judged_lines, self._judged_failures
        self._trouble = ""
        self._judged_lines = self._judged_failures = 0
        if 2 * failures >= lines:
            place = batch.before.places[-1]
            what = (
                f"{failures} of {lines} lines of {self._name} {place.file} cannot be read, "
                f"the last of them from {place.offset} on"
            )
            raise FormatChangedError(
                what, "the node may write a new format: see what it is, and look for a newer hyperwatch"
            )

    def _count(self, span: Span, batch: Batch) -> None:
        self.counters.read(batch, span.end - span.offset)
        for damage in batch.damage[:_DAMAGE_LOGGED]:
            logger.error(
                "unreadable: {} bytes of {} {} at offset {}: {}; they begin {!r}",
                damage.length_bytes, self._name, batch.file, damage.offset, damage.reason, damage.data[:80],
            )  # fmt: skip
        if len(batch.damage) > _DAMAGE_LOGGED:
            logger.error("... and {} more unreadable lines in the same batch", len(batch.damage) - _DAMAGE_LOGGED)


def _batches(span: Span) -> Iterator[Span]:
    """Cuts a span into spans of at most BATCH_LINES lines."""
    while len(span.data) > (length := first_lines(span.data, BATCH_LINES)):
        yield attrs.evolve(span, data=span.data[:length])
        span = attrs.evolve(
            span,
            offset=span.offset + length,
            data=span.data[length:],
            places=span.after(span.offset + length, 0),
            skip=0,
        )
    yield span
