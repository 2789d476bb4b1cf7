"""What a subscription makes of the log: an entry in, messages out. Pure.

Views are values: equal ones share their messages. The bytes of a message are the same for every subscriber of a view
but for what stands before its tail (`id` and `seq` for our own types, nothing for official ones).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import ClassVar, Literal, Protocol, cast

import attrs
import msgspec

from hyperwatch.feed.cost import ASK_US, DETAIL_US
from hyperwatch.feed.filters.coins_users import Filter
from hyperwatch.feed.filters.word_lists import WordList
from hyperwatch.feed.messages import Encoding, Message, compressed
from hyperwatch.feed.routing import RoutingKeys
from hyperwatch.log.batches import Entry
from hyperwatch.log.gaps import EVENT_TOO_LARGE, Gap
from hyperwatch.log.positions import Cursor
from hyperwatch.node.json_lines import again
from hyperwatch.node.key_index import UNREADABLE
from hyperwatch.node.keys import OrderKeys
from hyperwatch.node.slices import Raw
from hyperwatch.node.statuses import OFFICIAL
from hyperwatch.node.streams import DIFFS, FILLS, ORDERS
from hyperwatch.node.times import ms_of

__all__ = [
    "Behind",
    "BookDiffs",
    "Channel",
    "Events",
    "Fills",
    "OrderUpdates",
    "Orders",
    "Whole",
    "gap",
    "position_message",
]


Behind = Literal["past", "budget"]
"""Why a subscription is not at the head: it is being sent what was written before, or its client asks for more of the head's
time than is its share."""


class Channel(Protocol):
    """What a subscription is to hear. Values: equal views are one."""

    @property
    def resumable(self) -> bool:
        """Whether it is a type of our own, with `id`, `seq` and cursors."""

    @property
    def compress(self) -> Encoding | None:
        """How its messages are compressed."""

    @property
    def stream(self) -> str:
        """The name of the stream that it looks at."""

    @property
    def name(self) -> str:
        """Of official types: what stands for the subscription's id. Of ours: ""."""

    @property
    def coins(self) -> frozenset[str] | None:
        """The exact names of coins that it asks for, which may be typing errors. None: it asks for none."""

    @property
    def snapshot(self) -> Sequence[Message]:
        """What it hears before everything else."""

    @property
    def interest(self) -> RoutingKeys | None:
        """What must occur for it to hear of an entry's events; None for anything."""

    @property
    def needs_keys(self) -> bool:
        """Whether it looks at what events are routed by, rather than take all of them."""

    @property
    def lists(self) -> Iterable[WordList]:
        """The lists of words that its filter holds."""

    def messages(self, entry: Entry) -> Sequence[Message]:
        """What it hears of an entry."""

    def messages_in_parts(self, entry: Entry) -> Generator[None, None, Sequence[Message]]:
        """The same, with pauses: none is much longer than a millisecond away."""

    @property
    def brief(self) -> bool:
        """Whether that takes ASK_US, whatever the entry."""

    def look_us(self, entry: Entry) -> float:
        """What it takes to find out, without what making the messages takes, in microseconds, about."""


@attrs.frozen
class Events:
    """Every event of a stream that matches, as the node wrote it."""

    filter: Filter
    compress: Encoding | None = None

    resumable = True
    name = ""
    snapshot = ()
    channel: ClassVar[bytes]
    stream: ClassVar[str]
    brief: bool = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(lambda self: self.filter.brief, takes_self=True)
    )

    @property
    def coins(self) -> frozenset[str] | None:
        return self.filter.coins

    @property
    def interest(self) -> RoutingKeys | None:
        return self.filter.interest

    @property
    def needs_keys(self) -> bool:
        return not self.filter.everything

    @property
    def lists(self) -> Iterable[WordList]:
        return self.filter.lists

    def messages(self, entry: Entry) -> Sequence[Message]:
        """What is missing before the entry, then at most one message with those of its events that match."""
        slice_ = entry.slice
        return self._made(entry, range(slice_.count) if self.filter.everything else self.filter.select(slice_))

    def messages_in_parts(self, entry: Entry) -> Generator[None, None, Sequence[Message]]:
        """The same, with pauses."""
        chosen = yield from self.filter.select_in_parts(entry.slice)
        return self._made(entry, chosen)

    def look_us(self, entry: Entry) -> float:
        return self.filter.look_us(entry.slice)

    def _made(self, entry: Entry, chosen: Sequence[int]) -> Sequence[Message]:
        events = self._events(entry, chosen)
        messages = [*map(gap, entry.gaps), *events] if entry.gaps else events
        return [compressed(message, self.compress) for message in messages] if self.compress else messages

    def _events(self, entry: Entry, chosen: Sequence[int]) -> Sequence[Message]:
        slice_ = entry.slice
        if not chosen:
            return ()
        if entry.too_large:
            return (_too_large(self.stream, entry),)
        # Into them goes what stands around them: so that all of it is copied once.
        parts: list[Raw] = [*slice_.pieces] if len(chosen) == slice_.count else [*slice_.some(chosen)]
        parts[0] = b'%b,"index":%b,"events":[%b' % (_where(entry), _places(entry, chosen), parts[0])
        parts[-1] = b"%b]}}" % parts[-1]
        return (Message(self.channel, b",".join(parts)),)


@attrs.frozen
class Orders(Events):
    """`orders`."""

    channel = b"orders"
    stream = ORDERS.name


@attrs.frozen
class Fills(Events):
    """`fills`."""

    channel = b"fills"
    stream = FILLS.name


@attrs.frozen
class BookDiffs(Events):
    """`bookDiffs`."""

    channel = b"bookDiffs"
    stream = DIFFS.name


class Whole:
    """A view that has no pauses: what it has to look at is little."""

    brief = False

    def messages(self, entry: Entry) -> Sequence[Message]:
        """What it hears of an entry."""
        raise NotImplementedError

    def messages_in_parts(self, entry: Entry) -> Generator[None, None, Sequence[Message]]:
        """The same."""
        yield
        return self.messages(entry)


@attrs.frozen
class OrderUpdates(Whole):
    """The official `orderUpdates` of one account."""

    user: str

    resumable = False
    needs_keys = True
    stream = ORDERS.name
    compress = None
    coins = None
    snapshot = ()
    lists = ()

    @property
    def name(self) -> str:
        return f"orderUpdates {self.user}"

    @property
    def interest(self) -> RoutingKeys:
        return RoutingKeys(users=frozenset([self.user]))

    def look_us(self, entry: Entry) -> float:
        return ASK_US + DETAIL_US * len(entry.slice.users.get(self.user, ()))

    def messages(self, entry: Entry) -> Sequence[Message]:
        """One message for the entry's official updates; an update whose status is not official travels alone.

        Clients with closed enums fail a whole message for one string that they do not know.
        """
        groups: list[list[bytes]] = []
        unofficial = True
        known, positions = cast("Sequence[OrderKeys]", entry.slice.keys), entry.slice.users.get(self.user, ())
        for number, event in zip(positions, entry.slice.some(positions), strict=True):
            keys = known[number]
            update = _update(event, keys, _status_ms(keys, entry))
            if update is None:
                continue
            if unofficial or keys.status not in OFFICIAL:
                groups.append([])
            groups[-1].append(update)
            unofficial = keys.status not in OFFICIAL
        return [
            Message(b"", b'{"channel":"orderUpdates","data":[%s],"user":"%s"}' % (b",".join(group), self.user.encode()))
            for group in groups
        ]


def position_message(
    channel: Literal["live", "cursor"], cursor: Cursor, entry: Entry | None, behind: Behind | None = None
) -> Message:
    """Where a subscription stands: everything before has been sent, matched or not.

    Args:
        channel: `live` where it has just reached the head.
        cursor: the place.
        entry: what was read last before it; None where nothing has been read yet.
        behind: why it is not at the head; None where it is.
    """
    where = _position(cursor, cursor.block, ms_of(cursor.time))
    written_ms, read_ms = (entry.slice.written_ms, entry.read_ms) if entry else (None, None)
    times = b',"writeTime":%s,"readTime":%s' % (_number(written_ms), _number(read_ms))
    why = b',"behind":"%b"}}' % behind.encode() if behind else b"}}"
    return Message(channel.encode(), where + times + why)


def gap(gap: Gap) -> Message:
    """`gap`: what lies between two places cannot be delivered. Its cursor is the place behind it."""
    return _gap(gap.stream, gap.reason, gap.after, (_edge(gap.before), _edge(gap.after)), readable=gap.readable)


def _where(entry: Entry) -> bytes:
    slice_ = entry.slice
    where = _position(entry.after, slice_.block, slice_.time_ms)
    return where + b',"late":true' if entry.late else where


def _position(cursor: Cursor, block: int | None, block_time_ms: int | None) -> bytes:
    text = cursor.encode().encode()
    return b'"cursor":"%s","blockNumber":%s,"blockTime":%s' % (text, _number(block), _number(block_time_ms))


def _number(value: int | None) -> bytes:
    return b"null" if value is None else b"%d" % value


def _places(entry: Entry, chosen: Sequence[int]) -> bytes:
    """The first place where they are consecutive, else the list; null where nothing but a cursor names an event."""
    first = entry.first_index
    if not chosen or (entry.slice.block is None and not entry.slice.time):
        return b"null"
    if chosen[-1] - chosen[0] == len(chosen) - 1:
        return b"%d" % (first + chosen[0])
    return msgspec.json.encode([first + number for number in chosen])


def _edge(cursor: Cursor) -> bytes:
    time_ms = ms_of(cursor.time)
    return b'{"block":%s,"time":%s,"index":%d}' % (_number(cursor.block), _number(time_ms), cursor.count)


def _too_large(stream: str, entry: Entry) -> Message:
    """A run is at most RUN_BYTES long unless it is a single event: that event cannot be a message."""
    place = b'{"block":%s,"time":%s,"index":%d}' % (
        _number(entry.slice.block),
        _number(entry.slice.time_ms),
        entry.first_index,
    )
    return _gap(stream, EVENT_TOO_LARGE, entry.after, (place, place), readable=True)


def _gap(stream: str, reason: str, cursor: Cursor, ends: tuple[bytes, bytes], *, readable: bool) -> Message:
    tail = b'%s,"stream":"%s","reason":"%s","from":%s,"to":%s,"readable":%s}}' % (
        _position(cursor, cursor.block, ms_of(cursor.time)),
        stream.encode(),
        reason.encode(),
        *ends,
        b"true" if readable else b"false",
    )
    return Message(b"gap", tail)


def _status_ms(keys: OrderKeys, entry: Entry) -> int:
    """When the status came about: the event's own time, else its block's."""
    try:
        own = ms_of(keys.time)
    except ValueError:
        own = None
    return own or entry.slice.time_ms or 0


class _Event(msgspec.Struct, gc=False):
    """An event as far as the official shape goes; the order's values stay the node's own bytes."""

    order: dict[str, msgspec.Raw]


_EVENT = msgspec.json.Decoder(_Event)
_OFFICIAL_KEYS = ("coin", "side", "limitPx", "sz", "oid", "timestamp", "origSz", "cloid")


def _update(event: Raw, keys: OrderKeys, time_ms: int) -> bytes | None:
    """One event of the node as the official API has it: `cloid` is left out where there is none.

    None where its status or its order cannot be read: the official API knows no update without.
    """
    try:
        known = again(_EVENT, event) if keys.status else None
    except UNREADABLE:
        known = None
    if known is None:
        return None
    order = b",".join(
        b'"%s":%s' % (key.encode(), value)
        for key in _OFFICIAL_KEYS
        if (value := known.order.get(key)) is not None and bytes(value) != b"null"
    )
    status = msgspec.json.encode(keys.status)
    return b'{"order":{%s},"status":%s,"statusTimestamp":%d}' % (order, status, time_ms)
