"""What lines come to: runs of events, and what could not be read. Pure values."""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import cast

import attrs
import msgspec

from hyperwatch.node.in_lines import InLines
from hyperwatch.node.key_index import KeyIndex, routes_of, views_of
from hyperwatch.node.keys import Keys, OrderKeys
from hyperwatch.node.statuses import StatusClass, class_of_name, was_live
from hyperwatch.node.streams import Stream
from hyperwatch.node.times import ms_of

__all__ = ["RUN_BYTES", "BlockSlice", "Raw", "UnreadableLine", "split", "texts_of"]

Raw = msgspec.Raw | bytes
"""An event as the node wrote it: a view into bytes with others, or the line itself in the plain layout."""

# A message is made of one run and must stay under 1 MiB, every client library's limit. Most blocks are smaller, and a block
# that is one run is one message for every filter.
RUN_BYTES = 960 * 1024

# Once more than one in so many was cut out of its line by itself, all are: that takes a third as long for each.
_FEW = 4

_TOGETHER = 128  # events, 60 KB, whose keys take 0.1 ms: more would leave the cache before they are there


@attrs.define(eq=False)
class BlockSlice:
    """Consecutive events of one block (in the plain layout: of one event time), as far as they were read together.

    What the feed routes by is read of its events when somebody asks for it: who wants every event needs none of that, and it
    takes as long as all else that decoding does.
    """

    stream: Stream
    block: int | None
    time: str
    """Block time as the node wrote it; in the plain layout the events' own; "" where the stream has none."""
    time_ms: int | None
    written: str
    """The node's local time of the last line, "" in the plain layout."""
    fresh: bool
    """Whether its first event is known to be the block's first: so at every by-block line, never elsewhere."""
    count: int
    """How many events it has."""
    size_bytes: int
    """Of the events."""
    skipped: int
    """How many events of its first line stand before the first one here."""
    end: int
    """Offset in the file of the first line that is not wholly in this run."""
    taken: int
    """How many events of that line are in this run or before it."""
    routes: KeyIndex = attrs.field(factory=KeyIndex, repr=False)
    """Of its first texts, as many as have been looked at."""
    _views: list[Raw] | None = attrs.field(default=None, repr=False)
    _texts: list[bytes] | None = attrs.field(default=None, init=False, repr=False)
    _in_lines: InLines | None = attrs.field(default=None, repr=False)
    """Its events one by one, together, and in their lines. One of them is at hand, another is made of it."""
    _cut_out: int = attrs.field(default=0, init=False, repr=False)
    """How many events were cut out of their lines, for all who asked."""
    _coin_counts: Mapping[str, int] | None = attrs.field(default=None, init=False, repr=False)

    @property
    def texts(self) -> list[bytes]:
        """Its events as the node wrote them, with commas between, at most _TOGETHER in each.

        There are none for a block without events, which only the by-block layout writes.
        """
        return texts_of(self.events) if self._texts is None else self._texts

    @property
    def pieces(self) -> Sequence[Raw]:
        """The same in whatever pieces are at hand: with commas between, they are all of its events."""
        return self.events if self._texts is None else self._texts

    @property
    def events(self) -> list[Raw]:
        """The same one by one: looked for once, where they are not at hand."""
        if self._views is None:
            if self._in_lines is not None:
                self._views, self._in_lines = [*self._in_lines.all()], None
            else:
                self._views = [event for text in self._texts or () for event in views_of(text)]
        return self._views

    def some(self, positions: Sequence[int]) -> Sequence[Raw]:
        """Those at some positions in ascending order."""
        if self._in_lines is not None:
            self._cut_out += len(positions)
            if self._cut_out * _FEW <= self.count:
                return self._in_lines.some(positions)
        events = self.events
        return [events[position] for position in positions]

    @property
    def keys(self) -> list[Keys]:
        """What the feed routes by, as many as `events`."""
        self._look_at_all()
        return self.routes.keys

    @property
    def unkeyed(self) -> list[int]:
        """The positions of the events that are JSON, but lack what this stream's events have."""
        self._look_at_all()
        return self.routes.unkeyed

    @cached_property
    def users(self) -> Mapping[str, Sequence[int]]:
        """The accounts of its events and the positions of each one's; looked up once, for however many ask."""
        return _in_lower_case(_positions([*map(_USER, self.keys)]))

    @cached_property
    def coins(self) -> Mapping[str, Sequence[int]]:
        """The coins of its events and the positions of each one's; looked up once, for however many ask."""
        return _positions([*map(self.stream.coin, self.keys)])

    @cached_property
    def statuses(self) -> Mapping[str, Sequence[int]]:
        """Of order statuses: each one's positions; looked up once, for however many ask."""
        return _positions([*map(_STATUS, self.keys)])

    @property
    def coin_counts(self) -> Mapping[str, int]:
        """How many of its events each coin has."""
        return Counter(map(self.stream.coin, self.keys)) if self._coin_counts is None else self._coin_counts

    @cached_property
    def late_rejections(self) -> frozenset[int]:
        """Of order statuses: the positions of rejections of orders that had been live; looked up once as well."""
        keys, time, time_ms = cast("list[OrderKeys]", self.keys), self.time, self.time_ms
        # Nearly all were placed in the block that rejects them: was_live takes three times as long to say so.
        odd = [
            position
            for status, positions in self.statuses.items()
            if class_of_name(status) is StatusClass.REJECTED
            for position in positions
            if (order := keys[position].order).timestamp != time_ms or order.isTrigger or keys[position].time != time
        ]
        return frozenset(position for position in odd if was_live(keys[position]))

    def read_keys(self) -> Iterator[None]:
        """Reads what is not known yet, a tenth of a millisecond between two steps: for who lets others run meanwhile."""
        if len(self.routes.keys) == self.count:
            return
        texts = self.texts
        # Of those who read at the same time, each goes on where another has come to.
        while self.routes.texts < len(texts):
            self.routes.add(routes_of(self.stream, texts[self.routes.texts]))
            yield

    def add(self, events: list[Raw] | InLines, routes: KeyIndex) -> None:
        """Events that follow: to a run of which nobody knows yet."""
        self.count += len(events)
        self.routes.add(routes)
        if isinstance(events, InLines):
            if self._in_lines is not None:
                self._in_lines.add(events)
                return
            events = [*events.all()]
        if self._texts is not None:
            self._texts += texts_of(events)
        if self._texts is None or self._views is not None:
            self.events.extend(events)  # one group that is cut has all of them cut

    def part(self, start: int, stop: int, size_bytes: int) -> BlockSlice:
        """Some of its events, with the same place in the file."""
        views = self.events[start:stop] if start < stop else []
        routes = self.routes.part(start, stop) if len(self.routes.keys) == self.count else KeyIndex()
        return attrs.evolve(self, count=stop - start, size_bytes=size_bytes, routes=routes, views=views, in_lines=None)

    def put_together(self) -> None:
        """From now on its events are at hand together, not one by one."""
        self._texts, self._views = self.texts, None  # of lines that are not cut, too

    def settle(self, *, needs_keys: bool) -> None:
        """Lets go of everything but its bytes and how many events each coin has, half a kilobyte an event.

        The rest is looked up again for who asks. So it stays where somebody needed it: others are likely to.
        """
        self._coin_counts = self.coin_counts
        if not needs_keys:
            self.put_together()
            self.routes = KeyIndex()

    def _look_at_all(self) -> None:
        if len(self.routes.keys) < self.count:
            for _ in self.read_keys():
                pass

    @property
    def lacks_local_time(self) -> bool:
        """Whether its last line has an envelope that does not say when it was written."""
        return bool(self.size_bytes) and self.block is not None and not self.written

    @property
    def written_ms(self) -> int | None:
        """When the node wrote it, UTC; None where it does not say so, or not in a way that can be read."""
        try:
            return ms_of(self.written)
        except ValueError:
            return None


def texts_of(events: Sequence[Raw]) -> list[bytes]:
    """Events with commas between, as many together as a run has in one text."""
    return [b",".join(events[start : start + _TOGETHER]) for start in range(0, len(events), _TOGETHER)]


_USER, _STATUS = operator.attrgetter("user"), operator.attrgetter("status")


def _positions(words: list[str]) -> Mapping[str, Sequence[int]]:
    """Where each word stands, in the order in which they come up."""
    if words and words.count(words[0]) == len(words):
        return {words[0]: range(len(words))}
    found: defaultdict[str, list[int]] = defaultdict(list)
    for position, word in enumerate(words):
        found[word].append(position)
    # They stay as long as the run: no room to grow.
    return {word: tuple(positions) for word, positions in found.items()}


def _in_lower_case(found: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
    """The same by accounts as filters spell them: a node writes them so, and others may not."""
    together = "".join(found)
    if together == together.lower():
        return found
    merged: defaultdict[str, list[int]] = defaultdict(list)
    for word, positions in found.items():
        merged[word.lower()] += positions
    return {word: tuple(sorted(positions)) for word, positions in merged.items()}


@attrs.frozen
class UnreadableLine:
    """Lines that could not be read, by position."""

    offset: int
    length_bytes: int
    reason: str
    data: bytes
    """The bytes themselves; b"" where there were too many to keep."""
    slice: int = 0
    """How many of the decoder's runs come before them."""
    lines: int = 1


def split(slice_: BlockSlice, skip: int, offset: int) -> list[BlockSlice]:
    """Cuts one line's run into runs of at most RUN_BYTES (or one event), without its first `skip` events."""
    if slice_.size_bytes <= RUN_BYTES and not skip:
        return [slice_]
    sizes = [len(memoryview(event)) + 1 for event in slice_.events]  # with the comma behind each
    slices: list[BlockSlice] = []
    start = skip
    while start < len(sizes):
        stop, size = start + 1, sizes[start]
        while stop < len(sizes) and size + sizes[stop] <= RUN_BYTES:
            size += sizes[stop]
            stop += 1
        slices.append(attrs.evolve(slice_.part(start, stop, size), skipped=start, end=offset, taken=stop))
        start = stop
    if slices:
        slices[-1].end, slices[-1].taken = slice_.end, 0
    return slices
