"""From lines to events: three layouts, one result.

The node's bytes are kept as they are. Decoded are the envelope and, of each event, the keys that the feed routes by.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs
import msgspec

from hyperwatch.node.keys import Keys
from hyperwatch.node.streams import Layout, Stream
from hyperwatch.node.times import ms_of

__all__ = ["RUN_BYTES", "Damage", "Decoder", "Raw", "Run"]

Raw = msgspec.Raw | bytes
"""An event as the node wrote it: a view into the batch's bytes, or the line itself in the plain layout."""

RUN_BYTES = 512 * 1024  # a message is made of one run and must stay under 1 MiB, every client library's limit

_BYTES_KEPT = 1024 * 1024  # of a damaged line; by position all of it can be found


@attrs.define
class Run:
    """Consecutive events of one block (in the plain layout: of one event time), as far as they were read together."""

    block: int | None
    time: str
    """Block time as the node wrote it; in the plain layout the events' own; "" where the stream has none."""
    time_ms: int | None
    written: str
    """The node's local time of the last line, "" in the plain layout."""
    fresh: bool
    """Whether its first event is known to be the block's first: so at every by-block line, never elsewhere."""
    events: list[Raw]
    """Empty for a block without events, which only the by-block layout writes."""
    keys: list[Keys]
    """As many as `events`."""
    size_bytes: int
    """Of the events."""
    skipped: int
    """How many events of its first line stand before the first one here."""
    end: int
    """Offset in the file of the first line that is not wholly in this run."""
    taken: int
    """How many events of that line are in this run or before it."""
    _users: frozenset[str] | None = attrs.field(default=None, init=False, repr=False, eq=False)
    _coins: frozenset[str] | None = attrs.field(default=None, init=False, repr=False, eq=False)

    @property
    def users(self) -> frozenset[str]:
        """The accounts of its events; looked up once, for however many ask."""
        if self._users is None:
            self._users = frozenset(key.user for key in self.keys)
        return self._users

    @property
    def coins(self) -> frozenset[str]:
        """The coins of its events; looked up once, for however many ask."""
        if self._coins is None:
            self._coins = frozenset(key.coin for key in self.keys)
        return self._coins

    @property
    def written_ms(self) -> int | None:
        """When the node wrote it, UTC; None where it does not say so, or not in a way that can be read."""
        try:
            return ms_of(self.written)
        except ValueError:
            return None


@attrs.frozen
class Damage:
    """Lines that could not be read, by position."""

    offset: int
    length_bytes: int
    reason: str
    data: bytes
    """The bytes themselves; b"" where there were too many to keep."""
    run: int = 0
    """How many of the decoder's runs come before them."""
    lines: int = 1


class _Envelope(msgspec.Struct, gc=False):
    """A line of the by-block and streaming layouts."""

    local_time: str
    block_time: str
    block_number: int
    events: list[msgspec.Raw]


class _Plain(NamedTuple):
    """A line of the plain layout, in the words of the others."""

    local_time: str
    block_time: str
    block_number: int | None
    events: list[bytes]


_OPENING = b'{"local_time":'
_ODD = "not one document a line"

_Row = tuple[_Envelope | _Plain, list[Keys]]

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)

_ENVELOPE: msgspec.json.Decoder[_Envelope] = msgspec.json.Decoder(_Envelope)


class Decoder:
    """Decodes consecutive pieces of one file.

    Args:
        stream: what the file holds.
        layout: how it holds it.
        offset: where in the file the first piece begins.
        skip: how many events of its first line were taken before.

    Attributes:
        runs: the events read so far.
        damage: the lines that could not be read.
        lines: how many lines were seen, damaged ones too.
    """

    def __init__(self, stream: Stream, layout: Layout, offset: int, skip: int = 0) -> None:
        self._keys = stream.keys.decode
        self._layout = layout
        self._opening = stream.opening if layout is Layout.PLAIN else _OPENING
        self._offset = offset
        self._skip = skip
        self._torn = False
        self.runs: list[Run] = []
        self.damage: list[Damage] = []
        self.lines = 0

    def feed(self, piece: bytes) -> None:
        """Decodes whole lines that follow those fed before. Damaged lines are set aside; nothing is raised for them."""
        lines = piece.split(b"\n")
        lines.pop()
        self.lines += len(lines)
        try:
            rows = self._rows(piece, len(lines))
        except _UNREADABLE:
            self._feed_one_by_one(lines)
            return
        for line, row in zip(lines, rows, strict=True):
            self._take(row, len(line) + 1)

    def _feed_one_by_one(self, lines: list[bytes]) -> None:
        for line in lines:
            try:
                (row,) = self._rows(line + b"\n", 1)
                self._take(row, len(line) + 1)
            except _UNREADABLE as error:
                self._take_behind_tear(line, f"{type(error).__name__}: {error}")

    def _take_behind_tear(self, line: bytes, reason: str) -> None:
        """Sets a damaged line aside, but for a whole line at its end.

        A node that dies in the middle of a line goes on behind it, without a newline between.
        """
        offset, opening = self._offset, self._opening
        tear = line.find(opening, 1)
        while tear > 0:
            try:
                (row,) = self._rows(line[tear:] + b"\n", 1)
            except _UNREADABLE:
                tear = line.find(opening, tear + 1)
                continue
            self._set_aside(offset, line[:tear], f"torn; {reason}")
            self._take(row, len(line) + 1)
            return
        self._set_aside(offset, line + b"\n", reason)
        self._offset += len(line) + 1
        self._skip = 0

    def _set_aside(self, offset: int, data: bytes, reason: str) -> None:
        self.damage.append(Damage(offset, len(data), reason, data[:_BYTES_KEPT], len(self.runs)))
        self._torn = True  # the next line begins a run: between the two something is missing

    def _rows(self, piece: bytes, count: int) -> list[_Row]:
        """What each of the piece's lines says; raises one of _UNREADABLE where any of them cannot be read.

        The whole piece goes to the parser at once: its events are then views into the piece, where line by line each
        would keep a copy of its line alive.
        """
        if not piece.isascii():
            piece.decode()  # the parser skips over strings without a look; a text frame may not
        decode = self._keys
        if self._layout is Layout.PLAIN:
            return [_plain_row(event, decode(event)) for event in piece.split(b"\n")[:-1]]
        # The parser takes two documents on a line, one on two lines, and blank lines: a node writes none of these.
        if count > 1 and (piece.count(b"}\n") != count or b"}{" in piece or b"} {" in piece):
            raise ValueError(_ODD)
        envelopes = _ENVELOPE.decode_lines(piece)
        if len(envelopes) != count:
            raise ValueError(_ODD)
        time = None
        rows: list[_Row] = []
        for envelope in envelopes:
            if envelope.block_time != time:
                time = envelope.block_time
                ms_of(time)
            rows.append((envelope, [decode(event) for event in envelope.events]))
        return rows

    def _take(self, row: _Row, length: int) -> None:
        """Adds a line's events to the last run, or begins a new one."""
        envelope, keys = row
        begin, self._offset = self._offset, self._offset + length
        alone = self._layout is Layout.BY_BLOCK or self._skip or self._torn
        last = self.runs[-1] if self.runs and not alone else None
        if (
            last
            and last.block == envelope.block_number
            and last.time == envelope.block_time
            and last.size_bytes + length <= RUN_BYTES
        ):
            last.events += envelope.events
            last.keys += keys
            last.size_bytes += length
            last.written = envelope.local_time
            last.end = self._offset
            return
        run = Run(
            block=envelope.block_number,
            time=envelope.block_time,
            time_ms=ms_of(envelope.block_time),
            written=envelope.local_time,
            fresh=self._layout is Layout.BY_BLOCK,
            events=list(envelope.events),
            keys=keys,
            size_bytes=length,
            skipped=0,
            end=self._offset,
            taken=0,
        )
        self.runs += _split(run, self._skip, begin)
        self._skip = 0
        self._torn = False


def _plain_row(event: bytes, keys: Keys) -> _Row:
    ms_of(keys.when)
    return _Plain("", keys.when, None, [event]), [keys]


def _split(run: Run, skip: int, offset: int) -> list[Run]:
    """Cuts one line's run into runs of at most RUN_BYTES (or one event), without its first `skip` events."""
    if run.size_bytes <= RUN_BYTES and not skip:
        return [run]
    sizes = [len(memoryview(event)) for event in run.events]
    runs: list[Run] = []
    start = skip
    while start < len(sizes):
        stop, size = start + 1, sizes[start]
        while stop < len(sizes) and size + sizes[stop] <= RUN_BYTES:
            size += sizes[stop]
            stop += 1
        runs.append(
            attrs.evolve(
                run,
                events=run.events[start:stop],
                keys=run.keys[start:stop],
                size_bytes=size,
                skipped=start,
                end=offset,
                taken=stop,
            )
        )
        start = stop
    if runs:
        runs[-1].end, runs[-1].taken = run.end, 0
    return runs
