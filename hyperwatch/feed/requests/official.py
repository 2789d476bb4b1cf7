"""The official types that are served: their subscriptions into requests. Pure.

They tolerate unknown keys, as the official service does. What a client can only mean as a key of our own types is not
passed over in silence: it is an error where what follows would be wrong, else a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import msgspec

from hyperwatch.feed.channels.events import Channel, OrderUpdates
from hyperwatch.feed.channels.trades import Trades, UserFills
from hyperwatch.feed.filters.order_details import address
from hyperwatch.feed.requests.answers import INVALID, ProtocolError, Subscribe, Unsubscribe
from hyperwatch.feed.requests.filter_keys import FilterKeys, few

__all__ = ["OFFICIAL", "official"]

OFFICIAL = {"orderUpdates": "orders", "userFills": "fills", "trades": "fills"}
"""By type: the type of our own that has filters, cursors and gaps of the same."""


class _UserRequest(msgspec.Struct):
    user: str


class _CoinRequest(msgspec.Struct):
    coin: str


def official(kind: str, method: str, echo: bytes) -> Subscribe | Unsubscribe:
    """What a subscription of one of the official types asks for.

    Args:
        kind: one of OFFICIAL.
        method: subscribe or unsubscribe.
        echo: the subscription as the client wrote it; valid JSON.

    Raises:
        ProtocolError: with the answer in it.
    """
    try:
        channel = _VIEWS[kind](echo)
        if method == "unsubscribe":
            return Unsubscribe(echo, None, channel)
        keys = msgspec.json.decode(echo, type=dict[str, Any])
        _refuse_start(kind, keys)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProtocolError(INVALID, echo, str(error), "invalid-subscription") from None
    own = "coin" if kind == "trades" else "user"
    idle = sorted(_IDLE.intersection(keys) - {own})
    return Subscribe(
        channel, echo, warnings=few(idle, lambda key: f"{key!r} does nothing here: {OFFICIAL[kind]} has filters")
    )


_IDLE = frozenset([*(field.name for field in attrs.fields(FilterKeys)), "filters", "compress", "coin", "user"])


def _refuse_start(kind: str, keys: dict[str, Any]) -> None:
    if "from" in keys:
        msg = f"{kind} begins at the newest complete line, and takes no from; {OFFICIAL[kind]} does"
        raise ValueError(msg)


def _user(echo: bytes) -> str:
    return address(msgspec.json.decode(echo, type=_UserRequest).user)


def _coin(echo: bytes) -> str:
    coin = msgspec.json.decode(echo, type=_CoinRequest).coin
    if "*" in coin or not coin.strip():
        msg = f"{coin!r} is no coin: trades are of one coin; fills takes coins with a star, as in xyz:*"
        raise ValueError(msg)
    return coin


_VIEWS: dict[str, Callable[[bytes], Channel]] = {
    "orderUpdates": lambda echo: OrderUpdates(_user(echo)),
    "userFills": lambda echo: UserFills(_user(echo)),
    "trades": lambda echo: Trades(_coin(echo)),
}
