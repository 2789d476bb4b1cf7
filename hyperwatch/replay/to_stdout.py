"""To standard output: one thread reads and formats, another writes; a channel of one block between them.

Memory: a block in each hand and one between, about 1 MiB each and what one read adds.
"""

from __future__ import annotations

import select
import sys
import time
from functools import partial
from typing import Protocol, cast

import attrs
import trio

from hyperwatch.errors import DataError, HyperwatchError
from hyperwatch.ingest.watcher import DirectoryWatcher
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.node.decoder import Need
from hyperwatch.replay.formats import OutputFormat, Piece, formatter
from hyperwatch.replay.plan import Job, Report
from hyperwatch.service.service import stop_on_signals

__all__ = ["play"]

_BLOCK_BYTES = 1024 * 1024
_BLOCK_S = 0.05  # a filter that matches little fills no block; progress and the pace want to know all the same
_LAST_S = 1.0  # for what is in the pipeline at a signal; who reads nothing any more does not get it


class _Raw(Protocol):
    """An unbuffered file."""

    def fileno(self) -> int: ...
    def write(self, data: memoryview, /) -> int | None: ...


@attrs.frozen
class _Block:
    data: bytes
    events: int


async def play(job: Job, form: OutputFormat, report: Report, watch: DirectoryWatcher | None = None) -> None:
    """Plays a job to its end, a signal, or the end of who reads standard output.

    Args:
        job: what.
        form: in which format.
        report: is kept.
        watch: tells when the log has grown; None: it does not grow.

    Raises:
        HyperwatchError: where standard output cannot be written.
    """
    async with trio.open_nursery() as nursery:
        blocks_out, blocks_in = trio.open_memory_channel[_Block](0)
        source = _Source(job, form, report, watch)
        writing = trio.CancelScope()

        def stop() -> None:
            report.interrupted = True
            source.reading.cancel("a signal")
            writing.deadline = trio.current_time() + _LAST_S

        nursery.start_soon(partial(stop_on_signals, stop))
        async with trio.open_nursery() as work:
            work.start_soon(source.run, blocks_out)
            with writing:
                report.cut = not await _write_all(blocks_in, report)
            work.cancel_scope.cancel("nothing more is written")
        nursery.cancel_scope.cancel("the end")


class _Source:
    """Reads and formats."""

    def __init__(self, job: Job, form: OutputFormat, report: Report, watch: DirectoryWatcher | None) -> None:
        self._job = job
        self._format = formatter(form, job.wanted, job.log.layout)
        self._report = report
        self._watch = watch
        self._over = False
        self.reading = trio.CancelScope()

    async def run(self, blocks: trio.MemorySendChannel[_Block]) -> None:
        """Sends blocks until the log has ended, the bounds are reached or `reading` is cancelled."""
        # Closed without a checkpoint: there the end of writing, which cancels this, would take the place of an error.
        with blocks, self.reading:
            try:
                await self._read(blocks)
            except DataError as error:
                self._report.fault = error  # what was read before goes out first

    async def _read(self, blocks: trio.MemorySendChannel[_Block]) -> None:
        reader = await trio.to_thread.run_sync(_open, self._job)
        try:
            while not self._over:
                pieces, ended = await trio.to_thread.run_sync(self._fill, reader)
                await self._send(pieces, blocks)
                if ended and self._watch is None:
                    return
                if ended and self._watch is not None:
                    self._watch.follow(self._job.log.directories(place.file for place in reader.cursor.places))
                    if await self._watch.wait():
                        reader.look_again()
        finally:
            reader.close()

    def _fill(self, reader: BatchReader) -> tuple[list[Piece], bool]:
        """In a thread: (about a block of output, whether the log has ended for now)."""
        pieces: list[Piece] = []
        size, until_s = 0, time.monotonic() + _BLOCK_S
        while size < _BLOCK_BYTES and time.monotonic() < until_s:
            try:
                span = reader.take()
            except OSError as error:
                what = f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"
                raise DataError(what, "see that the disk is well and the file still there") from error
            if span is None:
                return pieces, True
            batch = reader.decode(span, trio.from_thread.check_cancelled)
            self._report.count(batch)
            if self._job.wanted.bounds.behind(batch):
                self._over = True
                return pieces, True
            if not self._job.wanted.filter.everything:
                self._report.count_unkeyed(batch)
            more = list(self._format(span, batch))
            size += sum(len(piece.data) for piece in more)
            pieces += more
        return pieces, False

    async def _send(self, pieces: list[Piece], blocks: trio.MemorySendChannel[_Block]) -> None:
        while pieces:
            count = len(pieces)
            if self._job.pace is not None:
                await trio.sleep(self._job.pace.wait_s(pieces[0].time_ms, trio.current_time()))
                now_s = trio.current_time()
                waiting = (number for number in range(1, count) if self._job.pace.wait_s(pieces[number].time_ms, now_s))
                count = next(waiting, count)
            due, pieces = pieces[:count], pieces[count:]
            await blocks.send(_Block(b"".join(piece.data for piece in due), sum(piece.events for piece in due)))


def _open(job: Job) -> BatchReader:
    return BatchReader(job.log, job.start, Need.EACH if job.wanted.filter.everything else Need.FEW)


async def _write_all(blocks: trio.MemoryReceiveChannel[_Block], report: Report) -> bool:
    """Returns False where nobody reads any more."""
    out = sys.stdout.buffer
    raw = cast("_Raw", getattr(out, "raw", out))  # whole blocks: a buffer would only copy them, and keep the last
    async for block in blocks:
        try:
            # Abandoned where it is cancelled: a pipe that nobody empties would hold it for ever.
            await trio.to_thread.run_sync(_write, raw, block.data, abandon_on_cancel=True)
        except BrokenPipeError:
            return False
        except OSError as error:
            what = f"standard output cannot be written ({error.strerror or error})"
            raise HyperwatchError(what, "see that there is room where it goes to") from error
        report.written += block.events
    return True


def _write(out: _Raw, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        taken = out.write(rest)
        if taken is None:  # somebody made it non-blocking, and it is full
            select.select([], [out], [], 0.1)
        else:
            rest = rest[taken:]
