"""Batches: what was taken from the files at once, first as bytes (Span), then as events (Batch). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from hyperwatch.log.cursor import Cursor, FilePlace
from hyperwatch.log.places import Places
from hyperwatch.node.events import Damage, Decoder, Run
from hyperwatch.node.lines import pieces
from hyperwatch.node.streams import Layout, Stream

__all__ = ["Batch", "Decoded", "Entry", "Span", "assemble", "decode"]

_EVENT_BYTES = 540  # what the objects of one decoded event take beside its bytes (tracemalloc: 515 to 538)


@attrs.frozen
class Span:
    """Whole lines of one file."""

    file: str
    offset: int
    data: bytes
    places: tuple[FilePlace, ...]
    """Where every open file stood before, oldest first; `file` is one of them."""
    skip: int
    """How many events of the first line were taken before."""
    late: bool
    """Whether the lines appeared in an hour file after a newer one existed."""
    read_ms: int
    """When they were read, UTC."""
    damage: tuple[Damage, ...] = ()
    """Lines that are too long to be read; `data` is empty then."""

    @property
    def end(self) -> int:
        """Where the next line starts."""
        return self.offset + len(self.data) + sum(line.length_bytes for line in self.damage)

    def after(self, offset: int, taken: int) -> tuple[FilePlace, ...]:
        """Where every open file stands when this one has been read up to there."""
        return tuple(FilePlace(self.file, offset, taken) if place.file == self.file else place for place in self.places)


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


@attrs.frozen(eq=False)
class Batch:
    """The events of one span, in the node's order."""

    file: str
    before: Cursor
    after: Cursor
    entries: list[Entry]
    damage: list[Damage]
    lines: int
    events: int
    weight_bytes: int
    """About what it takes in memory."""


def decode(stream: Stream, layout: Layout, span: Span, cut: tuple[int, int], pause: Callable[[], None]) -> Decoded:
    """Decodes one chunk of a span, calling `pause` between pieces: there a worker may be cancelled and lets others run.

    Args:
        stream: what the lines hold.
        layout: how they hold it.
        span: the lines.
        cut: start and end of the chunk in the span's data.
        pause: may raise to end the work.
    """
    start, end = cut
    decoder = Decoder(stream, layout, span.offset + start, 0 if start else span.skip)
    for piece_start, piece_end in pieces(span.data, start, end):
        decoder.feed(span.data[piece_start:piece_end])
        pause()
    return Decoded(decoder.runs, decoder.damage, decoder.lines)


def assemble(directory: str, span: Span, chunks: Sequence[Decoded], places: Places) -> Batch:
    """Puts a span's chunks together, in order, and gives every event its place."""
    before = cursor = Cursor(directory, span.places, places.block, places.count)
    entries = []
    for chunk in chunks:
        for run in chunk.runs:
            first = places.place(run)
            after = Cursor(directory, span.after(run.end, run.taken), places.block, places.count)
            entries.append(Entry(run, first, cursor, after, span.late, span.read_ms))
            cursor = after
    events = sum(len(entry.run.events) for entry in entries)
    return Batch(
        file=span.file,
        before=before,
        after=attrs.evolve(cursor, places=span.after(span.end, 0)),
        entries=entries,
        damage=[*span.damage, *(damage for chunk in chunks for damage in chunk.damage)],
        lines=sum(chunk.lines for chunk in chunks) + len(span.damage),
        events=events,
        weight_bytes=len(span.data) + events * _EVENT_BYTES,
    )
