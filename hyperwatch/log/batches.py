"""Batches: what was taken from the files at once, first as bytes (RawBatch), then as events (Batch). Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import attrs

from hyperwatch.derive.trades import PairedTrades
from hyperwatch.log.dedupe import Deduplicator
from hyperwatch.log.gaps import FILE_REMOVED, LATE_FILE, MISSING_BLOCKS, UNREADABLE, Gap
from hyperwatch.log.positions import BEFORE_BYTES, Cursor, FilePosition
from hyperwatch.node.cuts import pieces
from hyperwatch.node.decoder import BYTES_KEPT, Decoder, Need
from hyperwatch.node.slices import BlockSlice, UnreadableLine
from hyperwatch.node.streams import Layout, Stream
from hyperwatch.node.times import ms_of

__all__ = ["MESSAGE_BYTES", "Batch", "DecodedChunk", "Decoding", "Entry", "RawBatch", "assemble", "decode"]

MESSAGE_BYTES = 1024 * 1024 - 1024  # every client library's default limit is 1 MiB; the rest is for id and seq

_AROUND_BYTES = 2048  # the longest that stands around the events: cursor, numbers, channel, id and seq
_LOOKED_AHEAD = 5  # runs: of those that come first in a log, most are right
_ENTRY_BYTES = 2000  # of an entry without any, with its cursors
_EVENT_BYTES = 600  # at most: what the objects of one decoded event take beside its bytes, and its positions by coin and account (tracemalloc: 550 to 580)


@attrs.frozen
class RawBatch:
    """Whole lines of one file."""

    file: str
    head: str
    """What its first line is known by."""
    offset: int
    data: bytes
    places: tuple[FilePosition, ...]
    """Where every open file stood before, oldest first. A late file that nothing was read of is not among them."""
    number: int
    """Which of them `file` is, or where it belongs."""
    skip: int
    """How many events of the first line were taken before."""
    anew: bool
    """Whether the file was truncated or replaced, and this is its start."""
    late: bool
    """Whether the lines appeared in an hour file after a newer one existed."""
    read_ms: int
    """When they were read, UTC."""
    unreadable: tuple[UnreadableLine, ...] = ()
    """Lines that are too long to be read; `data` is empty then."""
    missed: tuple[str, ...] = ()
    """Files before this one that were removed before they were read."""
    too_late: tuple[str, ...] = ()
    """Older files that appeared when they were not waited for any more."""
    before: bytes = b""
    """What stands before the lines in the file, as far as a place knows it."""

    @property
    def end(self) -> int:
        """Where the next line starts."""
        return self.offset + len(self.data) + sum(line.length_bytes for line in self.unreadable)

    @property
    def file_before(self) -> str | None:
        """The open file before this one."""
        return self.places[self.number - 1].file if self.number else None

    def after(self, offset: int, taken: int) -> tuple[FilePosition, ...]:
        """Where every open file stands when this one has been read up to there."""
        older, newer = self.places[: self.number], self.places[self.number :]
        if newer and newer[0].file == self.file:
            newer = newer[1:]
        length = offset - self.offset
        before = self.data[max(0, length - BEFORE_BYTES) : length]
        if length < BEFORE_BYTES and self.before:
            before = (self.before + before)[-BEFORE_BYTES:]
        if self.unreadable:
            before = b""  # nothing was read of what is too long
        return (*older, FilePosition(self.file, offset, taken, self.head, before), *newer)

    def from_line(self, length: int) -> RawBatch:
        """What is left of it behind its first so many bytes, which are whole lines."""
        places = self.after(self.offset + length, 0)
        (before,) = (place.before for place in places if place.file == self.file)
        return attrs.evolve(
            self, offset=self.offset + length, data=self.data[length:], places=places, skip=0, before=before
        )


@attrs.frozen
class DecodedChunk:
    """What one chunk of a span came to."""

    slices: list[BlockSlice]
    unreadable: list[UnreadableLine]
    lines: int


@attrs.frozen(eq=False)
class Entry:
    """A run with its places: in its block and in the log."""

    slice: BlockSlice
    first_index: int
    """The place of its first event in the block."""
    before: Cursor
    after: Cursor
    late: bool
    read_ms: int
    gaps: tuple[Gap, ...] = ()
    """What is missing right before it."""
    repeated: int = 0
    """How many events at its start were left out, for they had been read before."""
    paired: PairedTrades | None = None
    """Of fills, once they have been paired: the trades that became complete here."""

    @property
    def too_large(self) -> bool:
        """Whether it is an event that alone exceeds a message: who wants it hears a gap in its place."""
        return self.slice.size_bytes + _AROUND_BYTES > MESSAGE_BYTES and self.slice.count == 1


@attrs.frozen(eq=False)
class Batch:
    """The events of one span, in the node's order."""

    stream: str
    file: str
    before: Cursor
    after: Cursor
    entries: list[Entry]
    unreadable: list[UnreadableLine]
    lines: int
    events: int
    """Without those that were repeats."""
    repeated: int
    """Events that the node wrote a second time: left out."""
    weight_bytes: int
    """About what it takes in memory."""
    restarts: int = 0
    """How often the node went back within it."""


def decode(
    stream: Stream,
    layout: Layout,
    span: RawBatch,
    cut: tuple[int, int],
    pause: Callable[[], None],
    *,
    need: Need = Need.EACH,
) -> DecodedChunk:
    """Decodes one chunk of a span, calling `pause` between pieces: there a worker may be cancelled and lets others run.

    Args:
        stream: what the lines hold.
        layout: how they hold it.
        span: the lines.
        cut: start and end of the chunk in the span's data.
        pause: may raise to end the work.
        need: what will be asked for.
    """
    work = Decoding(stream, layout, span, cut, need)
    for _ in work:
        pause()
    return work.result


class Decoding:
    """The same by steps, a piece each: iterate over it, then take its result."""

    def __init__(self, stream: Stream, layout: Layout, span: RawBatch, cut: tuple[int, int], need: Need) -> None:
        start, end = cut
        self._data = span.data
        self._pieces = pieces(span.data, start, end)
        skip = 0 if start else span.skip
        self._decoder = Decoder(stream, layout, span.offset + start, skip, need)

    def __iter__(self) -> Iterator[None]:
        for start, end in self._pieces:
            self._decoder.feed(self._data[start:end])
            yield

    @property
    def result(self) -> DecodedChunk:
        """What it has come to."""
        return DecodedChunk(self._decoder.slices, self._decoder.unreadable, self._decoder.lines)


def assemble(
    stream: Stream, directory: str, span: RawBatch, chunks: Sequence[DecodedChunk], deduplicator: Deduplicator
) -> Batch:
    """Puts a span's chunks together, in order, gives every event its place, and leaves out what was read before.

    Args:
        stream: what they hold.
        directory: its directory, for cursors.
        span: the lines.
        chunks: what they came to.
        deduplicator: what was read before; is kept up to date.
    """
    if span.anew:
        deduplicator.begin_again(span.file)
    elif span.late and not span.offset and not span.skip:
        deduplicator.begin_late(span.file, span.file_before)
    if deduplicator.is_new and chunks:
        deduplicator.prime(chunks[0].slices[:_LOOKED_AHEAD])
    made = _Assembly(stream, directory, span, deduplicator)
    made.lose_files()
    for unreadable in span.unreadable:
        made.miss(unreadable)
    for chunk in chunks:
        lost = deque(chunk.unreadable)
        for number, slice_ in enumerate(chunk.slices):
            while lost and lost[0].slice == number:
                made.miss(lost.popleft())
            made.add(slice_)
        for unreadable in lost:
            made.miss(unreadable)
    return made.batch(sum(chunk.lines for chunk in chunks))


class _Assembly:
    """A batch in the making."""

    def __init__(self, stream: Stream, directory: str, span: RawBatch, deduplicator: Deduplicator) -> None:
        self._stream = stream
        self._directory = directory
        self._span = span
        self._deduplicator = deduplicator
        self._restarts = deduplicator.restarts
        self._before = self._cursor_at = self._cursor(span.places)
        self._entries: list[Entry] = []
        self._gaps: list[Gap] = []  # before the next entry
        self._unreadable: list[UnreadableLine] = []
        self._repeated = 0
        self._line_begin: int | None = None

    def add(self, slice_: BlockSlice) -> None:
        """The next events, or the next block without any."""
        doubt = self._deduplicator.suspicion(self._span.file, slice_)
        if doubt is not None:
            self._set_aside(slice_, doubt.reason)
            return
        last = self._deduplicator.block
        if slice_.fresh and last is not None and slice_.block is not None and slice_.block > last + 1:
            seen = attrs.evolve(self._cursor_at, block=slice_.block, time=slice_.time, count=0)
            where = f"blocks {last + 1} to {slice_.block - 1}"
            self._gaps.append(Gap(self._stream.name, MISSING_BLOCKS, self._cursor_at, seen, where))
        verdict = self._deduplicator.place(self._span.file, slice_)
        self._repeated += verdict.repeated
        if verdict.repeated:
            count = slice_.count
            slice_ = slice_.part(verdict.repeated, count, slice_.size_bytes if verdict.repeated < count else 0)
        first = verdict.first + verdict.repeated
        self._append(slice_, first, self._span.after(slice_.end, slice_.taken), verdict.repeated)

    def lose_files(self) -> None:
        """Names the files that cannot be delivered, before everything else."""
        for name in self._span.missed:
            self.lose(FILE_REMOVED, self._span.places, f"{name}, removed before it was read")
        for name in self._span.too_late:
            where = f"{name}, which appeared long after a newer file"
            self.lose(LATE_FILE, self._span.places, where, readable=True)

    def miss(self, line: UnreadableLine) -> None:
        """Lines that could not be read come next."""
        self._unreadable.append(line)
        end = line.offset + line.length_bytes
        where = f"{self._span.file}, {line.length_bytes} bytes at {line.offset}"
        self.lose(UNREADABLE, self._span.after(end, 0), where)

    def _set_aside(self, slice_: BlockSlice, reason: str) -> None:
        """Names a run that is not believed. Of a line that was cut into several runs that is done with its last one."""
        begin = (
            self._line_begin if self._line_begin is not None else max(self._span.offset, slice_.end - slice_.size_bytes)
        )
        if slice_.taken:
            self._line_begin = slice_.end  # where the line begins that this run is a part of
            return
        self._line_begin = None
        data = self._span.data[begin - self._span.offset : slice_.end - self._span.offset]
        lines = 1 if slice_.fresh else slice_.count
        self.miss(UnreadableLine(begin, len(data), reason, data[:BYTES_KEPT], lines=lines))

    def lose(self, reason: str, after: tuple[FilePosition, ...], where: str, *, readable: bool = False) -> None:
        """Something that cannot be delivered comes next."""
        self._gaps.append(Gap(self._stream.name, reason, self._cursor_at, self._cursor(after), where, readable))

    def batch(self, lines: int) -> Batch:
        """All of it."""
        if self._gaps:
            self._append(_nothing(self._stream, self._span, self._deduplicator), 0, self._span.after(self._span.end, 0))
        events = sum(entry.slice.count for entry in self._entries)
        return Batch(
            stream=self._stream.name,
            file=self._span.file,
            before=self._before,
            after=attrs.evolve(self._cursor_at, places=self._span.after(self._span.end, 0)),
            entries=self._entries,
            unreadable=self._unreadable,
            lines=lines + len(self._span.unreadable),
            events=events,
            repeated=self._repeated,
            weight_bytes=len(self._span.data) + events * _EVENT_BYTES + (len(self._entries) + 1) * _ENTRY_BYTES,
            restarts=self._deduplicator.restarts - self._restarts,
        )

    def _append(self, slice_: BlockSlice, first: int, places: tuple[FilePosition, ...], repeated: int = 0) -> None:
        after = self._cursor(places)
        gaps, self._gaps = tuple(self._gaps), []
        span = self._span
        self._entries.append(Entry(slice_, first, self._cursor_at, after, span.late, span.read_ms, gaps, repeated))
        self._cursor_at = after

    def _cursor(self, places: tuple[FilePosition, ...]) -> Cursor:
        known = self._deduplicator
        return Cursor(self._directory, places, known.block, known.time, known.count)


def _nothing(stream: Stream, span: RawBatch, deduplicator: Deduplicator) -> BlockSlice:
    """A run without events, for gaps at the end of a span."""
    return BlockSlice(
        stream, deduplicator.block, deduplicator.time, ms_of(deduplicator.time), "", False, 0, 0, 0, span.end, 0
    )
