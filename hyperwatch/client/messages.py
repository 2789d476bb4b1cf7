"""What the feed says, as objects. Pure.

A message is cheap to make: its events are decoded when they are first looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Generic, TypeVar

import attrs
import msgspec

from hyperwatch.client.errors import FeedError
from hyperwatch.client.node_events import DiffEvent, Fill, FillEvent, OrderEvent

__all__ = [
    "OURS",
    "BookDiffs",
    "Edge",
    "Events",
    "Fills",
    "Gap",
    "GapError",
    "Interrupted",
    "Live",
    "Message",
    "Numbered",
    "Orders",
    "Position",
    "message_of",
]

E = TypeVar("E")


@attrs.frozen
class Message:
    """What the feed said, as it stands where nothing below knows it: so the official types."""

    channel: str
    data: bytes
    """The message's `data`, JSON, as it came: with what this version does not know."""


@attrs.frozen
class Interrupted(Message):
    """A subscription of an official type was made anew: what would have come meanwhile is missing, and nobody knows it.

    Official types have no cursor. `data` is the new acknowledgement's.
    """

    def __str__(self) -> str:
        return "the subscription was interrupted, and its type cannot be resumed"


@attrs.frozen
class Numbered(Message):
    """A message of our own types."""

    cursor: str
    """The place behind everything that was considered for this message and those before it."""
    block: int | None
    """None in the plain layout, and where nothing has been read yet."""
    block_time_ms: int | None
    """UTC."""


@attrs.frozen
class Events(Numbered, Generic[E]):
    """Events of one block (in the plain layout: of one event time)."""

    places: Sequence[int]
    """Of each event, its place in its block; none of book diffs in the plain layout, which nothing names."""
    late: bool
    """Whether it stood in an hour file after a newer one existed."""
    _raws: list[msgspec.Raw] = attrs.field(repr=False, eq=False)

    @property
    def raws(self) -> list[bytes]:
        """The events as the node wrote them, JSON."""
        return [bytes(raw) for raw in self._raws]

    @cached_property
    def events(self) -> tuple[E, ...]:
        """The events as objects, decoded when they are first asked for.

        Raises:
            FeedError: where the node writes what this version cannot read.
        """
        try:
            return tuple(map(self._decode, self._raws))
        except msgspec.DecodeError as error:
            what = f"an event of {self.channel} in block {self.block} is not what it should be ({error})"
            raise FeedError(what, "take it from raws, which has the node's bytes") from error

    def _decode(self, raw: msgspec.Raw) -> E:
        raise NotImplementedError


@attrs.frozen
class Orders(Events[OrderEvent]):
    """Order events."""

    def _decode(self, raw: msgspec.Raw) -> OrderEvent:
        return _ORDER.decode(raw)


@attrs.frozen
class Fills(Events[FillEvent]):
    """Fills."""

    def _decode(self, raw: msgspec.Raw) -> FillEvent:
        return FillEvent(*_FILL.decode(raw))


@attrs.frozen
class BookDiffs(Events[DiffEvent]):
    """Changes of the book."""

    def _decode(self, raw: msgspec.Raw) -> DiffEvent:
        return _DIFF.decode(raw)


@attrs.frozen
class Position(Numbered):
    """Where the subscription stands, every second: everything before has been delivered."""

    write_time_ms: int | None
    """When the node wrote what was read last, UTC."""
    read_time_ms: int | None
    """When the service read it, UTC."""
    behind: str | None = None
    """Why the subscription is not at the head: "past", it is being sent what was written before; "budget", its client asks
    for more of the service's time than is its share. None where it is at the head; other reasons may follow."""


@attrs.frozen
class Live(Position):
    """The subscription has reached the head."""


@attrs.frozen
class Edge:
    """A place in the log, in words of the chain."""

    block: int | None
    time_ms: int | None
    index: int

    def __str__(self) -> str:
        where = f"block {self.block}" if self.block is not None else f"time {self.time_ms} ms"
        return f"event {self.index} of {where}"


@attrs.frozen
class Gap(Numbered):
    """What lies between two places cannot be delivered."""

    stream: str
    reason: str
    before: Edge
    after: Edge
    readable: bool
    """Whether it is still in the node's files."""

    def __str__(self) -> str:
        return f"{self.stream} from {self.before} to {self.after} was not delivered ({self.reason})"


class GapError(FeedError):
    """Something cannot be delivered; iterating again goes on behind it.

    Args:
        gap: what the feed says of it, or Interrupted where it can say nothing.
    """

    def __init__(self, gap: Gap | Interrupted) -> None:
        super().__init__(str(gap), "iterate again to go on behind it, or fill the hole from elsewhere")
        self.gap = gap


class _Where(msgspec.Struct):
    cursor: str
    blockNumber: int | None = None
    blockTime: int | None = None


class _Events(_Where, kw_only=True):
    index: int | list[int] | None
    events: list[msgspec.Raw]
    late: bool = False


class _Position(_Where):
    writeTime: int | None = None
    readTime: int | None = None
    behind: str | None = None


class _Edge(msgspec.Struct):
    block: int | None = None
    time: int | None = None
    index: int = 0


class _Gap(_Where, kw_only=True, rename={"before": "from", "after": "to"}):
    stream: str
    reason: str
    before: _Edge
    after: _Edge
    readable: bool = False


_ORDER = msgspec.json.Decoder(OrderEvent)
_FILL = msgspec.json.Decoder(tuple[str, Fill])
_DIFF = msgspec.json.Decoder(DiffEvent)
_EVENTS = msgspec.json.Decoder(_Events)
_POSITION = msgspec.json.Decoder(_Position)
_GAP = msgspec.json.Decoder(_Gap)


def message_of(channel: str, data: bytes) -> Message:
    """The message that this is.

    Args:
        channel: its channel; one that is not known makes a plain Message.
        data: its `data`, JSON.

    Raises:
        msgspec.DecodeError: where the data is not what the feed sends on that channel.
    """
    make = _MAKERS.get(channel, Message)
    return make(channel, data)


def _events(kind: type[Events[E]]) -> Callable[[str, bytes], Message]:
    def make(channel: str, data: bytes) -> Message:
        found = _EVENTS.decode(data)
        count, first = len(found.events), found.index
        places = range(first, first + count) if isinstance(first, int) else tuple(first or ())
        return kind(
            channel, data, found.cursor, found.blockNumber, found.blockTime, places, found.late, found.events
        )  # fmt: skip

    return make


def _position(kind: type[Position]) -> Callable[[str, bytes], Message]:
    def make(channel: str, data: bytes) -> Message:
        found = _POSITION.decode(data)
        times = (found.blockTime, found.writeTime, found.readTime)
        return kind(channel, data, found.cursor, found.blockNumber, *times, found.behind)

    return make


def _gap(channel: str, data: bytes) -> Gap:
    found = _GAP.decode(data)
    before, after = (Edge(edge.block, edge.time, edge.index) for edge in (found.before, found.after))
    where = (found.cursor, found.blockNumber, found.blockTime)
    return Gap(channel, data, *where, found.stream, found.reason, before, after, found.readable)


_MAKERS: dict[str, Callable[[str, bytes], Message]] = {
    "orders": _events(Orders),
    "fills": _events(Fills),
    "bookDiffs": _events(BookDiffs),
    "live": _position(Live),
    "cursor": _position(Position),
    "gap": _gap,
    "subscriptionResponse": Interrupted,
}
OURS = frozenset(("orders", "fills", "bookDiffs"))
"""The types that have ids, numbers and cursors."""
