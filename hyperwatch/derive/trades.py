"""Two fills make a trade. Pure.

A node writes a match as two fills, one for each side, in no fixed order, and but for the by-block layout on two lines,
which may be read at different times. They share block, coin and tid. A tid is a hash of the two orders, and these may
match more than once in a block: so opposite sides of a (block, coin, tid) are paired first in, first out. The plain
layout knows no blocks; there the fills' time, which is their block's, stands in.

Some fills have no other side: minted and burnt outcomes, settlements. So a fill waits until the log has gone on by a
second of block time, which no node takes for a block's lines, and then is given up. A fill of which coin or tid cannot
be read has none either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs
import msgspec

from hyperwatch.node.keys import FillKeys, FillPart
from hyperwatch.node.slices import BlockSlice

__all__ = ["HELD", "HOLD_MS", "OpenFills", "PairedTrades", "Trade", "pair"]

HOLD_MS = 1000
HELD = 1024  # fills that wait from one run to the next; beyond it the oldest is given up. In recordings one does

_OTHER = {"A": "B", "B": "A"}
_Key = tuple[int | str, str, int | None, str | None]  # block or time, coin, tid, side


@attrs.frozen
class Trade:
    """A match."""

    taker: FillPart
    """The fill that crossed the book: its side, price, size and hash are the trade's."""
    buyer: str
    seller: str


@attrs.frozen(eq=False)
class _Half:
    """A fill that waits for its other side."""

    key: _Key
    fill: FillKeys
    until_ms: int


@attrs.frozen
class OpenFills:
    """What waits for its other side, oldest first: all that one run must know of those before it."""

    halves: tuple[_Half, ...] = ()
    newest_ms: int = 0
    """The latest block time of the runs before."""


@attrs.frozen
class PairedTrades:
    """What a run's fills came to."""

    trades: tuple[Trade, ...]
    """In the order in which they became complete."""
    before: OpenFills
    after: OpenFills
    one_sided: int
    """How many fills were given up: no other side of them came in time."""


def pair(held: OpenFills, slice_: BlockSlice, fills: Iterable[FillKeys]) -> PairedTrades:
    """The trades that a run of fills completes.

    Args:
        held: what waited before it.
        slice_: for its block and time.
        fills: its events.
    """
    newest_ms = max(held.newest_ms, slice_.time_ms or 0)
    block = slice_.time if slice_.block is None else slice_.block
    waiting = _Waiting(held.halves)
    trades: list[Trade] = []
    nobodys = 0
    for fill in fills:
        if fill.fill.tid is None or not fill.fill.coin:
            nobodys += 1  # nothing says whose other side it is
            continue
        side = fill.fill.side
        other = waiting.take((block, fill.coin, fill.fill.tid, _OTHER.get(side)))
        if other is None:
            key = (block, fill.coin, fill.fill.tid, side)
            waiting.put(_Half(key, _compact(fill), newest_ms + HOLD_MS))
        else:
            trades.append(_trade(other, fill))
    left = waiting.halves()
    kept = tuple(half for half in left if half.until_ms > newest_ms)[-HELD:]
    return PairedTrades(tuple(trades), held, OpenFills(kept, newest_ms), len(left) - len(kept) + nobodys)


class _Waiting:
    """Halves, by key and in the order in which they came."""

    def __init__(self, halves: Iterable[_Half]) -> None:
        self._by_key: dict[_Key, deque[_Half]] = {}
        self._all: dict[_Half, None] = {}
        for half in halves:
            self.put(half)

    def put(self, half: _Half) -> None:
        self._by_key.setdefault(half.key, deque()).append(half)
        self._all[half] = None

    def take(self, key: _Key) -> FillKeys | None:
        """The first of that key, which waits no longer; None where there is none."""
        queue = self._by_key.get(key)
        if not queue:
            return None
        half = queue.popleft()
        del self._all[half]
        return half.fill

    def halves(self) -> list[_Half]:
        return list(self._all)


def _trade(first: FillKeys, second: FillKeys) -> Trade:
    taker = first if first.fill.crossed or not second.fill.crossed else second
    buyer, seller = (first, second) if first.fill.side == "B" else (second, first)
    return Trade(taker.fill, buyer.user, seller.user)


def _compact(fill: FillKeys) -> FillKeys:
    """Without views into the bytes that were read, of which each would keep 64 KiB alive."""
    part = fill.fill
    own = msgspec.structs.replace(part, px=part.px.copy(), sz=part.sz.copy(), hash=part.hash.copy())
    return FillKeys(fill.user, own)
