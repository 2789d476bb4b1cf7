"""A subscription: a view, and a cursor in the log."""

from __future__ import annotations

from typing import Protocol

import attrs
import msgspec

from hyperwatch.feed.packing import Message
from hyperwatch.feed.trades import Trades, paired
from hyperwatch.feed.views import View
from hyperwatch.log.batch import Entry
from hyperwatch.log.cursor import Cursor
from hyperwatch.log.gaps import Gap
from hyperwatch.log.reader import Reader
from hyperwatch.node.trades import Held

__all__ = ["Outlet", "Subscription"]

_LINE = b'{"channel":"%s","id":%s,"seq":%d}\n'  # before a compressed body, which begins right behind the newline


class Outlet(Protocol):
    """Where a subscription's messages go: a connection."""

    def offer(self, head: bytes, tail: bytes, *, binary: bool) -> bool:
        """Sends without waiting; False where nothing was taken."""

    def wake(self) -> None:
        """A subscription of this outlet fell behind, or part of a message is left: see to it."""


@attrs.define(eq=False)
class Subscription:
    """One of a client's subscriptions.

    It is either live, which is to say pushed to by the hub, or behind: then its connection serves it, from the ring at
    `serial`, or from the files by `reader` where the ring has let go of that.
    """

    view: View
    id: str
    outlet: Outlet
    cursor: Cursor
    """Where it stands while it is behind, at an entry's start."""
    serial: int
    """The ring's number of the entry there; -1 where the files serve it. While live: entries before it were sent by the
    connection."""
    live: bool = False
    partial: Entry | None = None
    """While behind: the entry at `serial`, where some of its messages were sent before the socket was full."""
    sent: int = 0
    """How many of them."""
    reader: Reader | None = None
    gap: Gap | None = None
    """What is missing where it begins, and has not been told yet."""
    held: Held = attrs.Factory(Held)
    """Of trades, while behind: what waits for its other side there."""
    sending_s: float | None = None
    """Since when a message of it is being sent, by the event loop's clock."""
    seq: int = 0
    arrived: bool = False
    """Whether it has been told that it is live, and has not been on the files since."""
    told_s: float = 0.0
    """When it last heard where it stands, by the event loop's clock."""
    over: bool = False

    def head(self, message: Message) -> bytes:
        """What stands before a message's tail: `id` and the next `seq`, or nothing for official types."""
        if not message.channel:
            return b""
        form = _LINE if message.binary else b'{"channel":"%s","data":{"id":%s,"seq":%d,'
        return form % (message.channel, msgspec.json.encode(self.id), self.seq + 1)

    def complete(self, entry: Entry) -> Entry:
        """An entry from the files as the ring would have it for this view."""
        return paired(entry, self.held)[0] if isinstance(self.view, Trades) else entry

    def fall_behind(self, entry: Entry, serial: int, sent: int) -> None:
        """The socket took no more than `sent` messages of an entry: from here the connection serves it."""
        self.live = False
        self.cursor = entry.before
        self.serial = serial
        if entry.paired is not None:
            self.held = entry.paired.before
        if sent:
            self.partial, self.sent = entry, sent
        self.outlet.wake()
