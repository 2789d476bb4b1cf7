"""From lines to events: three layouts, one result.

The node's bytes are kept as they are. Decoded are the envelope and, of each event, the keys that the feed routes by.
"""

from __future__ import annotations

import itertools
import operator
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    _users: Mapping[str, Sequence[int]] | None = attrs.field(default=None, init=False, repr=False, eq=False)
    _coins: Mapping[str, Sequence[int]] | None = attrs.field(default=None, init=False, repr=False, eq=False)

    @property
    def users(self) -> Mapping[str, Sequence[int]]:
        """The accounts of its events and the positions of each one's; looked up once, for however many ask."""
        if self._users is None:
            self._users = _positions(key.user for key in self.keys)
        return self._users

    @property
    def coins(self) -> Mapping[str, Sequence[int]]:
        """The coins of its events and the positions of each one's; looked up once, for however many ask."""
        if self._coins is None:
            self._coins = _positions(key.coin for key in self.keys)
        return self._coins

    @property
    def written_ms(self) -> int | None:
        """When the node wrote it, UTC; None where it does not say so, or not in a way that can be read."""
        try:
            return ms_of(self.written)
        except ValueError:
            return None


def _positions(words: Iterable[str]) -> Mapping[str, Sequence[int]]:
    """Where each word stands."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for position, word in enumerate(words):
        found[word].append(position)
    return {
        word: tuple(positions) for word, positions in found.items()
    }  # they stay as long as the run: no room to grow


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


class _Group(NamedTuple):
    """Consecutive lines of one block, whole."""

    block: int | None
    time: str
    time_ms: int | None
    written: str
    events: list[Raw]
    keys: list[Keys]
    length: int
    lines: int


_OPENING = b'{"local_time":'
_LINE_OPENING = b"\n" + _OPENING
_ODD = "not one document a line"

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
        several = piece.find(b"\n") + 1 < len(piece)
        if several and (self._skip or len(piece) > RUN_BYTES):
            self._feed_one_by_one(piece)
            return
        try:
            groups = self._groups(piece, several=several)
        except _UNREADABLE:
            self._feed_one_by_one(piece)
            return
        for group in groups:
            self.lines += group.lines
            self._take(group)

    def _feed_one_by_one(self, piece: bytes) -> None:
        for line in piece.split(b"\n")[:-1]:
            self.lines += 1
            try:
                (group,) = self._groups(line + b"\n", several=False)
                self._take(group)
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
                (group,) = self._groups(line[tear:] + b"\n", several=False)
            except _UNREADABLE:
                tear = line.find(opening, tear + 1)
                continue
            self._set_aside(offset, line[:tear], f"torn; {reason}")
            self._offset += tear
            self._take(group)
            return
        self._set_aside(offset, line + b"\n", reason)
        self._offset += len(line) + 1
        self._skip = 0

    def _set_aside(self, offset: int, data: bytes, reason: str) -> None:
        self.damage.append(Damage(offset, len(data), reason, data[:_BYTES_KEPT], len(self.runs)))
        self._torn = True  # the next line begins a run: between the two something is missing

    def _groups(self, piece: bytes, *, several: bool) -> list[_Group]:
        """What the piece's lines say; raises one of _UNREADABLE where any of them cannot be read.

        The whole piece goes to the parser at once: its events are then views into the piece, where line by line each
        would keep a copy of its line alive. And what can be done for a block's lines together costs a tenth of what it
        costs for each.
        """
        if not piece.isascii():
            piece.decode()  # the parser skips over strings without a look; a text frame may not
        if self._layout is Layout.PLAIN:
            return self._plain_groups(piece)
        envelopes = _ENVELOPE.decode_lines(piece)
        # The parser takes two documents on a line, one on two lines, and blank lines: a node writes none of these.
        # Looking for "}{" costs as much as parsing; that every line opens as a node's does is cheap to see.
        if len(envelopes) != (_openings(piece) if several else 1):
            raise ValueError(_ODD)
        if not several or (self._layout is Layout.STREAMING and _one_block(envelopes)):
            return [self._group(envelopes, len(piece))]
        lengths = [len(line) + 1 for line in piece.split(b"\n")[:-1]]
        if self._layout is Layout.BY_BLOCK:
            return [self._group([envelope], length) for envelope, length in zip(envelopes, lengths, strict=True)]
        groups = []
        start = 0
        for _, same in itertools.groupby(envelopes, _BLOCK):
            block = list(same)
            stop = start + len(block)
            groups.append(self._group(block, sum(lengths[start:stop])))
            start = stop
        return groups

    def _group(self, envelopes: list[_Envelope], length: int) -> _Group:
        first = envelopes[0]
        alone = len(envelopes) == 1
        events: list[Raw] = [*first.events] if alone else [event for each in envelopes for event in each.events]
        decode = self._keys
        return _Group(
            first.block_number,
            first.block_time,
            ms_of(first.block_time),
            envelopes[-1].local_time,
            events,
            [decode(event) for event in events],
            length,
            len(envelopes),
        )

    def _plain_groups(self, piece: bytes) -> list[_Group]:
        lines = piece.split(b"\n")[:-1]
        decode = self._keys
        groups = []
        for when, same in itertools.groupby([(decode(line), line) for line in lines], _when):
            pairs = list(same)
            events: list[Raw] = [line for _, line in pairs]
            length = sum(map(len, events)) + len(events)
            groups.append(_Group(None, when, ms_of(when), "", events, [keys for keys, _ in pairs], length, len(pairs)))
        return groups

    def _take(self, group: _Group) -> None:
        """Adds a group's events to the last run, or begins a new one."""
        begin, self._offset = self._offset, self._offset + group.length
        alone = self._layout is Layout.BY_BLOCK or self._skip or self._torn
        last = self.runs[-1] if self.runs and not alone else None
        if (
            last
            and last.block == group.block
            and last.time == group.time
            and last.size_bytes + group.length <= RUN_BYTES
        ):
            last.events += group.events
            last.keys += group.keys
            last.size_bytes += group.length
            last.written = group.written
            last.end = self._offset
            return
        run = Run(
            block=group.block,
            time=group.time,
            time_ms=group.time_ms,
            written=group.written,
            fresh=self._layout is Layout.BY_BLOCK,
            events=group.events,
            keys=group.keys,
            size_bytes=group.length,
            skipped=0,
            end=self._offset,
            taken=0,
        )
        self.runs += _split(run, self._skip, begin)
        self._skip = 0
        self._torn = False


_BLOCK = operator.attrgetter("block_number", "block_time")


def _openings(piece: bytes) -> int:
    """How many lines there are; -1 where one does not open as a node's do."""
    lines = piece.count(b"\n")  # looking for an empty line costs three times as much
    return lines if piece.startswith(_OPENING) and piece.count(_LINE_OPENING) == lines - 1 else -1


def _one_block(envelopes: list[_Envelope]) -> bool:
    number, time = envelopes[0].block_number, envelopes[0].block_time
    return [each.block_number for each in envelopes].count(number) == len(envelopes) and [
        each.block_time for each in envelopes
    ].count(time) == len(envelopes)


def _when(pair: tuple[Keys, bytes]) -> str:
    return pair[0].when


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
