"""Batches: what was taken from the files at once, first as bytes (Span), then as events (Batch). Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import attrs

from hyperwatch.log.cursor import BEFORE_BYTES, Cursor, FilePlace
from hyperwatch.log.gaps import FILE_REMOVED, LATE_FILE, MISSING_BLOCKS, UNREADABLE, Gap
from hyperwatch.log.repeats import Repeats
from hyperwatch.node.events import BYTES_KEPT, Decoder, Need
from hyperwatch.node.lines import pieces
from hyperwatch.node.runs import Damage, Run
from hyperwatch.node.streams import Layout, Stream
from hyperwatch.node.times import ms_of
from hyperwatch.node.trades import Paired

__all__ = ["Batch", "Decoded", "Decoding", "Entry", "Span", "assemble", "decode"]

_LOOKED_AHEAD = 5  # runs: of those that come first in a log, most are right
_ENTRY_BYTES = 2000  # of an entry without any, with its cursors
_EVENT_BYTES = 600  # at most: what the objects of one decoded event take beside its bytes, and its positions by coin and account (tracemalloc: 550 to 580)


@attrs.frozen
class Span:
    """Whole lines of one file."""

    file: str
    head: str
    """What its first line is known by."""
    offset: int
    data: bytes
    places: tuple[FilePlace, ...]
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
    damage: tuple[Damage, ...] = ()
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
        return self.offset + len(self.data) + sum(line.length_bytes for line in self.damage)

    @property
    def file_before(self) -> str | None:
        """The open file before this one."""
        return self.places[self.number - 1].file if self.number else None

    def after(self, offset: int, taken: int) -> tuple[FilePlace, ...]:
        """Where every open file stands when this one has been read up to there."""
        older, newer = self.places[: self.number], self.places[self.number :]
        if newer and newer[0].file == self.file:
            newer = newer[1:]
        length = offset - self.offset
        before = self.data[max(0, length - BEFORE_BYTES) : length]
        if length < BEFORE_BYTES and self.before:
            before = (self.before + before)[-BEFORE_BYTES:]
        if self.damage:
            before = b""  # nothing was read of what is too long
        return (*older, FilePlace(self.file, offset, taken, self.head, before), *newer)

    def from_line(self, length: int) -> Span:
        """What is left of it behind its first so many bytes, which are whole lines."""
        places = self.after(self.offset + length, 0)
        (before,) = (place.before for place in places if place.file == self.file)
        return attrs.evolve(
            self, offset=self.offset + length, data=self.data[length:], places=places, skip=0, before=before
        )


@attrs.frozen
class Decoded:
    """What one chunk of a span came to."""

    runs: list[Run]
    damage: list[Damage]
    lines: int


@attrs.frozen(eq=False)
class Entry:
    """A run with its places: in its block and in the log."""

    run: Run
    first: int
    """The place of its first event in the block."""
    before: Cursor
    after: Cursor
    late: bool
    read_ms: int
    gaps: tuple[Gap, ...] = ()
    """What is missing right before it."""
    repeated: int = 0
    """How many events at its start were left out, for they had been read before."""
    paired: Paired | None = None
    """Of fills, once they have been paired: the trades that became complete here."""


@attrs.frozen(eq=False)
class Batch:
    """The events of one span, in the node's order."""

    stream: str
    file: str
    before: Cursor
    after: Cursor
    entries: list[Entry]
    damage: list[Damage]
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
    span: Span,
    cut: tuple[int, int],
    pause: Callable[[], None],
    *,
    need: Need = Need.EACH,
) -> Decoded:
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

    def __init__(self, stream: Stream, layout: Layout, span: Span, cut: tuple[int, int], need: Need) -> None:
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
    def result(self) -> Decoded:
        """What it has come to."""
        return Decoded(self._decoder.runs, self._decoder.damage, self._decoder.lines)


def assemble(stream: Stream, directory: str, span: Span, chunks: Sequence[Decoded], repeats: Repeats) -> Batch:
    """Puts a span's chunks together, in order, gives every event its place, and leaves out what was read before.

    Args:
        stream: what they hold.
        directory: its directory, for cursors.
        span: the lines.
        chunks: what they came to.
        repeats: what was read before; is kept up to date.
    """
    if span.anew:
        repeats.begin_again(span.file)
    elif span.late and not span.offset and not span.skip:
        repeats.begin_late(span.file, span.file_before)
    if repeats.is_new and chunks:
        repeats.prime(chunks[0].runs[:_LOOKED_AHEAD])
    made = _Assembly(stream, directory, span, repeats)
    made.lose_files()
    for damage in span.damage:
        made.damage(damage)
    for chunk in chunks:
        lost = deque(chunk.damage)
        for number, run in enumerate(chunk.runs):
            while lost and lost[0].run == number:
                made.damage(lost.popleft())
            made.add(run)
        for damage in lost:
            made.damage(damage)
    return made.batch(sum(chunk.lines for chunk in chunks))


class _Assembly:
    """A batch in the making."""

    def __init__(self, stream: Stream, directory: str, span: Span, repeats: Repeats) -> None:
        self._stream = stream
        self._directory = directory
        self._span = span
        self._repeats = repeats
        self._restarts = repeats.restarts
        self._before = self._cursor_at = self._cursor(span.places)
        self._entries: list[Entry] = []
        self._gaps: list[Gap] = []  # before the next entry
        self._damage: list[Damage] = []
        self._repeated = 0
        self._line_begin: int | None = None

    def add(self, run: Run) -> None:
        """The next events, or the next block without any."""
        doubt = self._repeats.suspicion(self._span.file, run)
        if doubt is not None:
            self._set_aside(run, doubt.reason)
            return
        last = self._repeats.block
        if run.fresh and last is not None and run.block is not None and run.block > last + 1:
            seen = attrs.evolve(self._cursor_at, block=run.block, time=run.time, count=0)
            where = f"blocks {last + 1} to {run.block - 1}"
            self._gaps.append(Gap(self._stream.name, MISSING_BLOCKS, self._cursor_at, seen, where))
        verdict = self._repeats.judge(self._span.file, run)
        self._repeated += verdict.repeated
        if verdict.repeated:
            count = run.count
            run = run.part(verdict.repeated, count, run.size_bytes if verdict.repeated < count else 0)
        first = verdict.first + verdict.repeated
        self._append(run, first, self._span.after(run.end, run.taken), verdict.repeated)

    def lose_files(self) -> None:
        """Names the files that cannot be delivered, before everything else."""
        for name in self._span.missed:
            self.lose(FILE_REMOVED, self._span.places, f"{name}, removed before it was read")
        for name in self._span.too_late:
            where = f"{name}, which appeared long after a newer file"
            self.lose(LATE_FILE, self._span.places, where, readable=True)

    def damage(self, damage: Damage) -> None:
        """Lines that could not be read come next."""
        self._damage.append(damage)
        end = damage.offset + damage.length_bytes
        where = f"{self._span.file}, {damage.length_bytes} bytes at {damage.offset}"
        self.lose(UNREADABLE, self._span.after(end, 0), where)

    def _set_aside(self, run: Run, reason: str) -> None:
        """Names a run that is not believed. Of a line that was cut into several runs that is done with its last one."""
        begin = self._line_begin if self._line_begin is not None else max(self._span.offset, run.end - run.size_bytes)
        if run.taken:
            self._line_begin = run.end  # where the line begins that this run is a part of
            return
        self._line_begin = None
        data = self._span.data[begin - self._span.offset : run.end - self._span.offset]
        lines = 1 if run.fresh else run.count
        self.damage(Damage(begin, len(data), reason, data[:BYTES_KEPT], lines=lines))

    def lose(self, reason: str, after: tuple[FilePlace, ...], where: str, *, readable: bool = False) -> None:
        """Something that cannot be delivered comes next."""
        self._gaps.append(Gap(self._stream.name, reason, self._cursor_at, self._cursor(after), where, readable))

    def batch(self, lines: int) -> Batch:
        """All of it."""
        if self._gaps:
            self._append(_nothing(self._stream, self._span, self._repeats), 0, self._span.after(self._span.end, 0))
        events = sum(entry.run.count for entry in self._entries)
        return Batch(
            stream=self._stream.name,
            file=self._span.file,
            before=self._before,
            after=attrs.evolve(self._cursor_at, places=self._span.after(self._span.end, 0)),
            entries=self._entries,
            damage=self._damage,
            lines=lines + len(self._span.damage),
            events=events,
            repeated=self._repeated,
            weight_bytes=len(self._span.data) + events * _EVENT_BYTES + (len(self._entries) + 1) * _ENTRY_BYTES,
            restarts=self._repeats.restarts - self._restarts,
        )

    def _append(self, run: Run, first: int, places: tuple[FilePlace, ...], repeated: int = 0) -> None:
        after = self._cursor(places)
        gaps, self._gaps = tuple(self._gaps), []
        span = self._span
        self._entries.append(Entry(run, first, self._cursor_at, after, span.late, span.read_ms, gaps, repeated))
        self._cursor_at = after

    def _cursor(self, places: tuple[FilePlace, ...]) -> Cursor:
        known = self._repeats
        return Cursor(self._directory, places, known.block, known.time, known.count)


def _nothing(stream: Stream, span: Span, repeats: Repeats) -> Run:
    """A run without events, for gaps at the end of a span."""
    return Run(stream, repeats.block, repeats.time, ms_of(repeats.time), "", False, 0, 0, 0, span.end, 0)
