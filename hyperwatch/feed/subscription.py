"""A subscription: a view, and a cursor in the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
import msgspec

from hyperwatch.feed.budget import Allowance
from hyperwatch.feed.frames import head_of
from hyperwatch.feed.packing import Message
from hyperwatch.feed.trades import Trades, paired
from hyperwatch.feed.views import Behind, View
from hyperwatch.log.batch import Entry
from hyperwatch.log.cursor import Cursor
from hyperwatch.log.gaps import Gap
from hyperwatch.log.reader import Reader
from hyperwatch.node.trades import Held

__all__ = ["Framed", "Offer", "Outlet", "Subscription"]

Offer = Callable[[Sequence[bytes], int], bool]
"""Sends the parts of whole frames, so many bytes together, without waiting; False where nothing was taken."""


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

    view: View
    id: str
    outlet: Outlet
    cursor: Cursor
    """Where it stands while it is behind, at an entry's start."""
    serial: int
    """The ring's number of the entry there; -1 where the files serve it. While live: entries before it were sent by the
    connection."""
    live: bool = False
    reader: Reader | None = None
    reads: int = 0
    """How often that reader has read."""
    gap: Gap | None = None
    """What is missing where it begins, and has not been told yet."""
    held: Held = attrs.Factory(Held)
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
        return _form_of(message) % (self.name, self.seq + 1) if message.channel else b""

    def complete(self, entry: Entry) -> Entry:
        """An entry from the files as the ring would have it for this view."""
        return paired(entry, self.held)[0] if isinstance(self.view, Trades) else entry

    def fall_behind(self, entry: Entry, serial: int, why: Behind) -> None:
        """The socket took nothing of an entry, or its client has no time left: from here the connection serves it."""
        self.why = why
        self.cursor = entry.before
        self.serial = serial
        if entry.paired is not None:
            self.held = entry.paired.before
        self.outlet.wake()


class Framed:
    """A message as WebSocket frames, for one subscription after the other: what they share is made once."""

    def __init__(self, message: Message) -> None:
        self._binary, self._tail = message.binary, message.tail
        self._form = _form_of(message) if message.channel else None
        self._headers: dict[int, tuple[bytes, int]] = {}  # by the length of what stands before the tail; frames' sizes

    def next(self, name: bytes, seq: int) -> tuple[tuple[bytes, bytes, bytes], int]:
        """(the parts of a frame for a subscription of that name, their size)."""
        head = b"" if self._form is None else self._form % (name, seq)
        known = self._headers.get(len(head))
        header, size = known or self._header(len(head))
        return (header, head, self._tail), size

    def _header(self, length: int) -> tuple[bytes, int]:
        length_bytes = length + len(self._tail)
        header = head_of(length_bytes, binary=self._binary)
        self._headers[length] = header, len(header) + length_bytes
        return self._headers[length]


def _form_of(message: Message) -> bytes:
    """What stands before the tail, for `id` and `seq` to be put in."""
    if message.binary:
        return b'{"channel":"%b","id":%%b,"seq":%%d}\n' % message.channel  # the body begins right behind the newline
    return b'{"channel":"%b","data":{"id":%%b,"seq":%%d,' % message.channel
