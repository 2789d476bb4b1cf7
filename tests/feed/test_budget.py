"""What each client may have of the head's time: the accounts, what work counts as, turns, and the hub's order of service."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Generator, Sequence
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from hyperwatch.feed.budget import DEFAULT_SHARE, Allowance, Budget
from hyperwatch.feed.channels.events import Orders
from hyperwatch.feed.cost import ASK_US, DETAIL_US, request_us
from hyperwatch.feed.filters.order_details import OrderConditions
from hyperwatch.feed.filters.orders import AnyOf, OrderFilter, any_of
from hyperwatch.feed.hub import Hub
from hyperwatch.feed.subscription import Subscription
from hyperwatch.feed.turnstile import SHARE, Turnstile
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.batches import Batch
from hyperwatch.monitor import log_report
from hyperwatch.server.admission import Admission
from hyperwatch.server.framing import FrameCache
from hyperwatch.server.limits import Limits
from hyperwatch.server.tokens import Tokens
from support import USER, append, batches, connected, event, hour_file, line, messages_in, running

BURST_US = 10_000  # of the default share
OWN_US = 3_000


def accounts(count: int, share: float = DEFAULT_SHARE, client: str = "a") -> list[Allowance]:
    """Of connections of one client, beside one of another: who is alone has all."""
    budget = Budget(share)
    budget.open("another", 0)
    return [budget.open(client, 0) for _ in range(count)]


def test_a_client_has_its_own_and_a_burst_and_is_over_when_both_are_used_up() -> None:
    (one,) = accounts(1)
    one.pay(OWN_US - 1, 0)
    assert not one.modest(1, 0)
    one.pay(BURST_US - 10, 0)
    assert not one.over(5, 0)
    assert one.over(20, 0)
    assert not one.rested(0, 0)


def test_what_is_more_than_a_burst_is_never_within_it() -> None:
    (one,) = accounts(1)
    assert not one.modest(OWN_US, 1000)
    assert not one.over(BURST_US - 1, 1000)
    assert one.over(BURST_US + 1, 1000)


def test_time_comes_back_at_the_rate_of_the_share() -> None:
    (one,) = accounts(1)
    one.pay(OWN_US - 1, 0)
    one.pay(BURST_US, 0)
    assert one.over(100, 0)
    assert one.over(100, 0.0005)
    assert not one.over(100, 0.0015)  # 100 us are a millisecond of a tenth
    assert not one.rested(0, 0.04)
    assert one.rested(0, 0.05)  # half a burst


def test_many_connections_of_one_client_share_what_goes_beyond_their_own() -> None:
    greedy, modest = accounts(2)
    greedy.pay(OWN_US - 1, 0)
    greedy.pay(2 * BURST_US, 0)
    assert greedy.over(ASK_US, 0)
    assert modest.modest(ASK_US, 0)
    assert not modest.over(ASK_US, 0)


def test_many_clients_have_no_more_together_than_one_and_a_half_shares_beyond_what_each_connection_has() -> None:
    budget, gone = Budget(), 0.0
    clients = [budget.open(f"client {number}", 0) for number in range(10)]
    for each in clients:
        each.pay(OWN_US - 1, 0)
    for step in range(1, 1001):  # a second, in which each asks for more than its own all the time
        for each in clients:
            if not each.over(100, step / 1000):
                each.pay(100, step / 1000)
                gone += 100e-6
    theirs = 10 * DEFAULT_SHARE * (0.03 + 2 * 0.1)  # of each connection, and of each client what was there and came in
    assert 1.4 * DEFAULT_SHARE < gone < 1.5 * DEFAULT_SHARE + theirs + 0.02
    assert budget.open("modest", 1).modest(ASK_US, 1)


def test_what_a_client_owes_outlives_its_connections() -> None:
    budget = Budget()
    budget.open("another", 0)
    first = budget.open("a", 0)
    first.pay(OWN_US - 1, 0)
    first.pay(100 * BURST_US, 0)
    first.close()
    again = budget.open("a", 0.1)
    again.pay(OWN_US - 1, 0.1)
    assert again.over(ASK_US, 0.1)


def test_a_new_connection_of_a_client_that_owes_has_nothing_of_its_own_yet() -> None:
    budget = Budget()
    budget.open("another", 0)
    first = budget.open("a", 0)
    first.pay(OWN_US - 1, 0)
    first.pay(100 * BURST_US, 0)
    first.close()
    again = budget.open("a", 0.1)
    assert again.over(ASK_US, 0.1)
    assert not again.modest(ASK_US, 0.1)
    assert budget.open("b", 0.1).modest(ASK_US, 0.1)


def test_a_debt_is_forgiven_after_a_while_and_none_is_made_while_alone() -> None:
    (one,) = accounts(1)
    one.pay(OWN_US - 1, 0)
    one.pay(10**9, 0)
    assert one.over(OWN_US + 1, 1.9)
    assert not one.over(OWN_US + 1, 2.2)
    budget = Budget()
    alone = budget.open("a", 0)
    alone.pay(10**9, 0)
    budget.open("b", 0)
    assert alone.modest(ASK_US, 0)


def test_who_has_gone_and_owes_nothing_is_forgotten() -> None:
    budget = Budget()
    for number in range(3000):
        budget.open(str(number), number).close()
    assert len(budget._clients) <= 1000


def test_one_connection_alone_has_all_and_no_limit_is_none() -> None:
    alone = Budget().open("a", 0)
    alone.pay(10**9, 0)
    assert alone.rested(0, 0)
    assert not alone.over(10**6, 0)
    (free,) = accounts(1, math.inf)
    free.pay(10**12, 0)
    assert free.modest(10**6, 0)
    assert free.rested(0, 0)


@given(st.lists(st.tuples(st.floats(0, 0.01), st.floats(1, 5000)), min_size=1, max_size=200), st.floats(0.01, 1))
def test_who_asks_first_never_has_more_than_its_share_and_two_bursts(
    work: list[tuple[float, float]], share: float
) -> None:
    (one,) = accounts(1, share)
    now_s = had_us = 0.0
    for passed_s, work_us in work:
        now_s += passed_s
        if not one.over(work_us, now_s):
            one.pay(work_us, now_s)
            had_us += work_us
    assert had_us <= share * 1.03 * 1e6 * now_s + share * (1e5 + 0.03e6) + 1


def test_a_list_of_filters_costs_what_its_filters_do_and_details_cost_for_each_event_that_they_look_at(
    tmp_path: Path,
) -> None:
    _, (batch,) = batches(
        tmp_path, [[line(7, [event(number, coin="BTC" if number % 2 else "ETH") for number in range(10)])]]
    )
    slice_ = batch.entries[0].slice
    far = [OrderFilter.of(details=OrderConditions.of(min_px=str(10**9 + number))) for number in range(16)]
    assert far[0].look_us(slice_) == ASK_US + 10 * DETAIL_US
    assert any_of(far).look_us(slice_) == 16 * far[0].look_us(slice_)
    assert (
        OrderFilter.of(coins=["BTC"], details=OrderConditions.of(min_px="1")).look_us(slice_) == ASK_US + 5 * DETAIL_US
    )
    assert OrderFilter.of(coins=["BTC"]).look_us(slice_) == ASK_US
    assert OrderFilter.of(statuses=["odd"]).look_us(slice_) > ASK_US


@pytest.mark.parametrize("filters", [1, 16])
def test_what_is_chosen_in_parts_is_what_is_chosen_at_once(tmp_path: Path, filters: int) -> None:
    _, (batch,) = batches(tmp_path, [[line(7, [event(number, limitPx=str(number)) for number in range(450)])]])
    slice_ = batch.entries[0].slice
    wanted = any_of(OrderFilter.of(details=OrderConditions.of(min_px=str(3 * number + 1))) for number in range(filters))
    assert isinstance(wanted, AnyOf) is (filters > 1)
    found, pauses = in_parts(wanted.select_in_parts(slice_))
    assert list(found) == list(wanted.select(slice_))
    assert pauses >= 5 * filters


def in_parts(parts: Generator[None, None, Sequence[int]]) -> tuple[Sequence[int], int]:
    """(what was chosen, the pauses)."""
    for pauses in itertools.count():
        try:
            next(parts)
        except StopIteration as end:
            return end.value, pauses
    raise AssertionError


def test_requests_cost_what_their_filters_and_lists_do() -> None:
    ping = '{"method":"ping"}'
    assert request_us(ping) < request_us('{"method":"subscribe","subscription":{"type":"orders"}}')
    many = json.dumps({"users": ["0x" + "ab" * 20] * 20_000})
    assert request_us(many) > 100 * request_us(ping)


def test_a_client_is_an_address_and_where_there_are_tokens_its_token_too() -> None:
    tokens = ["a" * 32, "b" * 32]
    admission = Admission(tokens=Tokens(tokens))
    assert Admission().client("10.0.0.1", "") == "10.0.0.1"
    assert admission.client("10.0.0.1", tokens[0]) != admission.client("10.0.0.1", tokens[1])
    assert admission.client("10.0.0.1", tokens[0]) != admission.client("10.0.0.2", tokens[0])
    assert all(token not in admission.client("10.0.0.1", token) for token in tokens)


# The turnstile.


async def test_over_a_time_turns_take_their_share_and_no_more(autojump_clock: trio.testing.MockClock) -> None:
    turnstile, done = Turnstile(), 0

    async def greedy(name: str) -> None:
        nonlocal done
        while True:
            async with turnstile.turn(name):
                turnstile.work(970, over=True)
                done += 1

    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "b"):
                nursery.start_soon(greedy, name)
    assert 0.9 * SHARE * 10_000 <= done <= 1.1 * SHARE * 10_000  # a millisecond each, with what a turn takes
    assert autojump_clock.autojump_threshold == 0


async def test_each_client_has_its_turn_however_many_connections_others_have(
    autojump_clock: trio.testing.MockClock,
) -> None:
    turnstile, turns = Turnstile(), dict.fromkeys("ab", 0)

    async def take(name: str) -> None:
        while True:
            async with turnstile.turn(name):
                turnstile.work(1000, over=True)
                turns[name] += 1

    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            for name in "a" + 50 * "b":
                nursery.start_soon(take, name)
    assert abs(turns["a"] - turns["b"]) <= 1
    assert turnstile._lines == {}
    assert autojump_clock.autojump_threshold == 0


async def test_a_turn_waits_for_the_head_and_not_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    turnstile = Turnstile()
    busy_until_s = trio.current_time() + 0.01
    turnstile.busy = lambda: trio.current_time() < busy_until_s
    async with turnstile.turn("a"):
        assert busy_until_s <= trio.current_time() < busy_until_s + 0.005
    turnstile.busy = lambda: True
    async with turnstile.turn("a"):
        assert trio.current_time() < busy_until_s + 0.05
    assert autojump_clock.autojump_threshold == 0


async def test_who_has_time_left_waits_for_no_turn_of_others(autojump_clock: trio.testing.MockClock) -> None:
    turnstile = Turnstile()
    async with trio.open_nursery() as nursery, turnstile.turn("a"):
        turnstile.work(10**6, over=True)

        async def wait() -> None:
            async with turnstile.turn("a"):
                """It sleeps until it may."""

        nursery.start_soon(wait)
        began_s = trio.current_time()
        async with turnstile.short_cut():
            assert trio.current_time() - began_s < 0.001
        nursery.cancel_scope.cancel("seen")
    assert autojump_clock.autojump_threshold == 0


# The hub.


@attrs.define(eq=False)
class FakeOutlet:
    """A client that takes everything."""

    allowance: Allowance
    order: list[str] = attrs.Factory(list)
    name: str = ""
    woken: int = 0

    def offer(self, parts: Sequence[bytes], size: int) -> bool:
        assert len(messages_in(b"".join(parts))) > 0
        assert size
        self.order.append(self.name)
        return True

    def wake(self) -> None:
        self.woken += 1


@attrs.define
class Stage:
    """A hub, and clients at its head."""

    tmp_path: Path
    budget: Budget = attrs.Factory(Budget)
    order: list[str] = attrs.Factory(list)
    outlets: dict[str, FakeOutlet] = attrs.Factory(dict)
    batches: list[Batch] = attrs.field(init=False)
    hub: Hub = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        blocks = [line(number, [event(100 * number + each) for each in range(100)]) for number in (7, 8, 9)]
        _, self.batches = batches(self.tmp_path, [[block] for block in blocks])
        self.hub = Hub(Ring(self.batches[0].before, 10**9), FrameCache, lambda: 0.0)

    def join(self, name: str, min_px: str | None = None) -> Subscription:
        outlet = self.outlets.setdefault(name, FakeOutlet(self.budget.open(name, 0), self.order, name))
        filter_ = OrderFilter.of(details=OrderConditions.of(min_px=min_px))
        subscription = Subscription(Orders(filter_), name, outlet, self.batches[0].before, 0)
        self.hub.join(subscription)
        return subscription

    async def publish(self, number: int) -> None:
        batch = self.batches[number]
        self.hub.ring.append(batch)
        await self.hub.publish(batch)


async def test_those_who_need_little_are_served_first_whoever_came_first(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for number in range(3):
        demanding = stage.join("demanding", min_px=f"0.00{number + 1}")
        demanding.allowance.pay(OWN_US - 1, 0)
    stage.join("plain")
    await stage.publish(0)
    assert stage.order == ["plain", "demanding", "demanding", "demanding"]


async def test_what_goes_over_the_budget_leaves_the_head_before_it_is_asked_and_the_rest_stays(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    many = [stage.join("demanding", min_px=str(10**9 + number)) for number in range(200)]  # 155 us each
    plain = stage.join("plain")
    await stage.publish(0)
    left = [each for each in many if not each.live]
    assert 0 < len(left) < 200
    assert plain.live
    assert {each.why for each in left} == {"budget"}
    assert {(each.serial, each.cursor) for each in left} == {(0, stage.batches[0].before)}
    assert stage.budget.paid_us < 200 * (ASK_US + 100 * DETAIL_US)
    await stage.publish(1)  # no time has come back: of those who are still there nobody has any
    await stage.publish(2)
    assert len([each for each in many if each.live]) <= 200 - len(left)
    assert stage.order == ["plain"] * 3


async def test_messages_that_are_costly_to_make_count_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperwatch.feed.hub.made_us", lambda _: 4000.0)  # as if they were long, and compressed
    stage = Stage(tmp_path)
    many = [stage.join(f"c{number}", min_px=f"0.00{number + 1}") for number in range(40)]
    for each in many:
        each.allowance._common = many[0].allowance._common
    await stage.publish(0)
    await stage.publish(1)
    assert len([each for each in many if each.live]) <= 5


async def test_equal_views_share_what_they_cost_and_who_is_over_leaves_alone(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    spent, plain = stage.join("spent"), stage.join("plain")
    spent.allowance.pay(OWN_US - 1, 0)
    spent.allowance.pay(2 * BURST_US, 0)
    await stage.publish(0)
    assert (spent.live, spent.why, plain.live) == (False, "budget", True)
    assert stage.order == ["plain"]


# From outside.


async def test_an_official_type_that_is_over_budget_waits_behind_the_head_too(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(6, [event(6)]))
    async with running(tmp_path, limits=Limits(client_share=0.001)) as port, connected(port) as one, connected(port):
        await one.subscribe(type="orderUpdates", user=USER)
        for block in range(7, 40):
            append(path, line(block, [event(100 * block + number) for number in range(40)]))
        heard = list[int]()
        with trio.fail_after(20):
            while len(heard) < 33 * 40:
                message = json.loads(await one.socket.get_message())
                if message["channel"] == "orderUpdates":
                    heard += [update["order"]["oid"] for update in message["data"]]
    assert heard == [100 * block + number for block in range(7, 40) for number in range(40)]


async def test_who_asks_for_too_much_loses_nothing_is_told_why_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_report, "REPORT_S", 0.005)
    logged: list[str] = []
    sink = logger.add(lambda message: logged.append(message.record["message"]), level="INFO")
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(6, [event(6)]))
    async with running(tmp_path, limits=Limits(client_share=0.01)) as port, connected(port) as one, connected(port):
        for number in range(20):
            await one.subscribe(type="orders", id=str(number), minPx=f"0.00{number + 1}")
        blocks = range(7, 37)
        for block in blocks:
            append(path, line(block, [event(100 * block + number) for number in range(200)]))
        heard: dict[str, list[int]] = {str(number): [] for number in range(20)}
        behind = set[str | None]()
        with trio.fail_after(20):
            while any(len(blocks_heard) < len(blocks) for blocks_heard in heard.values()) or None not in behind:
                message = json.loads(await one.socket.get_message())
                if message["channel"] == "orders":
                    heard[message["data"]["id"]].append(message["data"]["blockNumber"])
                elif message["channel"] == "cursor":
                    behind.add(message["data"].get("behind"))
    assert all(blocks_heard == list(blocks) for blocks_heard in heard.values())
    logger.remove(sink)
    assert "budget" in behind
    assert any("2 clients, 1 of them ask for more than their share" in each for each in logged)
