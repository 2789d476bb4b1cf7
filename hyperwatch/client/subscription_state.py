"""A subscription across connections: where it stands, and what waits to be taken from it.

A track is filled by the connection that is open and emptied by whoever iterates. Both sides change it between two
awaits only, so that neither a cancelled reader nor a broken connection can lose a message or hand one out twice.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Mapping

import attrs
import msgspec
import trio

from hyperwatch.client.errors import FeedError, LossError, again
from hyperwatch.client.messages import OURS
from hyperwatch.errors import HyperwatchError

__all__ = ["Answer", "Item", "Stage", "SubscriptionState"]

# What may wait to be taken: so much and one message more, which is under 1 MiB.
_WAITING_BYTES = 4 * 1024 * 1024


@attrs.frozen
class Answer:
    """What the feed answered to a subscription."""

    cursor: str
    """Where it starts; "" for official types."""
    warnings: tuple[str, ...]
    """What may not be meant, such as a coin in the wrong case."""


@attrs.frozen
class Item:
    """A message that waits."""

    channel: str
    text: bytes
    """All of it, as it came."""
    data: bytes
    cursor: str = ""
    """"" in official types."""


class Stage(enum.Enum):
    """What a subscription and the feed have to do with each other."""

    IDLE = enum.auto()
    """Nobody has asked for it yet."""
    WANTED = enum.auto()
    """The feed has to be told, on this connection or the next one."""
    OPEN = enum.auto()
    PARKED = enum.auto()
    """Whoever iterates was too slow for the others: it goes on from its cursor when what waits is taken."""
    OVER = enum.auto()
    """Nothing comes any more."""


@attrs.define(eq=False)
class SubscriptionState:
    """What is known of a subscription.

    Args:
        wanted: the subscription, without `id`.
        notify: to be called when the connection may have something to do.
    """

    wanted: Mapping[str, object]
    notify: Callable[[], None] = attrs.field(repr=False)
    stage: Stage = Stage.IDLE
    answer: Answer | None = None
    """The first one."""
    failure: HyperwatchError | None = None
    id: str = ""
    """The newest one. Never the same twice: what still comes for an older one is known by it."""
    again_s: float = -math.inf
    """Not to be asked for before, by the event loop's clock: the feed could not serve it for the moment."""
    held: bool = False
    """Whether this connection's feed has it."""
    cursor: str = ""
    """Behind the newest message that came."""
    _seq: int = 0
    _lost_at: str | None = None
    _items: deque[Item] = attrs.field(factory=deque)
    _waiting_bytes: int = 0
    _takers: int = 0
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    # For whoever iterates.

    async def begin(self) -> Answer:
        """Asks for it where that has not been done, and waits for the first answer. Raises its failure."""
        await trio.lowlevel.checkpoint()
        while self.answer is None:
            self._raise_failure()
            if self.stage is Stage.OVER:
                what = "the subscription ended before the feed answered to it"
                raise FeedError(what, "subscribe again")
            self._want()
            await self._changed.park()
        return self.answer

    async def take(self) -> Item | None:
        """The next message; None where there will be none. Raises its failure, when what came before is taken."""
        await trio.lowlevel.checkpoint()
        while not self._items:
            self._raise_failure()
            if self.stage is Stage.OVER:
                return None
            self._takers += 1
            try:
                self._want()
                await self._changed.park()
            finally:
                self._takers -= 1
        was_full = self.full
        item = self._items.popleft()
        self._waiting_bytes -= len(item.text)
        if was_full:
            self.notify()
        return item

    def close(self) -> None:
        """Nobody iterates any more: what waits is dropped."""
        self.stage = Stage.OVER
        self._items.clear()
        self._waiting_bytes = 0
        self._changed.unpark_all()
        self.notify()

    @property
    def done(self) -> bool:
        """Whether nobody has to do anything for it any more."""
        return self.stage is Stage.OVER and not self.held

    def _want(self) -> None:
        if self.stage in (Stage.IDLE, Stage.PARKED):
            self.stage = Stage.WANTED
        self.notify()

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise again(self.failure, self.cursor)

    # For the connection.

    @property
    def ours(self) -> bool:
        """Whether it has numbers and cursors."""
        return self.wanted.get("type") in OURS

    @property
    def full(self) -> bool:
        """Whether no more should be put here."""
        return self._waiting_bytes >= _WAITING_BYTES

    @property
    def unwanted(self) -> bool:
        """Whether the feed is to be told to end it."""
        return self.held and self.stage is not Stage.OPEN

    @property
    def waits(self) -> bool:
        """Whether the connection has to do something before it, or whoever iterates it, can go on."""
        return self.unwanted or self.stage is Stage.WANTED or (self._takers > 0 and not self._items)

    def request(self, name: str) -> str:
        """The subscription, JSON, from where it stands; from here on it is known to the feed by a name."""
        self.id, self._seq = name, 0
        own = {"id": name} | ({"from": self.cursor} if self.cursor else {}) if self.ours else {}
        return msgspec.json.encode({**self.wanted, **own}).decode()

    def farewell(self) -> str:
        """What ends it, JSON."""
        wanted = {"type": self.wanted["type"], "id": self.id} if self.ours else self.wanted
        return msgspec.json.encode(wanted).decode()

    def answered(self, answer: Answer, item: Item) -> None:
        """The feed has begun it. `item` is what it said; where something may be missing before it, it is handed out."""
        self.held = True
        if self.stage is not Stage.WANTED:
            return  # it was closed meanwhile
        self.stage = Stage.OPEN
        if self.answer is None:
            self.answer, self.cursor = answer, answer.cursor
        elif not self.ours:
            self.put(item)
        self._changed.unpark_all()

    def count(self, seq: int) -> None:
        """A message with a number has come.

        Raises:
            LossError: where one is missing before it.
        """
        expected = self._seq + 1
        if seq != expected:
            what = f"message {expected} of subscription {self.id!r} is missing: {seq} came in its place"
            error = LossError(what, "subscribe again")
            if self._lost_at == self.cursor:  # it was asked for again from there, and is missing again
                self.fail(error)
            self._lost_at = self.cursor
            raise error
        self._seq = seq

    def put(self, item: Item) -> None:
        """A message to be taken."""
        self._items.append(item)
        self._waiting_bytes += len(item.text)
        self.cursor = item.cursor or self.cursor
        self._changed.unpark_all()

    def park(self) -> None:
        """Others wait for the connection: what comes now is let go, and asked for again when this has been taken."""
        self.stage = Stage.PARKED

    def broken(self) -> None:
        """The connection is gone."""
        self.held = False
        if self.stage is Stage.OPEN:
            self.stage = Stage.WANTED

    def finish(self) -> None:
        """The feed has said goodbye: it has sent everything that it was asked for."""
        if self.stage is Stage.WANTED and self.answer is None:
            self.fail(FeedError("the feed ended before it answered to the subscription", "connect again"))
        elif self.stage in (Stage.WANTED, Stage.PARKED):
            what = "the feed ended while the subscription waited for what had come to be taken"
            self.fail(LossError(what, "subscribe again"))
        self.stage = Stage.OVER
        self._changed.unpark_all()

    def fail(self, error: HyperwatchError) -> None:
        """Whoever iterates is told so, behind what waits."""
        if self.stage is not Stage.OVER:
            self.stage, self.failure = Stage.OVER, error
            self._changed.unpark_all()
