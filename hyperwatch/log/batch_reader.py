"""Reading the log from any cursor: what serves the past to clients, and recordings to `replay`. Blocking I/O."""

from __future__ import annotations

from collections.abc import Callable

from loguru import logger

from hyperwatch.log.batches import Batch, DecodedChunk, Decoding, RawBatch, assemble
from hyperwatch.log.dedupe import Deduplicator
from hyperwatch.log.line_reader import LineReader
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.resume import resume
from hyperwatch.log.tree import Log
from hyperwatch.node.decoder import Need

__all__ = ["READ_BYTES", "BatchReader"]

READ_BYTES = 256 * 1024  # a thread hop costs 84 us, decoding this 700 us; and it is what one slow client may hold


class BatchReader:
    """A cursor that reads. Call its methods in a thread, one at a time.

    Args:
        log: the files.
        start_point: where to begin. Where its files are not what they were, reading begins at its block.
        need: what will be asked for.
        say: is told of files that are passed over, in words; by default the log.

    Raises:
        CursorError: where it is a cursor of another stream.
        OSError: where a file cannot be opened.
        DataError: where a directory cannot be read.
    """

    def __init__(
        self, log: Log, start_point: Cursor, need: Need = Need.EACH, say: Callable[[str], object] = logger.error
    ) -> None:
        start = resume(log, start_point)
        self._log = log
        self._need = need
        self.start = start.cursor
        """The start point, in the words of this log's files."""
        self._directory = start.cursor.directory
        self._walk = LineReader(log, start.cursor.places, say=say)
        self._deduplicator = Deduplicator(start.cursor, start.passages)
        self.gap = start.gap
        """What the cursor would have had, and is gone."""
        self.read_bytes = 0
        """What was taken from the files last."""

    @property
    def cursor(self) -> Cursor:
        """Where the next batch begins."""
        known = self._deduplicator
        return Cursor(self._directory, self._walk.places, known.block, known.time, known.count)

    def next(self, until: Cursor | None, pause: Callable[[], None], size_bytes: int = READ_BYTES) -> Batch | None:
        """The next batch, of about `size_bytes`, or None at `until` or at the log's present end.

        Raises:
            OSError: from the files.
            DataError: where a directory cannot be read or a recording is damaged.
        """
        span = self.take(until, size_bytes)
        return None if span is None else self.decode(span, pause)

    def take(self, until: Cursor | None = None, size_bytes: int = READ_BYTES) -> RawBatch | None:
        """The first half of `next`, for who wants the lines themselves: they are decoded next. Raises as `next` does."""
        return self._taken(self._walk.take(size_bytes, until))

    def take_cached(self, until: Cursor | None, size_bytes: int) -> RawBatch | None:
        """The same without a thread: None where `take` must be asked. What it takes is decoded next."""
        try:
            return self._taken(self._walk.take_cached(size_bytes, until))
        except BlockingIOError:
            return None

    def decode(self, span: RawBatch, pause: Callable[[], None]) -> Batch:
        """The second half: a span's events."""
        work = self.decoding(span)
        for _ in work:
            pause()
        return self.assemble(span, work.result)

    def decoding(self, span: RawBatch) -> Decoding:
        """The second half by steps; `assemble` follows."""
        cut = 0, len(span.data)
        return Decoding(self._log.stream, self._log.layout, span, cut, self._need)

    def assemble(self, span: RawBatch, decoded: DecodedChunk) -> Batch:
        """What a span came to, in its places."""
        return assemble(self._log.stream, self._directory, span, [decoded], self._deduplicator)

    def _taken(self, span: RawBatch | None) -> RawBatch | None:
        self.read_bytes = 0 if span is None else span.end - span.offset
        return span

    def look_again(self) -> None:
        """A file may have appeared: look at the next call."""
        self._walk.look_again()

    def close(self) -> None:
        """Lets the files go."""
        self._walk.close()
