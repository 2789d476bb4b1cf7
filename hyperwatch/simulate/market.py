"""A made-up market: seeded, endless, and in the very shapes that a node writes.

It is no matching engine: trades pick any resting order, and prices wander. What holds is what a reader of the files can
see: the mix of statuses, the keys and their order, and the life of each order (nothing ends that was not open; sizes
are what remains). Shapes and shares come from recordings of mainnet, the events from `random.Random(seed)` alone.

Events are built with f-strings: a JSON encoder would take most of the time, and the node's key order would be its whim.
"""

from __future__ import annotations

import math
from collections import deque

from hyperwatch.simulate.model import (
    BLOCK_GAP_NS,
    COINS,
    Block,
    Coin,
    Dice,
    Order,
    Pool,
    decimal,
    moved,
    order_json,
    stamp,
)

__all__ = ["MAX_RESTING", "Market"]

MAX_RESTING = 5_000
"""Orders in the book, and as many again waiting for a trigger, at most: memory stays what it is, however long it runs."""

_ANCHOR = (985_000_000, 1_778_000_000_000_000_000)  # a block of mainnet and about its time, ns: numbers look familiar
_JITTER_NS = 10_000_000  # below the gap, so that times of blocks never go back
_BURST = 0.72  # of all draws are one to three refused post-only orders: 80 % of events, mainnet has 59 to 95 %
_LOT = 0.96  # of blocks are of the usual size; the rest are empty or nearly so, as in the recordings

_SINGLE_REFUSALS = (
    ("perpMarginRejected",) * 60
    + ("iocCancelRejected",) * 30
    + (
        *("tickRejected", "minTradeNtlRejected", "reduceOnlyRejected", "insufficientSpotBalanceRejected"),
        *("oracleRejected", "perpMaxPositionRejected", "badTriggerPxRejected", "openInterestIncreaseRejected"),
    )
)
_RARE_ENDS = ("reduceOnlyCanceled", "scheduledCancel", "marginCanceled", "selfTradeCanceled", "liquidatedCanceled")
# What one draw does that is no burst, in shares of such draws.
_ACTS = (
    ("quote",) * 144 + ("refuse",) * 36 + ("take",) * 10 + ("flash",) * 3 + ("wait",) * 4 + ("fire",) * 2 + ("unwait",)
)
_BUILDER = "0x" + "b01d" * 10
_OTHER = {"A": "B", "B": "A"}


class Market:
    """Blocks of events, one after the other.

    Args:
        seed: the same seed, mean and start give the same bytes.
        statuses_per_block: mean number of order statuses; blocks vary around it, and some have next to none.
        start_ns: time of the first block, UTC nanoseconds since 1970. The first block's number and order ids follow
            from it, so that a later run into the same directory goes on instead of looking like a restarted node.
    """

    def __init__(self, seed: int, statuses_per_block: float, start_ns: int = _ANCHOR[1]) -> None:
        self._dice = Dice(seed)
        self._mean = statuses_per_block
        self._owed = 0.0  # events by which blocks so far fell short of their target: keeps the mean exact
        self._start = start_ns
        self._made = 0
        self._first = max(1, _ANCHOR[0] + (start_ns - _ANCHOR[1]) // BLOCK_GAP_NS)
        self._oid = self._first * 1000
        self._mids = {coin: coin.base for coin in COINS}  # ticks
        self._positions: dict[tuple[str, str], int] = {}  # bounded by users times coins
        self._fired: deque[tuple[int, Order]] = deque()  # triggered, with the block that decides what becomes of it
        self.resting = Pool()
        self.waiting = Pool()  # trigger orders
        self._number, self._ms, self._time = 0, 0, ""
        self._orders: list[bytes] = []
        self._fills: list[bytes] = []
        self._diffs: list[bytes] = []

    def next_block(self) -> Block:
        """The next block. Its events are the caller's to keep."""
        time_ns = self._start + self._made * BLOCK_GAP_NS + (int(self._dice.roll() * _JITTER_NS) if self._made else 0)
        self._number = self._first + self._made
        self._ms, self._time = time_ns // 1_000_000, stamp(time_ns)
        self._orders, self._fills, self._diffs = [], [], []
        self._made += 1
        for _ in range(8):  # a few prices move a tick
            coin = self._dice.coin()
            mid = self._mids[coin] + (1 if self._dice.chance(0.5) else -1)
            if abs(mid - coin.base) * 10 < coin.base:
                self._mids[coin] = mid
        target = self._target()
        while self._fired and self._fired[0][0] <= self._number and len(self._orders) < target:
            self._settle(self._fired.popleft()[1])
        while len(self._orders) < target:
            if self._dice.chance(_BURST):
                self._refuse_burst(min(1 + int(self._dice.roll() * 3), target - len(self._orders)))
            else:
                self._act(self._dice.pick(_ACTS))
        self._owed -= len(self._orders)
        return Block(self._number, time_ns, self._orders, self._fills, self._diffs)

    def _target(self) -> int:
        few = min(self._mean, 2.0)
        usual = (self._mean - (1 - _LOT) * few) / _LOT
        self._owed += usual * math.exp(self._dice.gauss(-0.08, 0.4)) if self._dice.chance(_LOT) else few
        return max(0, int(self._owed))

    def _act(self, what: str) -> None:
        coin = self._dice.coin()
        if what == "quote":  # the fuller the book, the more is canceled: it settles far below its bound
            if self.resting.orders and self._dice.chance(0.48 + 0.1 * len(self.resting) / MAX_RESTING):
                self._cancel(self.resting)
            else:
                self._place(coin)
        elif what == "refuse":
            order = self._make(
                self._dice.user(), coin, self._dice.side(), self._mids[coin], self._dice.lots(), tif="Ioc"
            )
            self._say(order, self._dice.pick(_SINGLE_REFUSALS))
        elif what == "take" and self.resting.orders:
            self._take()
        elif what == "flash":  # placed and canceled in one block
            self._place(coin)
            self._cancel(self.resting, self.resting.orders[-1])
        elif what == "wait" and len(self.waiting) < MAX_RESTING - 1:
            self._wait(coin)
        elif self.waiting.orders:
            (self._fire if what == "fire" else self._cancel)(self.waiting)

    def _refuse_burst(self, n: int) -> None:
        """Post-only orders of one user that would have matched: by far the most frequent event, so by far the leanest."""
        coin = self._dice.coin()
        side = self._dice.side()
        size = coin.size(self._dice.lots())
        reduce_only = "true" if self._dice.chance(0.18) else "false"
        head = (
            f'{{"time":"{self._time}","user":"{self._dice.user()}","hash":null,"builder":null,"status":"badAloPxRejected",'
            f'"order":{{"coin":"{coin.name}","side":"{side}","limitPx":"'
        )
        for step in range(1, n + 1):
            self._oid += 1
            px = coin.price(self._mids[coin] + (step if side == "B" else -step))
            self._orders.append(
                f'{head}{px}","sz":"{size}","oid":{self._oid},"timestamp":{self._ms},"triggerCondition":"N/A",'
                f'"isTrigger":false,"triggerPx":"0.0","children":[],"isPositionTpsl":false,"reduceOnly":{reduce_only},'
                f'"orderType":"Limit","origSz":"{size}","tif":"Alo","cloid":{self._dice.cloid()}}}}}'.encode()
            )

    def _make(
        self,
        user: str,
        coin: Coin,
        side: str,
        px: int,
        lots: int,
        *,
        tif: str = "Alo",
        children: str = "",
        kind: str = "Limit",
        level: tuple[str, int] | None = None,
    ) -> Order:
        """An order, neither said nor kept yet."""
        self._oid += 1
        rests = kind.endswith("Limit")
        order = Order(user, coin, side, px, lots, self._oid, self._dice.cloid(), head="", tail="", rests=rests)
        reduce_only = level is not None or self._dice.chance(0.02)
        order_json(order, self._ms, tif=tif, kind=kind, children=children, reduce_only=reduce_only, level=level)
        return order

    def _say(self, order: Order, status: str, size: str | None = None) -> str:
        """Write a status; returns its hash, JSON. As on mainnet only `open` has one, with the block's number inside."""
        digest, builder = "null", "null"
        if status == "open":
            digest = self._dice.digest(self._number)
            if self._dice.chance(0.01):
                builder = f'{{"b":"{_BUILDER}","f":{1 + int(self._dice.roll() * 50)}}}'
        size = order.coin.size(order.left) if size is None else size
        self._orders.append(
            f'{{"time":"{self._time}","user":"{order.user}","hash":{digest},"builder":{builder},"status":"{status}",'
            f'"order":{order.head}{size}{order.tail}}}'.encode()
        )
        return digest

    def _diff(self, order: Order, change: str) -> None:
        self._diffs.append(
            f'{{"user":"{order.user}","oid":{order.oid},"coin":"{order.coin.name}","side":"{order.side}",'
            f'"px":"{order.coin.price(order.px)}","raw_book_diff":{change}}}'.encode()
        )

    def _rest(self, order: Order, status: str = "open") -> Order:
        """Say `status` unless it was said, and put the order in the book."""
        if len(self.resting) >= MAX_RESTING:
            self._cancel(self.resting)
        if status:
            self._say(order, status)
        self._diff(order, f'{{"new":{{"sz":"{order.coin.size(order.left)}"}}}}')
        self.resting.add(order)
        return order

    def _place(self, coin: Coin) -> None:
        user, side, lots, children = self._dice.user(), self._dice.side(), self._dice.lots(), ""
        px = self._mids[coin] + (1 + int(self._dice.roll() ** 2 * 200)) * (-1 if side == "B" else 1)
        if self._dice.chance(0.01):
            child = self._trigger(user, coin, _OTHER[side], lots, stop=self._dice.chance(0.7))
            children = f"{child.head}{coin.size(lots)}{child.tail}"
        tif = "Gtc" if children or self._dice.chance(0.05) else "Alo"
        self._rest(self._make(user, coin, side, px, lots, tif=tif, children=children))

    def _cancel(self, pool: Pool, order: Order | None = None, status: str = "canceled") -> None:
        if order is None:
            order = self._dice.pick(pool.orders)
            if self._dice.chance(0.02):
                status = self._dice.pick(_RARE_ENDS)
        pool.remove(order)
        self._say(order, status)
        if pool is self.resting:
            self._diff(order, '"remove"')

    def _take(self) -> None:
        """An Ioc order that a resting one fills: two statuses in one block and nothing of it in the book."""
        maker = self._dice.pick(self.resting.orders)
        lots = min(maker.left, 1 + int(maker.left * self._dice.roll() * 1.5))
        user, side = self._dice.other(maker.user), _OTHER[maker.side]
        taker = self._make(user, maker.coin, side, maker.px, lots, tif="Ioc")
        self._trade(taker, maker, lots, self._say(taker, "open"))

    def _trade(self, taker: Order, maker: Order, lots: int, digest: str) -> None:
        self._say(taker, "filled", "0.0")
        old = maker.coin.size(maker.left)
        maker.left -= lots
        self._diff(maker, f'{{"update":{{"origSz":"{old}","newSz":"{maker.coin.size(maker.left)}"}}}}')
        if not maker.left:
            self.resting.remove(maker)
            self._say(maker, "filled")
            self._diff(maker, '"remove"')
        tid = self._dice.bits(50)
        for order in (taker, maker) if self._dice.chance(0.5) else (maker, taker):
            self._fill(order, maker.px, lots, crossed=order is taker, tid=tid, digest=digest)

    def _fill(self, order: Order, px: int, lots: int, *, crossed: bool, tid: int, digest: str) -> None:
        coin = order.coin
        key = (order.user, coin.name)
        start = self._positions.get(key, 0 if coin.perpetual else 10**12)
        end = self._positions[key] = start + (lots if order.side == "B" else -lots)
        micro = px * lots * 1_000_000 // 10 ** (coin.places + coin.size_places)  # notional, millionths of a dollar
        direction, closes = moved(coin, start, end)
        pnl = decimal(int(micro * (self._dice.roll() - 0.5) / 50) if closes else 0, 6)
        fee = decimal(micro * 45 // 100_000 if crossed else -(micro * 3 // 100_000), 6)
        cloid = "" if order.cloid == "null" else f'"cloid":{order.cloid},'
        self._fills.append(
            f'["{order.user}",{{"coin":"{coin.name}","px":"{coin.price(px)}",'
            f'"sz":"{coin.size(lots)}","side":"{order.side}","time":{self._ms},'
            f'"startPosition":"{coin.size(start)}","dir":"{direction}","closedPnl":"{pnl}",'
            f'"hash":{digest},"oid":{order.oid},"crossed":{"true" if crossed else "false"},"fee":"{fee}","tid":{tid},{cloid}'
            f'"feeToken":"USDC","twapId":null}}]'.encode()
        )

    def _trigger(self, user: str, coin: Coin, side: str, lots: int, *, stop: bool, limit: bool = False) -> Order:
        below = stop == (side == "A")
        level = int(self._mids[coin] * (1 + (0.01 + 0.08 * self._dice.roll()) * (-1 if below else 1)))
        px = level if limit else level * (11 if side == "A" else 13) // 12  # the worst price of a market order
        kind = f"{'Stop' if stop else 'Take Profit'} {'Limit' if limit else 'Market'}"
        return self._make(user, coin, side, px, lots, kind=kind, level=("below" if below else "above", level))

    def _wait(self, coin: Coin) -> None:
        """Trigger orders: one with a size, or the pair of a position, whose sizes are "0.0"."""
        user, side = self._dice.user(), self._dice.side()
        if self._dice.chance(0.5):
            pair = [self._trigger(user, coin, side, 0, stop=stop) for stop in (False, True)]
            pair[0].sibling, pair[1].sibling = pair[1], pair[0]
        else:
            stop, limit = self._dice.chance(0.6), self._dice.chance(0.3)
            pair = [self._trigger(user, coin, side, self._dice.lots(), stop=stop, limit=limit)]
        for order in pair:
            self._say(order, "open")
            self.waiting.add(order)

    def _fire(self, pool: Pool) -> None:
        order = self._dice.pick(pool.orders)
        pool.remove(order)
        self._say(order, "triggered")
        order.tail = order.fired
        if order.rests:
            self._rest(order, "")
        else:
            self._fired.append((self._number + 2, order))

    def _settle(self, order: Order) -> None:
        """What becomes of a triggered market order, two blocks later as recorded: filled, or too small."""
        sibling = order.sibling
        if self._dice.chance(0.6):
            lots = order.left or self._dice.lots()
            user, side = self._dice.other(order.user), _OTHER[order.side]
            maker = self._rest(self._make(user, order.coin, side, self._mids[order.coin], lots + 1))
            self._trade(order, maker, lots, self._dice.digest(self._number))
            if sibling is not None and sibling.slot >= 0:  # unless it was canceled or triggered meanwhile
                self._cancel(self.waiting, sibling, "siblingFilledCanceled")
        else:
            self._say(order, "minTradeNtlRejected")
