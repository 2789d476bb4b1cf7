"""Lines of one event each that have been read, but not cut: most of their events may be wanted by nobody."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import msgspec

from hyperwatch.node.envelopes import Envelope
from hyperwatch.node.json_lines import again

__all__ = ["InLines"]


@attrs.define(eq=False)
class InLines:
    """Consecutive lines of the streaming layout, whole, each with the envelope of its one event."""

    pieces: list[bytes]
    """Of whole lines."""
    counts: list[int]
    """How many lines each piece has."""
    _starts: dict[int, list[int]] = attrs.field(factory=dict, init=False, repr=False)
    """Where the lines of a piece begin, and where the last one ends: of those that were looked into."""

    def __len__(self) -> int:
        return sum(self.counts)

    def add(self, more: InLines) -> None:
        """Lines that follow."""
        self.pieces += more.pieces
        self.counts += more.counts

    def all(self) -> list[msgspec.Raw]:
        """All events, one by one."""
        return [event for piece in self.pieces for event in _events_of(piece[:-1].replace(b"\n", b","))]

    def some(self, positions: Sequence[int]) -> list[msgspec.Raw]:
        """Those at some positions in ascending order."""
        lines = []
        piece, first = 0, 0
        for position in positions:
            while position - first >= self.counts[piece]:
                first += self.counts[piece]
                piece += 1
            start, end = self._line(piece, position - first)
            lines.append(self.pieces[piece][start:end])
        return _events_of(b",".join(lines))

    def _line(self, piece: int, number: int) -> tuple[int, int]:
        starts = self._starts.get(piece)
        if starts is None:
            starts = self._starts[piece] = _starts_in(self.pieces[piece])
        return starts[number], starts[number + 1] - 1


_LINES = msgspec.json.Decoder(list[Envelope[msgspec.Raw]])


def _events_of(lines: bytes) -> list[msgspec.Raw]:
    """Of lines with commas between, which have been read before."""
    return [envelope.events[0] for envelope in again(_LINES, b"[%b]" % lines)]


def _starts_in(piece: bytes) -> list[int]:
    """A fifth of what it takes to split the piece."""
    index, start, starts = piece.index, 0, [0]
    while start < len(piece):
        start = index(b"\n", start) + 1
        starts.append(start)
    return starts
