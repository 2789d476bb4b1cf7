"""The official types that fills make: `trades` of one coin, `userFills` of one account. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import attrs
import msgspec

from hyperwatch.derive.trades import OpenFills, PairedTrades, Trade, pair
from hyperwatch.feed.channels.events import Whole
from hyperwatch.feed.cost import ASK_US, DETAIL_US, EVENT_US
from hyperwatch.feed.filters.word_lists import WordList
from hyperwatch.feed.messages import Message
from hyperwatch.feed.routing import RoutingKeys
from hyperwatch.ingest.counters import Counters
from hyperwatch.log.batches import Batch, Entry
from hyperwatch.node.json_lines import again
from hyperwatch.node.keys import FillKeys
from hyperwatch.node.streams import FILLS

__all__ = ["TradePairing", "Trades", "UserFills", "paired"]


class TradePairing:
    """Pairs the fills of a log in its order, once for all subscribers.

    Args:
        counters: count the trades that became complete, and the fills that were given up.
    """

    def __init__(self, counters: Counters) -> None:
        self._held = OpenFills()
        self._counters = counters

    def complete(self, batch: Batch) -> Batch:
        """The next batch, its trades in its entries."""
        entries = []
        for entry in batch.entries:
            whole, made = paired(entry, self._held)
            self._held = made.after
            self._counters.trades += len(made.trades)
            self._counters.one_sided += made.one_sided
            entries.append(whole)
        return attrs.evolve(batch, entries=entries)


def paired(entry: Entry, held: OpenFills) -> tuple[Entry, PairedTrades]:
    """(an entry of fills with the trades that become complete in it, by what was held before it; these alone)."""
    made = pair(held, entry.slice, cast("Sequence[FillKeys]", entry.slice.keys))
    return attrs.evolve(entry, paired=made), made


@attrs.frozen
class Trades(Whole):
    """The official `trades` of one coin."""

    coin: str

    resumable = False
    needs_keys = True
    compress = None
    stream = FILLS.name
    snapshot = ()

    @property
    def name(self) -> str:
        return f"trades {self.coin}"

    @property
    def lists(self) -> tuple[WordList, ...]:
        return (frozenset([self.coin]),)

    @property
    def coins(self) -> frozenset[str]:
        return frozenset([self.coin])

    @property
    def interest(self) -> RoutingKeys:
        return RoutingKeys(coins=self.coins)  # the second fill of a trade is in it, and of the same coin

    def look_us(self, entry: Entry) -> float:
        return ASK_US + EVENT_US * (0 if entry.paired is None else len(entry.paired.trades))

    def messages(self, entry: Entry) -> Sequence[Message]:
        """At most one message, with the trades of which the second fill is in the entry."""
        if entry.paired is None:
            return ()
        trades = [_official(trade) for trade in entry.paired.trades if trade.taker.coin == self.coin]
        return [Message(b"", b'{"channel":"trades","data":[%s]}' % b",".join(trades))] if trades else ()


@attrs.frozen
class UserFills(Whole):
    """The official `userFills` of one account."""

    user: str

    resumable = False
    needs_keys = True
    compress = None
    coins = None
    stream = FILLS.name
    lists = ()

    @property
    def name(self) -> str:
        return f"userFills {self.user}"

    @property
    def interest(self) -> RoutingKeys:
        return RoutingKeys(users=frozenset([self.user]))

    @property
    def snapshot(self) -> tuple[Message, ...]:
        """The snapshot that clients wait for. The node's files hold no account's history: it is empty."""
        return (_user_fills(b'"isSnapshot":true,', self.user, ()),)

    def look_us(self, entry: Entry) -> float:
        return ASK_US + DETAIL_US * len(entry.slice.users.get(self.user, ()))

    def messages(self, entry: Entry) -> Sequence[Message]:
        """At most one message, with the account's fills of the entry."""
        events = entry.slice.some(entry.slice.users.get(self.user, ()))
        fills = [again(_PAIR, event).fill for event in events]
        return (_user_fills(b"", self.user, fills),) if fills else ()


class _Pair(msgspec.Struct, gc=False, array_like=True):
    user: str
    fill: msgspec.Raw


_PAIR = msgspec.json.Decoder(_Pair)


def _user_fills(snapshot: bytes, user: str, fills: Sequence[msgspec.Raw]) -> Message:
    body = b'{"channel":"userFills","data":{%s"user":"%s","fills":[%s]}}' % (snapshot, user.encode(), b",".join(fills))
    return Message(b"", body)


def _official(trade: Trade) -> bytes:
    """A trade as the official API has it; the values are the node's own bytes."""
    fill = trade.taker
    return b'{"coin":%s,"side":%s,"px":%s,"sz":%s,"time":%d,"hash":%s,"tid":%s,"users":[%s,%s]}' % (
        msgspec.json.encode(fill.coin),
        msgspec.json.encode(fill.side),
        bytes(fill.px),
        bytes(fill.sz),
        fill.time,
        bytes(fill.hash),
        msgspec.json.encode(fill.tid),
        msgspec.json.encode(trade.buyer),
        msgspec.json.encode(trade.seller),
    )
