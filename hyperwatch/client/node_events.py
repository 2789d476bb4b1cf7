"""The node's events as objects. Pure.

Names and values are the node's own: decimals are strings, and words such as a status are whatever the node says. Keys
that are not known here are let pass; `Events.raws` has them. What later versions of a node added may be absent.
"""

from __future__ import annotations

import attrs

__all__ = [
    "Builder",
    "Diff",
    "DiffEvent",
    "Fill",
    "FillEvent",
    "Liquidation",
    "NewSize",
    "Order",
    "OrderEvent",
    "SizeUpdate",
]


@attrs.frozen
class Builder:
    """Who built an order for its user."""

    b: str
    """Address."""
    f: int
    """Fee, tenths of a basis point."""


@attrs.frozen
class Order:
    """An order as it is after an event."""

    coin: str
    side: str
    """`B` is bid, `A` is ask."""
    limitPx: str
    sz: str
    """What is left of it."""
    oid: int
    timestamp: int
    """UTC ms."""
    origSz: str = ""
    triggerCondition: str = ""
    isTrigger: bool = False
    triggerPx: str = ""
    children: tuple[Order, ...] = ()
    isPositionTpsl: bool = False
    reduceOnly: bool = False
    orderType: str = ""
    tif: str | None = None
    cloid: str | None = None


@attrs.frozen
class OrderEvent:
    """What happened to an order."""

    user: str
    status: str
    """An open set: see the protocol."""
    order: Order
    time: str = ""
    """UTC, as the node wrote it: up to 9 digits of a second, no offset."""
    hash: str | None = None
    builder: Builder | None = None


@attrs.frozen
class Liquidation:
    """Whose position a fill liquidated."""

    liquidatedUser: str
    markPx: str
    method: str


@attrs.frozen
class Fill:
    """One side of a match."""

    coin: str
    px: str
    sz: str
    side: str
    time: int
    """UTC ms."""
    oid: int
    tid: int
    """Of both sides of a match; not unique in time."""
    crossed: bool = False
    """Whether this side was the taker."""
    startPosition: str = ""
    dir: str = ""
    closedPnl: str = ""
    hash: str = ""
    fee: str = ""
    feeToken: str = ""
    builderFee: str | None = None
    cloid: str | None = None
    liquidation: Liquidation | None = None
    builder: str | None = None
    twapId: int | None = None
    deployerFee: str | None = None
    priorityGas: str | None = None
    feeTrialEscrow: str | None = None


@attrs.frozen
class FillEvent:
    """A fill and whose it is."""

    user: str
    fill: Fill


@attrs.frozen
class NewSize:
    """An order came to the book."""

    sz: str
    insertBefore: int | None = None
    """The oid that it stands before; at the end of the queue where it is None."""


@attrs.frozen
class SizeUpdate:
    """An order's size in the book changed."""

    origSz: str
    """Before."""
    newSz: str


@attrs.frozen
class Diff:
    """What changed of an order in the book: one of the two."""

    new: NewSize | None = None
    update: SizeUpdate | None = None


@attrs.frozen
class DiffEvent:
    """A change of the book."""

    user: str
    oid: int
    coin: str
    side: str
    px: str
    raw_book_diff: Diff | str
    """A word, such as `remove`, or what changed."""
