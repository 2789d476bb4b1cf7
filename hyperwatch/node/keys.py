"""What the feed needs to know of an event; the rest stays the node's own bytes.

Structs without garbage collection: at 23,500 events a second the collector costs more than the parser.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

__all__ = [
    "DiffKeys",
    "FillKeys",
    "FillPart",
    "Keys",
    "OrderDetails",
    "OrderDetailsPart",
    "OrderKeys",
    "OrderPart",
    "words_of",
]

_ABSENT = msgspec.Raw()
_NULL = msgspec.Raw(b"null")
_LATEST_MS = 10**14 - 1  # as `times` reads and cursors carry: before the year 5138


class Keys(Protocol):
    """What every stream's events have in common."""

    @property
    def user(self) -> str:
        """The account, 0x and 40 lower-case hex digits."""

    @property
    def coin(self) -> str:
        """The market as the node spells it; case matters."""

    @property
    def when(self) -> str:
        """The event's own time as text, what stands in for a block number in the plain layout; "" where it has none."""


class OrderPart(msgspec.Struct, gc=False):
    """Of the 16 keys of an order, those that filters and classes look at."""

    coin: str
    side: str = ""
    timestamp: int = 0
    isTrigger: bool = False  # the node's own spelling; a rename would cost a look-up per event


class OrderKeys(msgspec.Struct, gc=False):
    """One event of `node_order_statuses`."""

    user: str
    status: str
    order: OrderPart
    time: str = ""

    @property
    def coin(self) -> str:
        return self.order.coin

    @property
    def when(self) -> str:
        return self.time


class OrderDetailsPart(msgspec.Struct, gc=False):
    """Of the 16 keys of an order, those that only a few filters look at; b"" where one is absent."""

    limitPx: msgspec.Raw = _ABSENT
    oid: msgspec.Raw = _ABSENT
    isPositionTpsl: msgspec.Raw = _ABSENT
    orderType: msgspec.Raw = _ABSENT
    origSz: msgspec.Raw = _ABSENT
    tif: msgspec.Raw = _ABSENT
    cloid: msgspec.Raw = _ABSENT


class OrderDetails(msgspec.Struct, gc=False):
    """The rest of an event of `node_order_statuses` that filters look at: found, not read.

    Not among the keys, for it costs as much again. The values stay JSON: one that is of no known type hides no other.
    """

    order: OrderDetailsPart
    builder: msgspec.Raw = _ABSENT


class FillPart(msgspec.Struct, gc=False):
    """The second half of a fill's pair: what filters and trades look at. The rest is the node's affair."""

    coin: str
    tid: int | None = None
    time: int = 0
    side: str = ""
    crossed: bool | None = None
    px: msgspec.Raw = _NULL
    sz: msgspec.Raw = _NULL
    hash: msgspec.Raw = _NULL


class FillKeys(msgspec.Struct, gc=False, array_like=True):
    """One event of `node_fills`: the pair `["0xuser", {fill}]`."""

    user: str
    fill: FillPart

    @property
    def coin(self) -> str:
        return self.fill.coin

    @property
    def when(self) -> str:
        return str(self.fill.time) if 0 < self.fill.time <= _LATEST_MS else ""


class DiffKeys(msgspec.Struct, gc=False):
    """One event of `node_raw_book_diffs`. It carries no time: a plain file of them is undated."""

    user: str
    coin: str
    oid: int
    raw_book_diff: msgspec.Raw

    @property
    def when(self) -> str:
        return ""


def words_of(keys: Keys) -> tuple[str, ...]:
    """What events are routed by: account, coin and, of order statuses, the status; "" for each that could not be read."""
    return (keys.user, keys.coin, keys.status) if isinstance(keys, OrderKeys) else (keys.user, keys.coin)
