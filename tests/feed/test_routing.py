"""Who is asked about an entry: all whom it concerns, and few others; a look-up that agrees with asking everyone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.feed.budget import Allowance, Budget
from hyperwatch.feed.channels.events import Channel, Events, Fills, Orders, OrderUpdates
from hyperwatch.feed.channels.trades import TradePairing, Trades, UserFills
from hyperwatch.feed.filters.coins_users import CoinUserFilter
from hyperwatch.feed.filters.orders import OrderFilter, any_of
from hyperwatch.feed.hub import Hub
from hyperwatch.feed.messages import Message
from hyperwatch.feed.routing import RoutingIndex, RoutingKeys
from hyperwatch.feed.subscription import Subscription
from hyperwatch.ingest.counters import Counters
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.batches import Batch, Entry, RawBatch, assemble, decode
from hyperwatch.log.dedupe import Deduplicator
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.node.streams import FILLS, ORDERS, Layout, Stream
from hyperwatch.server.framing import FrameCache
from support import event, fill, line, messages_in

USERS = ["0x" + f"{number:02x}" * 20 for number in range(5)]
COINS = ["BTC", "ETH", "xyz:A", "xyz:B", "@1"]
STATUSES = ["open", "filled", "badAloPxRejected", "minTradeNtlRejected", "newThing"]
SIDES = ["B", "A"]


def batch_of(data: bytes, stream: Stream = ORDERS) -> Batch:
    start = Cursor(stream.directory(Layout.STREAMING), (FilePosition("20260505/9", 0, 0, "head"),))
    span = RawBatch("20260505/9", "head", 0, data, start.places, 0, 0, False, False, 0)
    chunk = decode(stream, Layout.STREAMING, span, (0, len(data)), lambda: None)
    return assemble(stream, start.directory, span, [chunk], Deduplicator(start))


def some(words: Sequence[str]) -> st.SearchStrategy[list[str] | None]:
    return st.none() | st.lists(st.sampled_from(words), min_size=1, max_size=3)


EVENTS = st.builds(
    lambda coin, user, status, side, since: event(1, coin=coin, user=user, status=status, side=side, timestamp=since),
    st.sampled_from(COINS),
    st.sampled_from(USERS),
    st.sampled_from(STATUSES),
    st.sampled_from(SIDES),
    st.sampled_from([0, 1, 2**53]),
)
FILLS_OF = st.builds(
    lambda tid, coin, user, side: fill(tid, side, user=user, coin=coin),
    st.integers(1, 3),
    *map(st.sampled_from, (COINS, USERS, SIDES)),
)
WORDS = [*COINS, "QUIET", "xyz:*", "*"]
ONE_FILTER = st.builds(
    OrderFilter.of, some(WORDS), some([*USERS, "0x" + "ff" * 20]), some(STATUSES), some(STATUSES), some(SIDES)
)
VIEWS: st.SearchStrategy[list[Channel]] = st.lists(
    st.builds(Orders, st.lists(ONE_FILTER, min_size=1, max_size=3).map(any_of))
    | st.builds(OrderUpdates, st.sampled_from(USERS)),
    unique=True,
)
FILL_VIEWS: st.SearchStrategy[list[Channel]] = st.lists(
    st.builds(Fills, st.builds(CoinUserFilter.of, some(WORDS), some(USERS)))
    | st.builds(UserFills, st.sampled_from(USERS))
    | st.builds(Trades, st.sampled_from([*COINS, "QUIET"])),
    unique=True,
)


def written(raws: Sequence[Sequence[bytes]], unreadable: Sequence[bool]) -> bytes:
    """Blocks, before some of which a line cannot be read."""
    torn = zip(raws, unreadable, strict=False)
    return b"".join(b"damage\n" * bad + line(number, events) for number, (events, bad) in enumerate(torn, 7))


BLOCKS = st.lists(st.lists(EVENTS, min_size=1, max_size=4), min_size=1, max_size=4)
FILL_BLOCKS = st.lists(st.lists(FILLS_OF, min_size=1, max_size=4), min_size=1, max_size=4)
DAMAGE = st.lists(st.booleans(), min_size=4, max_size=4)


@attrs.define(eq=False)
class FakeOutlet:
    """Takes `room` writes."""

    room: int = 10**9
    heard: list[bytes] = attrs.Factory(list)
    behind: int = 0

    allowance: Allowance = attrs.Factory(lambda: Budget(math.inf).open("a fake", 0))

    def offer(self, parts: Sequence[bytes], size: int) -> bool:
        data = b"".join(parts)
        assert len(data) == size
        self.room -= 1
        if self.room >= 0:
            self.heard += messages_in(data)
        return self.room >= 0

    def wake(self) -> None:
        self.behind += 1


def full(subscription: Subscription, said: Sequence[Message]) -> list[bytes]:
    """What a subscription is to hear of all that was said."""
    texts = []
    for message in said:
        texts.append(subscription.head(message) + message.tail)
        subscription.seq += 1
    return texts


async def agree(batch: Batch, channels: Sequence[Channel]) -> None:
    """What the hub pushes to each view is what the view says of each entry, asked by itself."""
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    outlets = [FakeOutlet() for _ in channels]
    for number, (channel, outlet) in enumerate(zip(channels, outlets, strict=True)):
        hub.join(Subscription(channel, str(number), outlet, batch.before, 0))
    hub.ring.append(batch)
    await hub.publish(batch)
    for number, (channel, outlet) in enumerate(zip(channels, outlets, strict=True)):
        alone = Subscription(channel, str(number), FakeOutlet(), batch.before, 0)
        assert outlet.heard == full(alone, [said for entry in batch.entries for said in channel.messages(entry)])


@given(VIEWS, BLOCKS, DAMAGE)
async def test_what_the_hub_pushes_is_what_every_view_says_by_itself(
    channels: list[Channel], blocks: list[list[bytes]], unreadable: list[bool]
) -> None:
    await agree(batch_of(written(blocks, unreadable)), channels)


@given(FILL_VIEWS, FILL_BLOCKS, DAMAGE)
async def test_so_it_is_with_fills_and_the_trades_that_they_complete(
    channels: list[Channel], blocks: list[list[bytes]], unreadable: list[bool]
) -> None:
    await agree(TradePairing(Counters()).complete(batch_of(written(blocks, unreadable), FILLS)), channels)


@given(st.lists(ONE_FILTER, min_size=1, max_size=3).map(any_of), st.lists(EVENTS, min_size=1, max_size=8))
def test_events_found_by_coin_and_user_are_those_found_one_by_one(wanted: OrderFilter, events: list[bytes]) -> None:
    (entry,) = batch_of(line(7, events)).entries
    alone = [number for number, raw in enumerate(events) if wanted.select(batch_of(line(7, [raw])).entries[0].slice)]

    assert list(wanted.select(entry.slice)) == alone


@given(st.builds(CoinUserFilter.of, some(WORDS), some(USERS)), st.lists(FILLS_OF, min_size=1, max_size=8))
def test_so_are_fills(wanted: CoinUserFilter, fills: list[bytes]) -> None:
    (entry,) = batch_of(line(7, fills), FILLS).entries
    expected = [
        number
        for number, keys in enumerate(entry.slice.keys)
        if (wanted.coins is None or keys.coin in wanted.coins or (wanted.dexes and keys.coin.startswith(wanted.dexes)))
        and (wanted.users is None or keys.user in wanted.users)
    ]

    assert list(wanted.select(entry.slice)) == expected


def entry_of(*raws: bytes) -> Entry:
    return batch_of(line(7, raws)).entries[0]


def index_of(channels: Sequence[Events]) -> RoutingIndex[Events]:
    index: RoutingIndex[Events] = RoutingIndex()
    for channel in channels:
        index.add(channel)
    return index


def orders(**words: Sequence[str]) -> Orders:
    return Orders(OrderFilter.of(**words))  # type: ignore[arg-type]  # by name


def test_of_ten_thousand_that_want_a_coin_each_only_those_are_asked_whose_coin_occurs() -> None:
    channels = [orders(coins=[f"COIN{number}"]) for number in range(10_000)]
    index = index_of(channels)

    assert index.asked(entry_of(event(1, coin="COIN7"), event(2, coin="COIN9"), event(3, coin="COIN7"))) == [
        channels[7],
        channels[9],
    ]


@pytest.mark.parametrize(
    "words", [{}, {"coins": ["xyz:*"]}, {"statuses": ["open"]}, {"coins": ["xyz:*", "BTC"], "sides": ["B"]}]
)
def test_who_cannot_be_looked_up_is_asked_always(words: dict[str, list[str]]) -> None:
    channel = orders(**words)

    assert index_of([channel]).asked(entry_of(event(1, coin="ETH"))) == [channel]


def test_several_filters_are_looked_up_together_unless_one_of_them_cannot_be() -> None:
    one, other = OrderFilter.of(coins=["BTC"]), OrderFilter.of(users=[USERS[1]], coins=["xyz:*"])

    assert any_of([one, other]).interest == RoutingKeys(frozenset(["BTC"]), frozenset([USERS[1]]))
    assert any_of([one, other, OrderFilter.of(sides=["B"])]).interest is None


def test_who_wants_very_many_words_is_asked_always_for_coming_and_going_would_cost_more() -> None:
    users = [f"0x{number:040x}" for number in range(1_001)]

    assert OrderFilter.of(users=users).interest is None
    assert OrderFilter.of(users=users, coins=["BTC"]).interest == RoutingKeys(coins=frozenset(["BTC"]))
    assert OrderFilter.of(users=users[:1_000], coins=["BTC"]).interest == RoutingKeys(users=frozenset(users[:1_000]))


def test_who_is_wanted_for_two_reasons_is_asked_once_and_who_left_not_at_all() -> None:
    channel = Orders(any_of([OrderFilter.of(coins=["BTC", "ETH"]), OrderFilter.of(users=[USERS[0]])]))
    other = orders(coins=["BTC"])
    index = index_of([channel, other])
    entry = entry_of(event(1, user=USERS[0]), event(2, coin="ETH"))

    assert index.asked(entry) == [channel, other]
    index.remove(channel)
    assert index.asked(entry) == [other]
    index.remove(other)
    assert index.asked(entry) == []
    assert not index._by_coin.known
    assert not index._by_user.known
