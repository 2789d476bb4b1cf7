"""Events that are not quite what they were: each key is read by itself, and one of another type counts as absent.

For what the typed decoders of `streams` refuse. An exchange adds and changes keys without notice, and one of them says
nothing of the others: who asks for a coin gets every event of which the coin can be read.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from hyperwatch.node.json_lines import again
from hyperwatch.node.keys import DiffKeys, FillKeys, FillPart, OrderKeys, OrderPart

__all__ = ["UNREADABLE", "diff_of", "fill_of", "int_of", "order_of", "text_of_json"]

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding raises for bytes that are not what was expected."""

_Raw = msgspec.Raw | bytes
_T = TypeVar("_T")
_NONE = msgspec.Raw()
_NULL = msgspec.Raw(b"null")


class _Order(msgspec.Struct, gc=False):
    user: msgspec.Raw = _NONE
    status: msgspec.Raw = _NONE
    order: msgspec.Raw = _NONE
    time: msgspec.Raw = _NONE


class _OrderPart(msgspec.Struct, gc=False):
    coin: msgspec.Raw = _NONE
    side: msgspec.Raw = _NONE
    timestamp: msgspec.Raw = _NONE
    isTrigger: msgspec.Raw = _NONE


class _Fill(msgspec.Struct, gc=False, array_like=True):
    user: msgspec.Raw
    fill: msgspec.Raw


class _FillPart(msgspec.Struct, gc=False):
    coin: msgspec.Raw = _NONE
    tid: msgspec.Raw = _NONE
    time: msgspec.Raw = _NONE
    side: msgspec.Raw = _NONE
    crossed: msgspec.Raw = _NONE
    px: msgspec.Raw = _NULL
    sz: msgspec.Raw = _NULL
    hash: msgspec.Raw = _NULL


class _Diff(msgspec.Struct, gc=False):
    user: msgspec.Raw = _NONE
    coin: msgspec.Raw = _NONE
    oid: msgspec.Raw = _NONE
    raw_book_diff: msgspec.Raw = _NULL


_ORDER, _ORDER_PART = msgspec.json.Decoder(_Order), msgspec.json.Decoder(_OrderPart)
_FILL, _FILL_PART = msgspec.json.Decoder(_Fill), msgspec.json.Decoder(_FillPart)
_DIFF = msgspec.json.Decoder(_Diff)
_TEXT, _INT, _BOOL = msgspec.json.Decoder(str), msgspec.json.Decoder(int), msgspec.json.Decoder(bool)


def order_of(event: _Raw) -> OrderKeys | None:
    """The keys of an order status; None where it is no object."""
    found = _read(_ORDER, event)
    if found is None:
        return None
    part = _read(_ORDER_PART, found.order) or _OrderPart()
    order = OrderPart(
        text_of_json(part.coin),
        text_of_json(part.side),
        int_of(part.timestamp) or 0,
        _read(_BOOL, part.isTrigger) or False,
    )
    return OrderKeys(text_of_json(found.user), text_of_json(found.status), order, text_of_json(found.time))


def fill_of(event: _Raw) -> FillKeys | None:
    """The keys of a fill; None where it is no pair."""
    found = _read(_FILL, event)
    if found is None:
        return None
    part = _read(_FILL_PART, found.fill) or _FillPart()
    fill = FillPart(
        text_of_json(part.coin), int_of(part.tid), int_of(part.time) or 0, text_of_json(part.side),
        _read(_BOOL, part.crossed), part.px, part.sz, part.hash,
    )  # fmt: skip
    return FillKeys(text_of_json(found.user), fill)


def diff_of(event: _Raw) -> DiffKeys | None:
    """The keys of a book diff; None where it is no object."""
    found = _read(_DIFF, event)
    if found is None:
        return None
    return DiffKeys(text_of_json(found.user), text_of_json(found.coin), int_of(found.oid) or 0, found.raw_book_diff)


def text_of_json(value: _Raw) -> str:
    """A string; "" where it is none."""
    return _read(_TEXT, value) or ""


def int_of(value: _Raw) -> int | None:
    """A whole number of at most 64 bits; None where it is none."""
    number = _read(_INT, value)
    return number if number is not None and number.bit_length() <= _BITS else None


_BITS = 64


def _read(decoder: msgspec.json.Decoder[_T], value: _Raw) -> _T | None:
    if not memoryview(value).nbytes:
        return None
    try:
        return again(decoder, value)
    except UNREADABLE:
        return None
