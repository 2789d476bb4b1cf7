"""A subscription: a view, and a cursor in the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
import msgspec

from hyperwatch.derive.trades import OpenFills
from hyperwatch.feed.budget import Allowance
from hyperwatch.feed.channels.events import Behind, Channel
from hyperwatch.feed.channels.trades import Trades, paired
from hyperwatch.feed.messages import Message
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Entry
from hyperwatch.log.gaps import Gap
from hyperwatch.log.positions import Cursor

__all__ = ["Framed", "Framing", "Offer", "Outlet", "Subscription"]

Offer = Callable[[Sequence[bytes], int], bool]
"""Sends the parts of whole frames, so many bytes together, without waiting; False where nothing was taken."""


class Framed(Protocol):
    """A message as the server's frames: what subscriptions share of it is made once."""

    def next(self, name: bytes, seq: int) -> tuple[Sequence[bytes], int]:
        """(the parts of a frame for a subscription of that name, their size)."""


Framing = Callable[[Message], Framed]
"""Makes frames of messages: the feed itself knows none."""


class Outlet(Protocol):
    """Where a subscription's messages go: a connection."""

    @property
    def offer(self) -> Offer:
        """Sends without waiting."""

    @property
    def allowance(self) -> Allowance:
        """What its client may have of the head's time."""

    def wake(self) -> None:
        """A subscription of this outlet fell behind: see to it."""


@attrs.define(eq=False)
class Subscription:
    """One of a client's subscriptions.

    It is either live, which is to say pushed to by the hub, or behind: then its connection serves it, from the ring at
    `serial`, or from the files by `reader` where the ring has let go of that.
    """

    channel: Channel
    id: str
    outlet: Outlet
    cursor: Cursor
    """Where it stands while it is behind, at an entry's start."""
    serial: int
    """The ring's number of the entry there; -1 where the files serve it. While live: entries before it were sent by the
    connection."""
    live: bool = False
    reader: BatchReader | None = None
    reads: int = 0
    """How often that reader has read."""
    gap: Gap | None = None
    """What is missing where it begins, and has not been told yet."""
    held: OpenFills = attrs.Factory(OpenFills)
    """Of trades, while behind: what waits for its other side there."""
    sending_s: float | None = None
    """Since when a message of it is being sent, by the event loop's clock."""
    why: Behind = "past"
    """Of no meaning while live."""
    looked_us: float = 0.0
    """What its view took about an entry last, while behind."""
    seq: int = 0
    arrived: bool = False
    """Whether it has been told that it is live, and has not been on the files since."""
    told_s: float = 0.0
    """When it last heard where it stands, by the event loop's clock."""
    over: bool = False
    push: Offer = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: self.outlet.offer, takes_self=True)
    )
    """The outlet's `offer`, at hand: a thousand clients are pushed to at once, and each object on the way costs."""
    allowance: Allowance = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: self.outlet.allowance, takes_self=True)
    )
    """The outlet's, for the same reason."""
    name: bytes = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: msgspec.json.encode(self.id), takes_self=True)
    )
    """The id as its messages have it."""

    def head(self, message: Message) -> bytes:
        """What stands before a message's tail: `id` and the next `seq`, or nothing for official types."""
        return message.form % (self.name, self.seq + 1) if message.channel else b""

    def complete(self, entry: Entry) -> Entry:
        """An entry from the files as the ring would have it for this view."""
        return paired(entry, self.held)[0] if isinstance(self.channel, Trades) else entry

    def fall_behind(self, entry: Entry, serial: int, why: Behind) -> None:
        """The socket took nothing of an entry, or its client has no time left: from here the connection serves it."""
        self.why = why
        self.cursor = entry.before
        self.serial = serial
        if entry.paired is not None:
            self.held = entry.paired.before
        self.outlet.wake()
