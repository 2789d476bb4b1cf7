"""What clients' filters hold is bounded, kept once where it is equal, and given back."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from guarded import serving
from hyperwatch.feed.channels.events import Orders
from hyperwatch.feed.channels.trades import Trades
from hyperwatch.feed.filters.orders import OrderFilter
from hyperwatch.feed.filters.word_lists import SUBSCRIPTION_WORDS, HasLists, OidSet, TooManyWordsError, WordBudget
from hyperwatch.feed.requests.filter_keys import FilterKeys
from hyperwatch.server.admission import Admission
from hyperwatch.server.limits import Limits
from hyperwatch.server.refusals import Reason
from processes import port_of, resident_bytes
from support import Client, connected, until

MIB = 2**20


def orders(**words: Any) -> Orders:  # noqa: ANN401  as clients write them
    return Orders(FilterKeys(**words).filter())


def coins(number: int, prefix: str = "C") -> tuple[str, ...]:
    return tuple(f"{prefix}{each}" for each in range(number))


def test_each_word_counts_long_ones_several_times_and_eight_oids_as_one() -> None:
    words = WordBudget(1_000, 1_000).connection()
    counted: dict[str, tuple[HasLists, int]] = {
        "coins": (orders(coins=("BTC", "ETH")), 2),
        "dexes": (orders(coins=("xyz:*",)), 1),
        "users": (orders(users=["0x" + "1" * 40]), 1),
        "statuses": (orders(statuses=("open", "filled"), notStatuses=("x",)), 3),
        "long": (orders(statuses=("x" * 640,)), 11),
        "oids": (orders(oids=tuple(range(17))), 3),
        "details": (
            orders(tifs=("Alo",), orderTypes=("Limit",), cloids=["0x" + "0" * 32], builders=["0x" + "2" * 40]),
            4,
        ),
        "trades": (Trades("BTC"), 1),
        "everything": (Orders(OrderFilter()), 0),
    }
    for name, (channel, number) in counted.items():
        before = words.held
        words.take(name, channel)
        assert words.held - before == number + SUBSCRIPTION_WORDS, name
    words.close()
    assert words.held == 0


def test_a_list_that_several_hold_is_one_list_and_the_service_counts_it_once() -> None:
    budget = WordBudget(10_000, 2_000)
    channels = [orders(coins=coins(500)), orders(coins=coins(500)[::-1], notStatuses=("rejected",))]
    one, other = (channel.filter.lists for channel in channels)
    assert next(iter(one)) is next(iter(other)), "kept once"
    connections = [budget.connection() for _ in channels]
    for words, channel in zip(connections, channels, strict=True):
        words.take("a", channel)
        assert words.held >= 500, "each of them has a list of that length"
    assert budget.held == sum(words.held for words in connections) - 500
    connections[0].close()
    assert budget.held == connections[1].held
    connections[1].close()
    assert budget.held == 0


def test_where_there_is_no_room_nothing_is_counted_and_it_is_said_whose_room_it_is() -> None:
    budget = WordBudget(250, 150)
    one, other, third = (budget.connection() for _ in range(3))
    one.take("a", orders(coins=coins(100)))
    with pytest.raises(TooManyWordsError) as refused:
        one.take("b", orders(coins=coins(60)))
    assert (refused.value.alone, refused.value.held, refused.value.most) == (True, one.held, 150)
    other.take("a", orders(coins=coins(100, "D")))
    with pytest.raises(TooManyWordsError) as refused:
        third.take("a", orders(coins=coins(60)))
    assert (refused.value.alone, refused.value.held, refused.value.most) == (False, budget.held, 250)
    assert budget.held == one.held + other.held
    other.give_back("a")
    other.give_back("a")  # which it holds no more
    third.take("a", orders(coins=coins(60)))


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=1)), st.integers(-1, 2**70))
def test_a_set_of_oids_is_a_set(lists: list[list[int]], asked: int) -> None:
    for oids in lists:
        made = OidSet(oids)
        assert (asked in made) == (asked in set(oids))
        assert all(oid in made for oid in oids)
        assert len(made) == len(set(oids))
        for other in lists:
            assert (made == OidSet(other)) == (set(oids) == set(other))
            assert made != OidSet(other) or hash(made) == hash(OidSet(other))


async def test_more_words_than_a_connection_may_hold_are_an_error_and_are_free_again_when_a_subscription_ends(
    tmp_path: Path,
) -> None:
    admission = Admission(Limits(client_words=150))
    async with serving(tmp_path, admission) as at, connected(at.port) as client:
        assert (await client.subscribe(type="orders", id="a", coins=coins(100)))["channel"] == "subscriptionResponse"
        answer = await client.subscribe(type="fills", id="b", coins=coins(100))
        assert answer["code"] == "not-written", "what is refused for another reason holds nothing"
        answer = await client.subscribe(type="orders", id="b", coins=coins(60))
        assert (answer["code"], answer["id"]) == ("too-many-words", "b")
        assert "hold 104 words, this one has 64, and 150 are the most: end other subscriptions first" in answer["data"]
        await client.say({"method": "unsubscribe", "subscription": {"type": "orders", "id": "a"}})
        await client.hear("subscriptionResponse")
        assert (await client.subscribe(type="orders", id="b", coins=coins(60)))["channel"] == "subscriptionResponse"
        assert admission.words.held == 64
        await at.counted({Reason.WORDS: 1})


async def test_a_connection_that_ends_and_a_cursor_that_is_refused_hold_no_words(tmp_path: Path) -> None:
    admission = Admission()
    async with serving(tmp_path, admission) as at:
        async with connected(at.port) as client:
            await client.subscribe(type="orders", id="a", coins=coins(100))
            other = "eyJ"  # no cursor
            assert (await client.subscribe(type="orders", id="b", coins=coins(9), **{"from": other}))[
                "code"
            ] == "bad-cursor"
            assert admission.words.held == 104
        await until(lambda: admission.words.held == 0)


async def test_more_words_than_all_may_hold_together_are_an_error_that_says_so(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, Admission(Limits(words=150))) as at,
        connected(at.port) as one,
        connected(at.port) as other,
    ):
        await one.subscribe(type="orders", coins=coins(100))
        answer = await other.subscribe(type="orders", coins=coins(100, "D"))
        assert answer["code"] == "too-many-words"
        assert (
            "the filters of all clients hold 104 words, this one would add 104, and 150 are the most" in answer["data"]
        )
        equal = await other.subscribe(type="orders", coins=coins(100))
        assert equal["channel"] == "subscriptionResponse", "it takes no more memory"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_filters_of_the_longest_lists_take_64_mib_at_most_and_give_them_back_within_a_minute(
    tmp_path: Path,
) -> None:
    data, own = tmp_path / "data", [sys.executable, "-m", "hyperwatch"]
    data.mkdir()
    commands = [[*own, "simulate", str(data), "--rate", "5000", "--layout", "streaming"]]
    for name in ("plain", "filled"):
        state = ["--data-dir", str(data), "--state-dir", str(tmp_path / name)]
        commands.append([*own, "run", *state, "--metrics-listen=", "--listen", "127.0.0.1:0"])
    with (tmp_path / "log").open("w") as log, (tmp_path / "other").open("w") as other:
        logs = (other, other, log)
        processes = [subprocess.Popen(each, stderr=said) for each, said in zip(commands, logs, strict=True)]  # noqa: ASYNC220  at once
    _, plain, filled = (each.pid for each in processes)

    def above_bytes() -> int:
        return resident_bytes(filled) - resident_bytes(plain)

    try:
        port = await port_of(tmp_path / "log")
        await trio.sleep(40)  # the rings of other processes fill
        chance = random.Random(1)
        kinds = [_short_coins, _long_coins, _accounts, _oids, _small]
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(port)) for _ in range(10)]
            refused = [await _fill(client, kinds[number % len(kinds)], chance) for number, client in enumerate(clients)]
            print(f"{sum(refused)} refused, {above_bytes() / MIB:.1f} MiB above the other")  # noqa: T201  shown
            assert all(refused), "every one of them asked for more than there is"
            assert above_bytes() < 64 * MIB
        left = [above_bytes()]
        with trio.move_on_after(60):
            while left[-1] > 0.1 * resident_bytes(plain):
                await trio.sleep(1)  # another process
                left.append(above_bytes())
        print(f"then {[round(each / MIB) for each in left[::5]]}, the other {resident_bytes(plain) / MIB:.1f}")  # noqa: T201  shown
        assert left[-1] <= 0.1 * resident_bytes(plain)
    finally:
        for each in processes:
            each.kill()
            each.wait()


Kind = Callable[[random.Random], dict[str, object]]


def _short_coins(chance: random.Random) -> dict[str, object]:
    return {"coins": [f"{chance.randrange(2**30):x}" for _ in range(19_000)]}


def _long_coins(chance: random.Random) -> dict[str, object]:
    return {"coins": ["\U0001d7d8" + f"{chance.randrange(2**200):052x}" for _ in range(4_000)]}


def _accounts(chance: random.Random) -> dict[str, object]:
    return {"users": [f"0x{chance.randrange(2**160):040x}" for _ in range(900)]}  # as many as are looked up one by one


def _oids(chance: random.Random) -> dict[str, object]:
    return {"filters": [{"oids": [chance.randrange(10**6) for _ in range(4_000)]} for _ in range(16)]}


def _small(chance: random.Random) -> dict[str, object]:
    return {"coins": [f"{chance.randrange(2**200):x}" for _ in range(56)]}


async def _fill(client: Client, kind: Kind, chance: random.Random) -> int:
    """Subscribes until it is refused; how often."""
    for _ in range(1_000):
        answer = await client.subscribe(type="orders", **kind(chance))
        if answer["channel"] == "error":
            assert answer["code"] == "too-many-words", answer
            return 1
    return 0
