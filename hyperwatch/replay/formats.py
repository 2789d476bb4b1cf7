"""What a batch looks like on standard output: the node's events, its lines, or flat objects. Pure.

Everything that the node wrote goes out byte for byte.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import attrs
import msgspec

from hyperwatch.feed.filters.orders import OrderFilter
from hyperwatch.feed.routing import positions_for
from hyperwatch.log.batches import Batch, Entry, RawBatch
from hyperwatch.node.envelopes import bare, envelope_of
from hyperwatch.node.streams import ORDERS, Layout, Stream
from hyperwatch.replay.range import Bounds

__all__ = ["Formatter", "OutputFormat", "Piece", "Selection", "formatter"]


class OutputFormat(enum.Enum):
    """The formats, as options spell them."""

    EVENTS = "events"
    LINES = "lines"
    FLAT = "flat"


@attrs.frozen
class Piece:
    """Output of one block time."""

    time_ms: int | None
    """UTC; None where the stream has no times."""
    data: bytes
    """Whole lines."""
    events: int
    """How many wanted events it holds."""


Formatter = Callable[[RawBatch, Batch], Iterator[Piece]]


@attrs.frozen
class Selection:
    """Which events are wanted."""

    stream: Stream
    bounds: Bounds = attrs.Factory(Bounds)
    filter: OrderFilter = attrs.Factory(OrderFilter)
    """Of other streams than order statuses only its coins and users are looked at."""

    def of(self, entry: Entry) -> Sequence[int]:
        """The positions of the wanted events among a run's."""
        if not self.bounds.hold(entry.slice):
            return ()
        if self.filter.everything:
            return range(entry.slice.count)
        if self.stream is ORDERS:
            return self.filter.select(entry.slice)
        return positions_for(entry.slice, self.filter.coins, self.filter.dexes, self.filter.users)


def formatter(form: OutputFormat, wanted: Selection, layout: Layout) -> Formatter:
    """The function that turns a span and the batch decoded of it into output."""
    if form is OutputFormat.EVENTS or (form is OutputFormat.LINES and layout is Layout.PLAIN):
        return _Events(wanted)
    return _Lines(wanted, layout) if form is OutputFormat.LINES else _Flat(wanted, layout)


@attrs.frozen
class _Events:
    wanted: Selection

    def __call__(self, span: RawBatch, batch: Batch) -> Iterator[Piece]:  # noqa: ARG002  events are all that it takes
        for entry in batch.entries:
            if chosen := self.wanted.of(entry):
                slice_ = entry.slice
                events = slice_.events if len(chosen) == slice_.count else slice_.some(chosen)
                # The type says iterables of bytes; any buffer will do, and a copy of each event would cost 20 %.
                yield Piece(entry.slice.time_ms, b"\n".join(cast("list[bytes]", [*events, b""])), len(chosen))


@attrs.define
class _Lines:
    """Envelopes that hold a wanted event; without a filter also those that hold none."""

    wanted: Selection
    layout: Layout
    _carried: int = 0
    """Wanted events of a line so long that it makes several runs, before its last one."""

    def __call__(self, span: RawBatch, batch: Batch) -> Iterator[Piece]:
        for entry, lines in _with_lines(span, batch):
            chosen = self.wanted.of(entry)
            if not lines:
                self._carried += len(chosen)
                continue
            carried, self._carried = self._carried, 0
            if holding := self._choose(entry, lines, chosen, carried):
                yield Piece(entry.slice.time_ms, b"\n".join([*holding, b""]), len(chosen) + carried)

    def _choose(self, entry: Entry, lines: list[bytes], chosen: Sequence[int], carried: int) -> list[bytes]:
        if self.wanted.filter.everything:
            repeat = entry.repeated and not entry.slice.count
            return lines if self.wanted.bounds.hold(entry.slice) and not repeat else []
        if len(lines) > 1:
            return _holding(lines, entry.slice.count, chosen, first_line=carried > 0)
        return lines if chosen or carried else []


@attrs.frozen
class _Flat:
    """One object an event, with what the envelope and the event's place say."""

    wanted: Selection
    layout: Layout

    def __call__(self, span: RawBatch, batch: Batch) -> Iterator[Piece]:
        for entry, lines in _with_lines(span, batch):
            if chosen := self.wanted.of(entry):
                yield Piece(entry.slice.time_ms, self._objects(entry, lines, chosen), len(chosen))

    def _objects(self, entry: Entry, lines: list[bytes], chosen: Sequence[int]) -> bytes:
        slice_ = entry.slice
        plain = self.layout is Layout.PLAIN
        front = b'{"stream":"%s","block_number":%s,"block_time":%s,"local_time":' % (
            self.wanted.stream.name.encode(),
            b"null" if slice_.block is None else b"%d" % slice_.block,
            b"null" if plain else msgspec.json.encode(slice_.time),
        )
        if plain:
            fronts = [front + b'null,"index":'] * slice_.count
        elif len(lines) <= 1:  # of a line that makes several runs, the first ones have none
            fronts = [front + _text(slice_.written) + b',"index":'] * slice_.count
        else:
            fronts = []
            for envelope in map(envelope_of, filter(bare, lines)):
                own = front + _text(envelope.local_time) + b',"index":'
                fronts += [own] * len(envelope.events)
            del fronts[: len(fronts) - slice_.count]  # in a run before this one, or repeats
        return b"".join(
            b'%s%d,"event":%s}\n' % (fronts[number], entry.first_index + number, event)
            for number, event in zip(chosen, slice_.some(chosen), strict=True)
        )


def _text(time: str) -> bytes:
    return msgspec.json.encode(time or None)


def _with_lines(span: RawBatch, batch: Batch) -> Iterator[tuple[Entry, list[bytes]]]:
    """Each entry with the lines that end in it, damaged ones left out, without their ends."""
    # What is damaged may be no more than the beginning of a line: behind a tear the next one goes on.
    damaged = deque(sorted((unreadable.offset, unreadable.length_bytes) for unreadable in batch.unreadable))
    start = span.offset
    for entry in batch.entries:
        whole = []
        while damaged and damaged[0][0] < entry.slice.end:
            offset, length_bytes = damaged.popleft()
            if offset >= start:
                whole.append(span.data[start - span.offset : offset - span.offset])
                start = offset + length_bytes
        whole.append(span.data[start - span.offset : entry.slice.end - span.offset])
        yield entry, b"".join(whole).split(b"\n")[:-1]
        start = entry.slice.end


def _holding(lines: list[bytes], count: int, chosen: Sequence[int], *, first_line: bool) -> list[bytes]:
    """The lines that hold the chosen events.

    Args:
        lines: of one run, more than one.
        count: how many of the lines' events are in the run. The first ones may be in one before it, or repeats.
        chosen: positions among the run's events.
        first_line: whether the first line is wanted for one of those.
    """
    counts = [len(envelope_of(line).events) if bare(line) else 0 for line in lines]
    holding, wanted, place = [], set(chosen), count - sum(counts)
    for line, events in zip(lines, counts, strict=True):
        after = place + events
        if first_line or not wanted.isdisjoint(range(place, after)):
            holding.append(line)
        place, first_line = after, False
    return holding
