"""From lines to events: three layouts, one result.

The node's bytes are kept as they are. All of the JSON is checked; decoded are the envelope and, where it is asked for, the
keys that the feed routes each event by.
"""

from __future__ import annotations

import enum
import itertools
import operator
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar

import msgspec

from hyperwatch.node.envelopes import BOM, ENVELOPES, OPENING, Envelope, bare, one_block, rewritten
from hyperwatch.node.in_lines import InLines
from hyperwatch.node.json_lines import of_lines
from hyperwatch.node.key_index import UNREADABLE, KeyIndex, of_document, routes_of
from hyperwatch.node.keys import Keys
from hyperwatch.node.slices import RUN_BYTES, BlockSlice, Raw, UnreadableLine, split, texts_of
from hyperwatch.node.streams import Layout, Stream
from hyperwatch.node.times import ms_of

__all__ = ["BYTES_KEPT", "Decoder", "Need"]


class Need(enum.Enum):
    """What will be asked for: to have it ready while the bytes are in the cache costs least. Anything else is looked up."""

    EACH = "events one by one"
    TOGETHER = "all events at once"
    ROUTED = "what events are routed by, and one by one those that match, for everybody who asks"
    FEW = "the same for one who asks: those of the streaming layout stay in their lines until then"


_T = TypeVar("_T")


class _Group(NamedTuple):
    """Consecutive lines of one block, whole."""

    block: int | None
    time: str
    time_ms: int | None
    written: str
    events: list[Raw] | InLines
    routes: KeyIndex
    length: int
    lines: int


BYTES_KEPT = 1024 * 1024  # of a damaged line; by position all of it can be found


class Decoder:
    """Decodes consecutive pieces of one file.

    Args:
        stream: what the file holds.
        layout: how it holds it.
        offset: where in the file the first piece begins.
        skip: how many events of its first line were taken before.
        need: what will be asked for.

    Blank lines are passed over, and so is a BOM at the file's start: it is of the first line's bytes.

    Attributes:
        slices: the events read so far.
        unreadable: the lines that could not be read.
        lines: how many lines were seen, damaged ones too.
    """

    def __init__(self, stream: Stream, layout: Layout, offset: int, skip: int = 0, need: Need = Need.EACH) -> None:
        self._stream = stream
        self._need = need
        self._layout = layout
        self._opening = stream.opening if layout is Layout.PLAIN else OPENING
        self._offset = offset
        self._skip = skip
        self._torn = False
        self._dated: tuple[str, int | None] = "", None  # the plain line before
        self.slices: list[BlockSlice] = []
        self.unreadable: list[UnreadableLine] = []
        self.lines = 0

    def feed(self, piece: bytes) -> None:
        """Decodes whole lines that follow those fed before. Damaged lines are set aside; nothing is raised for them."""
        several = piece.find(b"\n") + 1 < len(piece)
        if several and (self._skip or len(piece) > RUN_BYTES):
            self._feed_one_by_one(piece)
            return
        try:
            groups = self._groups(piece, several=several)
        except UNREADABLE:
            self._feed_one_by_one(piece)
            return
        for group in groups:
            self.lines += group.lines
            self._take(group)

    def _feed_one_by_one(self, piece: bytes) -> None:
        for line in piece.split(b"\n")[:-1]:
            self.lines += 1
            mark = len(BOM) if not self._offset and line.startswith(BOM) else 0
            if not bare(line[mark:]):
                self._offset += len(line) + 1
                continue
            try:
                (group,) = self._groups(line[mark:] + b"\n", several=False)
                self._take(group._replace(length=group.length + mark))
            except UNREADABLE as error:
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
            except UNREADABLE:
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
        self.unreadable.append(UnreadableLine(offset, len(data), reason, data[:BYTES_KEPT], len(self.slices)))
        self._torn = True  # the next line begins a run: between the two something is missing

    def _groups(self, piece: bytes, *, several: bool) -> list[_Group]:
        """What the piece's lines say; raises one of UNREADABLE where any of them cannot be read.

        The whole piece goes to the parser at once: its events are then views into the piece, where line by line each
        would keep a copy of its line alive. And what can be done for a block's lines together costs a fraction of what
        it costs for each.
        """
        if not piece.isascii():
            piece.decode()  # the parser skips over strings without a look; a text frame may not
        if self._layout is Layout.PLAIN:
            return self._plain_groups(piece)
        if self._need is Need.FEW and several and self._layout is Layout.STREAMING:
            # Where that cannot be done, what follows does it by the event, or says why.
            with suppress(*UNREADABLE):
                envelopes = of_lines(self._stream.envelopes, piece)
                blocks = self._blocks(envelopes, piece)
                return [self._with_keys(block, piece[start:end]) for block, start, end in blocks]
        try:
            read = self._blocks(of_lines(ENVELOPES, piece), piece)
            return [self._with_events(block, end - start) for block, start, end in read]
        except UNREADABLE as error:
            if several:
                raise
            try:
                return [self._with_events([rewritten(piece)], len(piece))]
            except UNREADABLE:
                raise error from None

    def _blocks(self, envelopes: list[Envelope[_T]], piece: bytes) -> Iterator[tuple[list[Envelope[_T]], int, int]]:
        """Each block's envelopes among those of a piece, and where its lines begin and end there.

        In the by-block layout each line is for itself.
        """
        if len(envelopes) == 1 or (self._layout is Layout.STREAMING and one_block(envelopes)):
            yield envelopes, 0, len(piece)
            return
        # By `id` each is for itself.
        lengths = map(len, piece.split(b"\n"))  # without their ends
        start = 0
        for _, found in itertools.groupby(envelopes, _BLOCK if self._layout is Layout.STREAMING else id):
            block = list(found)
            end = start + sum(itertools.islice(lengths, len(block))) + len(block)
            yield block, start, end
            start = end

    def _with_events(self, envelopes: list[Envelope[msgspec.Raw]], length: int) -> _Group:
        first, lines = envelopes[0], len(envelopes)
        events: list[Raw] = [*first.events] if lines == 1 else [event for each in envelopes for event in each.events]
        time, written = first.block_time, envelopes[-1].local_time
        return _Group(first.block_number, time, ms_of(time), written, events, self._routes(events), length, lines)

    def _with_keys(self, envelopes: list[Envelope[Keys]], lines: bytes) -> _Group:
        """What events are routed by is all that is read of them, in one pass: a line stands for its event.

        Raises ValueError where a line has none, or several; no event of a line that is not cut is without what it is routed by.
        """
        first, count = envelopes[0], len(envelopes)
        keys = [key for envelope in envelopes for (key,) in (envelope.events,)]
        time, written = first.block_time, envelopes[-1].local_time
        events = InLines([lines], [count])
        return _Group(first.block_number, time, ms_of(time), written, events, KeyIndex(keys), len(lines), count)

    def _routes(self, events: list[Raw]) -> KeyIndex:
        """What events are routed by, where it is asked for.

        Parsed twice: keys come from the events alone, as one array, which takes half of what one after the other does. One pass
        for views and keys is not to be had: what is decoded leaves no view.
        """
        routes = KeyIndex()
        if self._need in (Need.ROUTED, Need.FEW):
            for text in texts_of(events):
                routes.add(routes_of(self._stream, text))
        return routes

    def _plain_groups(self, piece: bytes) -> list[_Group]:
        lines = piece.split(b"\n")[:-1]
        try:
            keys = of_lines(self._stream.lines, piece)
        except UNREADABLE:
            if len(lines) > 1:
                raise
            return self._by_itself(lines[0])
        if piece.endswith(b"\r\n"):
            return [group for line in lines for group in self._by_itself(line)]
        groups = []
        start = 0
        for when, same in itertools.groupby(keys, _WHEN):
            stop = start + len([*same])
            events: list[Raw] = [*lines[start:stop]]
            length = sum(map(len, lines[start:stop])) + len(events)
            routes = KeyIndex(keys[start:stop])
            time, time_ms = self._date(when)
            groups.append(_Group(None, time, time_ms, "", events, routes, length, len(events)))
            start = stop
        return groups

    def _by_itself(self, line: bytes) -> list[_Group]:
        """A plain line of which some key may be of no known type; raises ValueError where it is no event at all."""
        routes = of_document(self._stream, line)
        time, time_ms = self._date(routes.keys[0].when)
        return [_Group(None, time, time_ms, "", [line.strip(b" \t\r")], routes, len(line) + 1, 1)]

    def _date(self, when: str) -> tuple[str, int | None]:
        """A plain line's time. One that brings none which can be read has that of the line before it."""
        try:
            if when:
                self._dated = when, ms_of(when)
        except ValueError:
            pass
        return self._dated

    def _take(self, group: _Group) -> None:
        """Adds a group's events to the last run, or begins a new one."""
        begin, self._offset = self._offset, self._offset + group.length
        alone = self._layout is Layout.BY_BLOCK or self._skip or self._torn
        last = self.slices[-1] if self.slices and not alone else None
        if (
            last
            and last.block == group.block
            and last.time == group.time
            and bool(last.written) is bool(group.written)  # where it is missing can be told of the run
            and last.size_bytes + group.length <= RUN_BYTES
        ):
            last.add(group.events, group.routes)
            last.size_bytes += group.length
            last.written = group.written
            last.end = self._offset
            return
        slice_ = BlockSlice(
            stream=self._stream,
            block=group.block,
            time=group.time,
            time_ms=group.time_ms,
            written=group.written,
            fresh=self._layout is Layout.BY_BLOCK,
            count=len(group.events),
            size_bytes=group.length,
            skipped=0,
            end=self._offset,
            taken=0,
            routes=group.routes,
            views=None if isinstance(group.events, InLines) else group.events,
            in_lines=group.events if isinstance(group.events, InLines) else None,
        )
        for part in split(slice_, self._skip, begin):
            if self._need is Need.TOGETHER:
                part.put_together()
            self.slices.append(part)
        self._skip = 0
        self._torn = False


_BLOCK = operator.attrgetter("block_number", "block_time")
_WHEN = operator.attrgetter("when")
