"""What a filter may ask of an order beyond the keys that all events are routed by. Pure.

An order's `open`, `triggered` and `filled` or `canceled` must all match or all fail, or a filter would lose the order's
end. So a condition looks only at what stays the same, and where that cannot be said of an order, the order passes:

- `oid`, `cloid`, `builder` and `orderType` stay.
- `tif` is null until a trigger order triggers, and Gtc from then on: null counts as Gtc.
- `limitPx` and `origSz` stay, but for the size of position TP/SL, which is 0 until they trigger.
"""

from __future__ import annotations

import decimal
import functools
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Self

import attrs
import msgspec

from hyperwatch.feed.filters.word_lists import OidSet, WordList, shared
from hyperwatch.node.json_lines import again
from hyperwatch.node.key_index import UNREADABLE
from hyperwatch.node.keys import OrderDetails, OrderDetailsPart
from hyperwatch.node.slices import Raw

__all__ = ["ORDER_TYPES", "TIFS", "OrderConditions", "address", "refuse_empty"]

TIFS = ("Alo", "Gtc", "Ioc", "FrontendMarket", "LiquidationMarket")
ORDER_TYPES = (
    "Limit", "Market", "Stop Market", "Stop Limit", "Take Profit Market", "Take Profit Limit",
    "Vault Close", "Twap Slice", "Spot Dust Conversion",
)  # fmt: skip
"""Those that were seen; both sets are open."""

_ADDRESS_DIGITS, _CLOID_DIGITS = 40, 32
_HEX = re.compile("0[xX][0-9a-fA-F]*")
_OIDS = range(2**64)
_DIGITS = 40  # on either side of the point: twice what any price or size needs, and no work for an attacker's number
_EXACT = decimal.Context(prec=4 * _DIGITS)  # a product of two such numbers, to its last digit
_PLAIN = re.compile(rf"[0-9]{{1,{_DIGITS}}}(?:\.[0-9]{{1,{_DIGITS}}})?")


@attrs.frozen(kw_only=True)
class OrderConditions:
    """What must hold of an order, all of it. None asks nothing."""

    min_notional: Decimal | None = None
    """Least limitPx x origSz."""
    min_px: Decimal | None = None
    max_px: Decimal | None = None
    tifs: frozenset[str] | None = None
    order_types: frozenset[str] | None = None
    oids: OidSet | None = None
    cloids: frozenset[str] | None = None
    """In lower case, as builders."""
    builders: frozenset[str] | None = None

    @classmethod
    def of(
        cls,
        *,
        min_notional: str | None = None,
        min_px: str | None = None,
        max_px: str | None = None,
        tifs: Sequence[str] | None = None,
        order_types: Sequence[str] | None = None,
        oids: Sequence[int] | None = None,
        cloids: Sequence[str] | None = None,
        builders: Sequence[str] | None = None,
    ) -> Self | None:
        """From the words of a subscription or of a command line; None where nothing is asked.

        Raises:
            ValueError: where a list is empty, a word is no decimal, oid, cloid or address, or no price lies between two.
        """
        refuse_empty(tifs=tifs, orderTypes=order_types, oids=oids, cloids=cloids, builders=builders)
        asked = cls(
            min_notional=None if min_notional is None else _decimal("minNotional", min_notional),
            min_px=None if min_px is None else _decimal("minPx", min_px),
            max_px=None if max_px is None else _decimal("maxPx", max_px),
            tifs=None if tifs is None else shared(tifs),
            order_types=None if order_types is None else shared(order_types),
            oids=None if oids is None else OidSet(map(_checked_oid, oids)),
            cloids=None if cloids is None else shared(_hex(word, _CLOID_DIGITS, "cloid") for word in cloids),
            builders=None if builders is None else shared(map(address, builders)),
        )
        if asked.min_px is not None and asked.max_px is not None and asked.min_px > asked.max_px:
            msg = f"minPx {min_px} is above maxPx {max_px}: no price lies between them"
            raise ValueError(msg)
        return None if asked == cls() else asked

    @property
    def lists(self) -> Iterable[WordList]:
        """Its lists of words."""
        return (
            each for each in (self.tifs, self.order_types, self.oids, self.cloids, self.builders) if each is not None
        )

    def hold(self, event: Raw) -> bool:
        """Whether they hold of an event's order; of what is no order none does."""
        try:
            try:
                known = _DETAILS.decode(event)
            except RecursionError:  # as `again` does, which would be a call for every event
                known = again(_DETAILS, event)
        except UNREADABLE:
            return False
        order = known.order
        return (
            (self.oids is None or _oid_of(order.oid) in self.oids)
            and (self.cloids is None or _text_of(order.cloid).lower() in self.cloids)
            and (self.builders is None or _builder_of(known.builder).lower() in self.builders)
            and (self.order_types is None or _text_of(order.orderType) in self.order_types)
            and (self.tifs is None or (_text_of(order.tif) or _REST) in self.tifs)
            and self._amounts_hold(order)
        )

    def _amounts_hold(self, order: OrderDetailsPart) -> bool:
        """Whether price and notional do. An amount that cannot be read is no reason to leave an order out."""
        if self.min_px is None and self.max_px is None and self.min_notional is None:
            return True
        px = _amount(_text_of(order.limitPx))
        if px is None:
            return True
        return (
            (self.min_px is None or px >= self.min_px)
            and (self.max_px is None or px <= self.max_px)
            and (self.min_notional is None or self._notional_holds(self.min_notional, px, order))
        )

    @staticmethod
    def _notional_holds(least: Decimal, px: Decimal, order: OrderDetailsPart) -> bool:
        size = _amount(_text_of(order.origSz))
        return not size or _EXACT.multiply(px, size) >= least or bytes(order.isPositionTpsl) == _TRUE


def address(text: str) -> str:
    """An account's address as the node writes it, in lower case.

    Raises:
        ValueError: where it is none.
    """
    return _hex(text, _ADDRESS_DIGITS, "address")


def refuse_empty(**lists: Sequence[object] | None) -> None:
    """Raises ValueError for a list that is there and empty."""
    for name, words in lists.items():
        if words is not None and not words:
            msg = f"{name} is empty, which no event matches; leave it out to mean all"
            raise ValueError(msg)


def _decimal(name: str, text: str) -> Decimal:
    if not _PLAIN.fullmatch(text):
        msg = f"{name} {text[:64]!r} is no decimal: digits are, up to {_DIGITS} on either side of a point, as in '0.5'"
        raise ValueError(msg)
    return Decimal(text)


def _hex(text: str, digits: int, what: str) -> str:
    if len(text) != len("0x") + digits or not _HEX.fullmatch(text):
        msg = f"{text[:64]!r} is no {what}: 0x and {digits} hex digits are"
        raise ValueError(msg)
    return text.lower()


def _checked_oid(number: int) -> int:
    if number not in _OIDS:
        msg = f"{str(number)[:64]} is no oid: whole numbers from 0 to 2^64 - 1 are"
        raise ValueError(msg)
    return number


# How details are read. What is absent, null or of another type than it always was is "", or an oid of nobody.

_DETAILS = msgspec.json.Decoder(OrderDetails)
_TEXT = msgspec.json.Decoder(str | None)
_INT = msgspec.json.Decoder(int)
_TRUE = b"true"
_REST = "Gtc"  # how an order rests that says nothing
_NOBODY = -1


class _Builder(msgspec.Struct, gc=False):
    b: msgspec.Raw = msgspec.Raw()


_BUILDER = msgspec.json.Decoder(_Builder | None)


def _text_of(raw: msgspec.Raw) -> str:
    try:
        return _TEXT.decode(raw) or ""
    except UNREADABLE:
        return ""


def _oid_of(raw: msgspec.Raw) -> int:
    try:
        return _INT.decode(raw)
    except UNREADABLE:
        return _NOBODY


def _builder_of(raw: msgspec.Raw) -> str:
    try:
        builder = _BUILDER.decode(raw)
    except UNREADABLE:
        return ""
    return _text_of(builder.b) if builder else ""


@functools.lru_cache(maxsize=4096)  # prices and sizes come again and again
def _amount(text: str) -> Decimal | None:
    return Decimal(text) if _PLAIN.fullmatch(text) else None
