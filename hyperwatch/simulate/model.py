"""What the market and the writer both speak of: blocks, times and decimals as text, the markets, an order on its way."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

import attrs

from hyperwatch.node.streams import DIFFS, FILLS, ORDERS, Stream

__all__ = [
    "BLOCK_GAP_NS",
    "COINS",
    "NO_FAULTS",
    "Block",
    "Coin",
    "Dice",
    "Faults",
    "Order",
    "Pool",
    "Summary",
    "decimal",
    "moved",
    "order_json",
    "stamp",
]

T = TypeVar("T")

BLOCK_GAP_NS = 67_000_000
"""Between two blocks in event time, ns: the median of mainnet in May 2026."""

# Name, price in ticks, decimals of price and of size, share of the traffic.
_MARKETS = """
BTC 81300 0 5 40|ETH 23950 1 4 24|SOL 84210 3 2 16|HYPE 41500 3 2 12|XRP 13920 4 1 6|DOGE 108400 6 1 5|kPEPE 3915 6 1 4
AAVE 9321 2 2 2|ADA 25300 5 1 2|APT 10250 4 2 1|ARB 12870 5 1 2|AVAX 9412 3 2 3|BCH 44870 2 3 1|BNB 62310 2 3 3
CRV 23410 5 1 1|DOT 12470 4 1 2|ENA 10230 5 1 2|FARTCOIN 18740 5 1 4|INJ 30120 4 1 1|JUP 17650 5 1 1|kBONK 6120 6 1 2
LINK 92310 4 1 4|LTC 5521 2 2 2|NEAR 13470 4 1 2|OP 12650 5 1 1|PAXG 4582 1 3 2|SUI 9387 4 1 5|TAO 27410 2 3 2
TIA 35120 5 1 2|TON 13260 4 1 1|TRUMP 27410 4 1 2|UNI 32810 4 1 1|WLD 25610 5 1 2|ZEC 41230 2 2 5
@107 41490 3 2 5|@142 81290 0 5 2|PURR/USDC 78340 6 1 1|xyz:SP500 71640 1 3 8|xyz:XYZ100 28410 0 4 6|km:USOIL 10287 2 3 6
flx:SILVER 7421 2 2 2|#1890 54320 5 1 1
"""


@attrs.frozen
class Block:
    """What one block wrote to each stream: events as a node writes them, compact JSON without a line's end."""

    number: int
    time_ns: int
    """UTC nanoseconds since 1970, the block's time, not when it is written."""
    orders: Sequence[bytes]
    fills: Sequence[bytes]
    diffs: Sequence[bytes]

    def events(self, stream: Stream) -> Sequence[bytes]:
        """This block's events of one stream, in their order."""
        return {ORDERS.name: self.orders, FILLS.name: self.fills, DIFFS.name: self.diffs}[stream.name]


@attrs.frozen
class Faults:
    """What goes wrong, by formats known of real nodes. The seed decides where; without any of these nothing does."""

    torn: bool = False
    """A block's bytes arrive in several writes cut inside lines, the last of them with the next block."""
    late_file: bool = False
    """After an hour begins a stream is silent for 5 to 25 blocks; then its file appears with all that was held back."""
    late_lines: bool = False
    """The last lines of an hour are appended to its file five blocks after the next hour's file exists."""
    restart_every: int = 0
    """Blocks between two restarts, 0 for none: the node then writes its last 3 to 20 blocks once more, and goes on."""


NO_FAULTS = Faults()


@attrs.frozen
class Summary:
    """What a run wrote."""

    blocks: int
    """Distinct ones."""
    restarts: int
    repeated: int
    """Blocks written a second time."""
    lines: dict[str, int]
    """By directory, repeated ones included."""
    size: int
    """Bytes."""


@functools.lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def stamp(time_ns: int) -> str:
    """UTC nanoseconds since 1970 as a node writes them: no offset, and 9, 6, 3 or 0 digits, whichever hold them all."""
    seconds, ns = divmod(time_ns, 1_000_000_000)
    if ns % 1000:
        return f"{_second(seconds)}.{ns:09}"
    if ns % 1_000_000:
        return f"{_second(seconds)}.{ns // 1000:06}"
    return f"{_second(seconds)}.{ns // 1_000_000:03}" if ns else _second(seconds)


def decimal(units: int, places: int) -> str:
    """A decimal string without needless zeros but with one decimal at least: 25700 at 2 places is "257.0"."""
    if not places:
        return f"{units}.0"
    digits = f"{abs(units):0{places + 1}}"
    return f"{'-' if units < 0 else ''}{digits[:-places]}.{digits[-places:].rstrip('0') or '0'}"


@attrs.frozen(eq=False)
class Coin:
    """A market."""

    name: str
    base: int
    """Price in ticks at the start; the market wanders within a tenth of it."""
    places: int
    """Decimals of the price: a tick is the last of them."""
    size_places: int
    """Decimals of a size: a lot is the last of them."""

    @property
    def perpetual(self) -> bool:
        """Whether positions are opened and closed, as opposed to spot and outcome pairs, which are bought and sold."""
        return not ("/" in self.name or self.name.startswith(("@", "#")))

    def price(self, ticks: int) -> str:
        """A price on the wire."""
        return decimal(ticks, self.places)

    def size(self, lots: int) -> str:
        """A size on the wire."""
        return decimal(lots, self.size_places)


@attrs.define(eq=False)
class Order:
    """An order that may still change. `head` and `tail` are its JSON before and after the size that remains."""

    user: str
    coin: Coin
    side: str
    px: int
    """Ticks."""
    left: int
    """Lots that remain; 0 for position TP/SL, which takes the position's size."""
    oid: int
    cloid: str
    """JSON: a quoted hex number or null."""
    head: str
    tail: str
    fired: str = ""
    """Of a trigger order: the tail once it was triggered."""
    rests: bool = True
    """Once triggered: a limit order goes to the book, a market order is filled or refused."""
    sibling: Order | None = None
    """The other half of a take-profit and stop-loss pair, which ends when this one is filled."""
    slot: int = -1
    """Place in its pool, -1 outside of any."""


class Pool:
    """Orders to pick from, to add and to remove, each in constant time."""

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def __len__(self) -> int:
        return len(self.orders)

    def add(self, order: Order) -> None:
        order.slot = len(self.orders)
        self.orders.append(order)

    def remove(self, order: Order) -> None:
        last = self.orders.pop()
        if last is not order:
            self.orders[order.slot] = last
            last.slot = order.slot
        order.slot = -1


def order_json(
    order: Order, ms: int, *, tif: str, kind: str, children: str, reduce_only: bool, level: tuple[str, int] | None
) -> None:
    """Fill in an order's `head`, `tail` and `fired`. `level` makes it a trigger order: ("above" or "below", ticks).

    A triggered order shows no trigger any more: `Triggered`, isTrigger false, triggerPx 0.0, tif Gtc (as L4 snapshots do).
    """
    coin = order.coin
    order.head = f'{{"coin":"{coin.name}","side":"{order.side}","limitPx":"{coin.price(order.px)}","sz":"'
    before = f'","oid":{order.oid},"timestamp":{ms},"triggerCondition":"'
    position = level is not None and not order.left
    middle = (
        f'","children":[{children}],"isPositionTpsl":{_BOOL[position]},"reduceOnly":{_BOOL[reduce_only]},'
        f'"orderType":"{kind}","origSz":"{coin.size(order.left)}","tif":'
    )
    if level is None:
        order.tail = f'{before}N/A","isTrigger":false,"triggerPx":"0.0{middle}"{tif}","cloid":{order.cloid}}}'
        return
    px = coin.price(level[1])
    condition = f"Price {level[0]} {px.removesuffix('.0')}"
    order.tail = f'{before}{condition}","isTrigger":true,"triggerPx":"{px}{middle}null,"cloid":{order.cloid}}}'
    order.fired = f'{before}Triggered","isTrigger":false,"triggerPx":"0.0{middle}"Gtc","cloid":{order.cloid}}}'


_BOOL = ("false", "true")


def _deck() -> tuple[Coin, ...]:
    cards: list[Coin] = []
    for line in _MARKETS.replace("|", "\n").split("\n"):
        if line:
            name, base, places, size_places, share = line.split()
            cards += [Coin(name, int(base), int(places), int(size_places))] * int(share)
    return tuple(cards)


COINS = _deck()
"""Every market as often as its share of the traffic, so that a fair draw has the right shares."""


def moved(coin: Coin, start: int, end: int) -> tuple[str, bool]:
    """How a node names a fill that moves a position from `start` to `end` lots, and whether it closes any."""
    if not coin.perpetual:
        return ("Buy" if end > start else "Sell"), False
    if start * end < 0:
        return ("Long > Short" if start > 0 else "Short > Long"), True
    side = "Long" if start + end > 0 else "Short"
    closes = abs(end) < abs(start)
    return f"{'Close' if closes else 'Open'} {side}", closes


class Dice:
    """Everything that chance decides; the same seed throws the same."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.roll = self._rng.random
        self.bits = self._rng.getrandbits
        self.gauss = self._rng.gauss
        self._users = [f"0x{self.bits(160):040x}" for _ in range(300)]

    def chance(self, share: float) -> bool:
        return self.roll() < share

    def pick(self, things: Sequence[T]) -> T:
        return things[int(self.roll() * len(things))]

    def coin(self) -> Coin:
        return COINS[int(self.roll() * len(COINS))]

    def user(self) -> str:
        """An account: 0x and 40 hex digits. A few of the 300 do most of it."""
        return self._users[int(self.roll() ** 3 * len(self._users))]

    def other(self, user: str) -> str:
        """An account that is not `user`: nobody trades with himself."""
        found = self.user()
        return found if found != user else self._users[self._users.index(user) - 1]

    def side(self) -> str:
        return "B" if self.roll() < 0.5 else "A"  # noqa: PLR2004  a coin's toss

    def lots(self) -> int:
        return 1 + int(self.roll() ** 4 * 100_000)

    def cloid(self) -> str:
        """A client's order id, JSON; some clients give none."""
        return f'"0x{self.bits(128):032x}"' if self.roll() < 0.85 else "null"  # noqa: PLR2004  a share

    def digest(self, number: int) -> str:
        """A transaction's hash, JSON. As on mainnet byte 10 is 4 and bytes 11 to 14 are the block's number."""
        return f'"0x{self.bits(80):020x}04{number & 0xFFFFFFFF:08x}{self.bits(136):034x}"'
