"""The client library: whatever breaks, and however it is iterated, everything is handed out exactly once."""

# ruff: noqa: ARG001  a test that names the clock runs on it

from __future__ import annotations

import json
import socket
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
import trio_websocket
from loguru import logger

from client_support import Network, Peer, Plain, gap, listener, orders, standing
from hyperwatch.client import (
    Answer,
    FeedError,
    Gap,
    GapError,
    Interrupted,
    Live,
    LossError,
    Message,
    Orders,
    Position,
    Subscription,
    connect,
    normalize_url,
    subscription_state,
)
from hyperwatch.client import feed as feed_module
from hyperwatch.client.websocket import RefusedError, open_client
from hyperwatch.errors import UsageError
from hyperwatch.server.websocket import ClientGoneError, ServerWebSocket
from support import append, event, hour_file, line, running, until


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    found = Network()
    monkeypatch.setattr(feed_module, "open_client", found.open)
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription is full with its first message."""
    monkeypatch.setattr(subscription_state, "_WAITING_BYTES", 1)


async def cursors(subscription: Subscription[Message], count: int) -> list[str]:
    """Of its next messages."""
    return [getattr(await anext(subscription), "cursor", "none") for _ in range(count)]


# Resuming.


async def test_a_broken_connection_is_made_again_and_goes_on_behind_what_came(
    network: Network, autojump_clock: trio.abc.Clock
) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:

        async def serve() -> None:
            peer = await network.peer()
            assert await peer.begin() == {"type": "orders", "coins": ["BTC"], "id": "1", "from": "earliest"}
            await peer.orders(1, 2, 3)
            await peer.close()
            peer = await network.peer()
            assert await peer.begin() == {"type": "orders", "coins": ["BTC"], "id": "2", "from": "c3"}
            await peer.say(orders("2", 1, "c4"))
            await peer.close(1000)

        nursery.start_soon(serve)
        found = [message.cursor async for message in feed.orders(coins=["BTC"], start="earliest")]
    assert found == ["c1", "c2", "c3", "c4"]
    assert [error.what for error in network.breaks] == ["the connection to ws://feed:1/ws broke off (code 1006)"]


async def test_one_that_broke_before_its_first_message_goes_on_where_it_began(
    network: Network, autojump_clock: trio.abc.Clock
) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        assert "from" not in await peer.begin("there")
        await peer.close(1001, "shutting down")
        peer = await network.peer()
        assert (await peer.begin("elsewhere"))["from"] == "there"
        assert subscription.cursor == "there"


async def test_one_that_was_asked_for_while_there_is_no_connection_is_asked_for_at_the_next(
    network: Network, autojump_clock: trio.abc.Clock
) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        peer = await network.peer()
        await peer.close()
        await peer.gone.wait()
        nursery.start_soon(feed.orders().begin)
        assert await (await network.peer()).begin() == {"type": "orders", "id": "1"}


async def test_a_hole_in_the_numbers_heals(network: Network, autojump_clock: trio.abc.Clock) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:

        async def serve() -> None:
            peer = await network.peer()
            await peer.begin()
            await peer.orders(1, 3)
            peer = await network.peer()
            assert (await peer.begin())["from"] == "c1"
            await peer.say(orders("2", 1, "c2"), orders("2", 2, "c3"))

        nursery.start_soon(serve)
        assert await cursors(feed.orders(), 3) == ["c1", "c2", "c3"]
    assert [type(error) for error in network.breaks] == [LossError]
    assert network.breaks[0].what == "message 2 of subscription '1' is missing: 3 came in its place"


async def test_a_hole_that_is_there_again_is_raised_behind_what_came(
    network: Network, autojump_clock: trio.abc.Clock
) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:

        async def serve() -> None:
            for seqs in ((1, 3), (2,)):
                peer = await network.peer()
                await peer.begin()
                await peer.orders(*seqs)

        nursery.start_soon(serve)
        subscription = feed.orders()
        assert await cursors(subscription, 1) == ["c1"]
        with pytest.raises(LossError, match=r"message 1 of subscription '2' is missing: 2 came.*: c1$"):
            await anext(subscription)


async def test_what_is_handed_out_names_the_place_to_go_on_in_another_process(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        assert subscription.cursor == ""
        await peer.begin()
        await peer.orders(1, 2)
        await anext(subscription)
        assert subscription.cursor == "c1"


async def test_a_normal_end_ends_the_iteration_behind_what_came(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        await peer.orders(1, 2)
        await peer.close(1000, "that was all")
        await peer.gone.wait()
        assert [message.cursor async for message in subscription] == ["c1", "c2"]
        with pytest.raises(FeedError, match="has ended: connect again"):
            await anext(feed.orders())


async def test_a_feed_that_ends_before_it_answered_is_an_error(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        nursery.start_soon(partial((await network.peer()).close, 1000))
        with pytest.raises(FeedError, match="ended before it answered"):
            await anext(feed.orders())


# Waits.


async def test_waits_double_to_a_bound_with_full_jitter(
    network: Network, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        bounds.append(high)
        return high

    monkeypatch.setattr("random.uniform", uniform)
    async with network.connect():
        peer = await network.peer()
        network.refusals.extend([RefusedError("Connection refused")] * 2000)
        await peer.close()
        await trio.sleep(15_000)
    assert bounds[:8] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert set(bounds[8:]) == {10.0}
    assert [after - before for before, after in zip(network.tried_s, network.tried_s[1:], strict=False)][:4] == [
        pytest.approx(bound) for bound in bounds[:4]
    ]
    assert network.breaks[1].what == "cannot connect to ws://feed:1/ws (Connection refused)"


@pytest.mark.parametrize(("lasted_s", "bound"), [("live", 0.2), (11.0, 0.2), (0.0, 0.4)])
async def test_after_a_connection_that_was_live_or_lasted_the_first_wait_is_short(
    network: Network,
    autojump_clock: trio.abc.Clock,
    monkeypatch: pytest.MonkeyPatch,
    lasted_s: float | str,
    bound: float,
) -> None:
    bounds: list[float] = []
    monkeypatch.setattr("random.uniform", lambda _low, high: bounds.append(high) or 0.0)  # type: ignore[func-returns-value]
    async with network.connect() as feed, trio.open_nursery() as nursery:
        await (await network.peer()).close()
        peer = await network.peer()
        nursery.start_soon(feed.orders().begin)
        await peer.begin()
        if isinstance(lasted_s, str):
            await peer.say(standing("live", "1", 1, "c"))
        else:
            await trio.sleep(lasted_s)
        await peer.close()
        await (await network.peer()).begin()
    assert bounds == [0.2, bound]


async def test_a_connection_that_says_nothing_is_asked_and_then_made_again(
    network: Network, autojump_clock: trio.abc.Clock
) -> None:
    async with network.connect():
        peer = await network.peer()
        for _ in range(3):
            assert await peer.asked() == {"method": "ping"}
            await peer.say(b'{"channel":"pong"}')
        assert await peer.asked() == {"method": "ping"}
        assert trio.current_time() == pytest.approx(network.tried_s[0] + 80)
        await network.peer()
    assert [error.what for error in network.breaks] == ["ws://feed:1/ws has said nothing for 40 s"]


async def test_a_subscription_that_is_not_answered_is_asked_for_on_another_connection(
    network: Network, autojump_clock: trio.abc.Clock
) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        nursery.start_soon(feed.orders().begin)
        peer = await network.peer()
        await peer.asked()
        for _ in range(10):
            await trio.sleep(5)
            if not peer.gone.is_set():
                await peer.say(b'{"channel":"pong"}')
        await (await network.peer()).begin()
    assert [error.what for error in network.breaks] == ["ws://feed:1/ws did not answer to a subscription within 30 s"]


# What cannot get better.


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_for_good_is_raised_at_once(
    network: Network, autojump_clock: trio.abc.Clock, status: int
) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        network.refusals.append(RefusedError(f"HTTP {status}", status))
        await peer.close()
        with pytest.raises(FeedError, match=rf"cannot connect to .* \(HTTP {status}\).*: begin$"):
            await anext(subscription)
        with pytest.raises(FeedError, match=f"HTTP {status}"):
            await anext(feed.orders())
    assert len(network.tried_s) == 2


@pytest.mark.parametrize("status", [None, 408, 429, 500, 503])
async def test_a_refusal_that_time_heals_is_tried_again(
    network: Network, autojump_clock: trio.abc.Clock, status: int | None
) -> None:
    async with network.connect():
        peer = await network.peer()
        network.refusals.append(RefusedError("busy", status))
        await peer.close()
        await network.peer()
    assert len(network.tried_s) == 3


@pytest.mark.parametrize("code", [1002, 1003, 1008, 1009, 4401])
async def test_a_close_for_good_is_raised_at_once_and_says_code_and_reason_and_what_to_do(
    network: Network, code: int
) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        await peer.orders(1)
        await peer.close(code, "no")
        assert await cursors(subscription, 1) == ["c1"]
        what = rf"was closed by the service \(code {code}: no\): connect again, from where it ended .*: c1$"
        for _ in range(2):
            with pytest.raises(FeedError, match=what):
                await anext(subscription)


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1012, 1013])
async def test_any_other_close_is_the_end_of_that_connection_only(
    network: Network, autojump_clock: trio.abc.Clock, code: int
) -> None:
    async with network.connect():
        await (await network.peer()).close(code)
        await network.peer()


async def test_the_first_connection_is_not_waited_for(network: Network) -> None:
    network.refusals.append(RefusedError("Connection refused"))
    with pytest.raises(FeedError, match=r"cannot connect to .* \(Connection refused\): check the address"):
        async with network.connect():
            raise AssertionError


async def test_a_refused_subscription_is_a_usage_error_and_the_others_go_on(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        good, bad = feed.orders(), feed.orders(coinz=["BTC"])
        nursery.start_soon(good.begin)
        peer = await network.peer()
        await peer.begin()
        nursery.start_soon(peer.refuse, "unknown key 'coinz'")
        with pytest.raises(UsageError, match=r"^the feed refused the subscription: Invalid subscription: unknown key"):
            await anext(bad)
        await peer.orders(1)
        assert await cursors(good, 1) == ["c1"]


async def test_what_ends_the_wait_for_a_refused_official_type_disturbs_nothing(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        good, bad = feed.orders(), feed.subscribe({"type": "l2Book", "coin": "BTC"})
        nursery.start_soon(good.begin)
        peer = await network.peer()
        await peer.begin()
        nursery.start_soon(peer.refuse, "not served here")
        with pytest.raises(UsageError, match="not served here"):
            await anext(bad)
        echo = b'{"channel":"subscriptionResponse","data":{"method":"unsubscribe","subscription":{"type":"l2Book"}}}'
        await peer.say(echo)
        await peer.orders(1)
        assert await cursors(good, 1) == ["c1"]
        more = feed.fills()
        nursery.start_soon(more.begin)
        request = await peer.asked()
        await peer.say(
            echo, b'{"channel":"subscriptionResponse","data":%s,"cursor":"x"}' % json.dumps(request).encode()
        )
        assert (await more.begin()).cursor == "x"
    assert not network.breaks


@pytest.mark.parametrize("text", [b'{"hello":1}', b"\x00", b"[]", b'{"channel":"orders","data":{}}'])
async def test_a_server_that_is_no_feed_is_an_error(network: Network, text: bytes) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        await peer.say(text)
        with pytest.raises(FeedError, match="sent what is no message of a feed"):
            await anext(subscription)


async def test_an_error_that_answers_to_nothing_ends_the_connection(
    network: Network, autojump_clock: trio.abc.Clock
) -> None:
    async with network.connect():
        await (await network.peer()).say(b'{"channel":"error","data":"too much"}')
        await network.peer()
    assert [error.what for error in network.breaks] == ['ws://feed:1/ws said: "too much"']


async def test_a_message_that_is_not_what_it_should_be_is_an_error_and_the_next_one_is_handed_out(
    network: Network,
) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        await peer.say(b'{"channel":"orders","data":{"id":"1","seq":1,"cursor":"c1"}}')
        await peer.orders(2)
        with pytest.raises(FeedError, match="a message of 'orders' is not what it should be"):
            await anext(subscription)
        assert await cursors(subscription, 1) == ["c2"]


# Gaps.


async def test_a_gap_is_handed_out_in_its_turn(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        await peer.say(orders("1", 1, "c1"), gap("1", 2, "c2"), orders("1", 3, "c3"))
        found = [await anext(subscription) for _ in range(3)]
        assert [type(message) for message in found] == [Orders, Gap, Orders]
        assert str(found[1]) == "s from event 3 of block 5 to event 0 of time 9 ms was not delivered (unreadable)"


@pytest.mark.parametrize("raw", [False, True])
async def test_a_gap_is_raised_where_that_is_asked_and_iterating_goes_on_behind(network: Network, raw: bool) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.subscribe({"type": "orders"}, on_gap="raise", raw=raw)  # type: ignore[call-overload]
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        await peer.say(gap("1", 1, "c1"), orders("1", 2, "c2"))
        with pytest.raises(GapError, match=r"was not delivered \(unreadable\)") as caught:
            await anext(subscription)
        assert isinstance(caught.value.gap, Gap)
        assert subscription.cursor == "c1"
        await anext(subscription)
        assert subscription.cursor == "c2"


# Several at once.


async def test_each_of_several_subscriptions_has_its_own_messages(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        both = feed.orders(coins=["BTC"]), feed.orders(coins=["ETH"])
        peer = await network.peer()
        for subscription in both:
            nursery.start_soon(subscription.begin)
            await peer.begin()
        await peer.say(*(orders(name, seq, f"{name}{seq}") for seq in (1, 2, 3) for name in "12"))
        assert await cursors(both[1], 3) == ["21", "22", "23"]
        assert await cursors(both[0], 3) == ["11", "12", "13"]


@pytest.mark.usefixtures("small")
async def test_alone_a_slow_consumer_slows_the_feed_and_loses_nothing(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        nursery.start_soon(peer.orders, *range(1, 101))
        await trio.testing.wait_all_tasks_blocked()
        assert len(subscription._track._items) == 1  # and not a hundred: the rest was not read
        assert await cursors(subscription, 100) == [f"c{seq}" for seq in range(1, 101)]


async def test_a_slow_consumer_does_not_hold_up_another_and_goes_on_where_it_was(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_state, "_WAITING_BYTES", 2 * len(orders("1", 1, "s1")))
    async with network.connect() as feed, trio.open_nursery() as nursery:
        slow, fast = feed.orders(), feed.orders()
        peer = await network.peer()
        for subscription in (slow, fast):
            nursery.start_soon(subscription.begin)
            await peer.begin()
        await peer.say(*(orders("1", seq, f"s{seq}") for seq in (1, 2, 3)), orders("2", 1, "f1"))
        assert await cursors(fast, 1) == ["f1"]
        assert await peer.end() == {"type": "orders", "id": "1"}
        assert await cursors(slow, 2) == ["s1", "s2"]
        nursery.start_soon(partial(anext, slow))
        assert await peer.begin() == {"type": "orders", "id": "3", "from": "s2"}
        await peer.say(orders("1", 4, "s4"), orders("3", 1, "s3"), orders("2", 2, "f2"))
        assert await cursors(fast, 1) == ["f2"]
        assert slow.cursor == "s3"


async def test_there_is_room_again_as_soon_as_one_is_taken(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription_state, "_WAITING_BYTES", 2 * len(orders("1", 1, "c1")))
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        await peer.orders(1, 2, 3)
        await anext(subscription)
        await trio.testing.wait_all_tasks_blocked()
        assert [item.cursor for item in subscription._track._items] == ["c2", "c3"]


@pytest.mark.usefixtures("small")
async def test_a_full_one_does_not_hold_up_a_new_one(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        full, new = feed.orders(), feed.orders()
        peer = await network.peer()
        nursery.start_soon(full.begin)
        await peer.begin()
        await peer.orders(1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(new.begin)
        assert {await peer.answer() for _ in range(2)} == {("subscribe", "2"), ("unsubscribe", "1")}
        await new.begin()


@pytest.mark.usefixtures("small")
async def test_a_full_one_does_not_hold_up_the_end_of_another(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        full, other = feed.orders(), feed.orders()
        peer = await network.peer()
        for subscription in (other, full):
            nursery.start_soon(subscription.begin)
            await peer.begin()
        await peer.orders(1)
        await trio.testing.wait_all_tasks_blocked()
        await other.aclose()
        assert {await peer.answer() for _ in range(2)} == {("unsubscribe", "1"), ("unsubscribe", "2")}


@pytest.mark.usefixtures("small")
async def test_one_task_may_iterate_two_in_any_order(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        first, second = feed.orders(), feed.orders()
        nursery.start_soon(play, await network.peer())
        found: dict[str, list[str]] = {"a": [], "b": []}
        for turn in "abbbaabababbbaaaab" * 3:
            found[turn] += await cursors(first if turn == "a" else second, 1)
        nursery.cancel_scope.cancel()
    for seen in found.values():
        assert seen == [f"c{seq}" for seq in range(1, len(seen) + 1)]


async def play(peer: Peer) -> None:
    """A feed without end: each subscription gets c1, c2 and so on, all at once, as fast as they are taken."""
    places: dict[str, list[int]] = {}

    async def talk() -> None:
        while True:
            for name, place in list(places.items()):
                place[:] = [place[0] + 1, place[1] + 1]
                await peer.say(orders(name, place[0], f"c{place[1]}"))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        while True:
            request = await peer.asked()
            wanted = request["subscription"]
            answer = {"channel": "subscriptionResponse", "data": request, "cursor": "c0", "warnings": []}
            if request["method"] == "unsubscribe":
                del places[wanted["id"]]
            await peer.say(json.dumps(answer).encode())
            if request["method"] == "subscribe":
                places[wanted["id"]] = [0, int(wanted.get("from", "c0")[1:])]


@pytest.mark.usefixtures("small")
async def test_a_feed_that_ends_while_one_waits_for_its_consumer_has_lost_something(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        slow, fast = feed.orders(), feed.orders()
        peer = await network.peer()
        for subscription in (slow, fast):
            nursery.start_soon(subscription.begin)
            await peer.begin()
        nursery.start_soon(partial(anext, fast, None))
        await peer.say(orders("1", 1, "s1"))
        await peer.end()
        await peer.close(1000)
        assert await cursors(slow, 1) == ["s1"]
        with pytest.raises(LossError, match=r"ended while the subscription waited.*: s1$"):
            await anext(slow)


async def test_closing_one_tells_the_feed_and_ends_its_iteration(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        await peer.orders(1, 2)
        await anext(subscription)
        await subscription.aclose()
        assert await peer.end() == {"type": "orders", "id": "1"}
        assert [message async for message in subscription] == []
        await feed.orders().aclose()
        nursery.start_soon(feed.orders().begin)
        await peer.begin()
        assert len(feed._session._tracks) == 1  # nothing is kept of those that are over


async def test_one_that_is_closed_before_the_answer_is_ended_behind_it(network: Network) -> None:
    async with network.connect() as feed:
        subscription = feed.orders()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(subscription.begin)
                peer = await network.peer()
                request = await peer.asked()
                scope.cancel()
        await subscription.aclose()
        answer = {"channel": "subscriptionResponse", "data": request, "cursor": "c", "warnings": []}
        await peer.say(json.dumps(answer).encode())
        assert await peer.end() == {"type": "orders", "id": "1"}
        with pytest.raises(FeedError, match="ended before the feed answered"):
            await subscription.begin()


# Cancellation and the block's end.


async def test_a_cancelled_wait_loses_nothing(network: Network, autojump_clock: trio.abc.Clock) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()

        async def serve() -> None:
            peer = await network.peer()
            await peer.begin()
            for seq in range(1, 51):
                await trio.sleep(0.7)
                await peer.orders(seq)

        nursery.start_soon(serve)
        found: list[str] = []
        while len(found) < 50:
            with trio.move_on_after(0.3):
                found += await cursors(subscription, 1)
    assert found == [f"c{seq}" for seq in range(1, 51)]


async def test_a_cancelled_scope_hands_nothing_out(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders()
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        await peer.orders(1)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(subscription)
        assert scope.cancelled_caught
        assert await cursors(subscription, 1) == ["c1"]


async def test_whoever_still_iterates_at_the_blocks_end_is_told_so(network: Network) -> None:
    async with trio.open_nursery() as nursery:

        async def iterate(subscription: Subscription[Message]) -> None:
            with pytest.raises(FeedError, match="was closed on this side"):
                await anext(subscription)

        async with network.connect() as feed:
            subscription = feed.orders()
            nursery.start_soon(iterate, subscription)
            await (await network.peer()).begin()
    with pytest.raises(FeedError, match="was closed on this side"):
        await anext(feed.orders())


@pytest.mark.parametrize("broken", [False, True])
async def test_the_blocks_own_error_comes_out_as_it_is(network: Network, broken: bool) -> None:
    async def fail() -> None:
        async with network.connect():
            peer = await network.peer()
            if broken:
                await peer.close()
                await peer.gone.wait()
            raise KeyError("mine")  # noqa: EM101

    with pytest.raises(KeyError, match="mine"):
        await fail()


async def test_leaving_does_not_wait_for_the_next_attempt(network: Network, autojump_clock: trio.abc.Clock) -> None:
    network_down = [RefusedError("Connection refused")] * 50
    async with network.connect():
        peer = await network.peer()
        network.refusals.extend(network_down)
        await peer.close()
        await trio.sleep(60)
        left_s = trio.current_time()
    assert trio.current_time() == left_s


# Official types.


async def test_official_messages_go_where_their_user_or_coin_belongs(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        wishes = (
            {"type": "trades", "coin": "BTC"},
            {"type": "trades", "coin": "ETH"},
            {"type": "orderUpdates", "user": "0xAB"},
            {"type": "userFills", "user": "0xab"},
        )
        peer = await network.peer()
        found = [feed.subscribe(wanted) for wanted in wishes]
        for subscription, wanted in zip(found, wishes, strict=True):
            nursery.start_soon(subscription.begin)
            assert await peer.begin() == wanted
        said = [
            b'{"channel":"trades","data":[{"coin":"ETH","px":"2.0"},{"coin":"ETH"}]}',
            b'{"channel":"userFills","data":{"isSnapshot":true,"user":"0xab","fills":[]}}',
            b'{"channel":"orderUpdates","data":[{"status":"open"}],"user":"0xab"}',
            b'{"channel":"orderUpdates","data":[{"status":"open"}],"user":"0xcd"}',
            b'{"channel":"notification","data":"hello"}',
            b'{"channel":"trades","data":[{"coin":"BTC","px":"1.0"}]}',
        ]
        await peer.say(*said)
        for subscription, number in zip(found, (5, 0, 2, 1), strict=True):
            message = await anext(subscription)
            assert type(message) is Message
            assert message == Message(*expected_parts(said[number]))
        assert not any(subscription._track._items for subscription in found)


def expected_parts(text: bytes) -> tuple[str, bytes]:
    whole = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return msgspec.json.decode(whole["channel"], type=str), bytes(whole["data"])


async def test_an_official_type_that_was_interrupted_says_so(network: Network, autojump_clock: trio.abc.Clock) -> None:
    trades = {"type": "trades", "coin": "BTC"}
    said = b'{"channel":"trades","data":[{"coin":"BTC"}]}'
    async with network.connect() as feed, trio.open_nursery() as nursery:
        plain, raw = feed.subscribe(trades), feed.subscribe({"type": "trades", "coin": "ETH"}, raw=True)
        raising = feed.subscribe({"type": "trades", "coin": "SOL"}, on_gap="raise")
        peer = await network.peer()
        for subscription in (plain, raw, raising):
            nursery.start_soon(subscription.begin)
            await peer.begin()
        await peer.say(said)
        await peer.close()
        peer = await network.peer()
        for _ in range(3):
            await peer.begin()
        await peer.say(said)
        assert [type(await anext(plain)) for _ in range(3)] == [Message, Interrupted, Message]
        assert json.loads(await anext(raw))["channel"] == "subscriptionResponse"
        with pytest.raises(GapError, match="was interrupted, and its type cannot be resumed"):
            await anext(raising)


async def test_an_official_type_that_is_taken_too_slowly_is_interrupted_not_cut_in_silence(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_state, "_WAITING_BYTES", 1 + len(orders("2", 1, "c1")))
    said = b'{"channel":"trades","data":[{"coin":"BTC"}]}'
    async with network.connect() as feed, trio.open_nursery() as nursery:
        slow, fast = feed.subscribe({"type": "trades", "coin": "BTC"}), feed.orders()
        peer = await network.peer()
        for subscription in (slow, fast):
            nursery.start_soon(subscription.begin)
            await peer.begin()
        await peer.say(said, said, said, said, orders("2", 1, "c1"))
        assert await cursors(fast, 1) == ["c1"]
        assert await peer.end() == {"type": "trades", "coin": "BTC"}
        assert [type(await anext(slow)) for _ in range(3)] == [Message] * 3
        nursery.start_soon(peer.begin)
        assert isinstance(await anext(slow), Interrupted)


# What is asked, what is handed out.


async def test_filters_are_named_as_on_the_wire_or_in_pythons_way(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        peer = await network.peer()
        wanted = feed.orders(not_statuses=["rejected"], sides=("B",), users=None, minNotional="5.0", min_px="1")
        nursery.start_soon(wanted.begin)
        expected = {"type": "orders", "notStatuses": ["rejected"], "sides": ["B"], "minNotional": "5.0", "minPx": "1"}
        assert await peer.begin() == {**expected, "id": "1"}
        for start in ({"time": 5}, {"block": 7}, "earliest", "c1"):
            nursery.start_soon(feed.orders(start=start).begin)
            assert (await peer.begin())["from"] == start
            nursery.start_soon(feed.subscribe({"type": "orders", "from": start}).begin)
            assert (await peer.begin())["from"] == start
        nursery.start_soon(feed.fills(users=["0x"]).begin)
        assert (await peer.begin())["type"] == "fills"
        nursery.start_soon(feed.book_diffs(coins=["BTC"]).begin)
        assert (await peer.begin())["type"] == "bookDiffs"


@pytest.mark.parametrize("key", ["id", "compress"])
async def test_a_key_that_the_library_cannot_honour_is_a_usage_error(network: Network, key: str) -> None:
    async with network.connect() as feed:
        with pytest.raises(UsageError, match=f"{key} in a subscription of the client library: leave it out"):
            feed.orders(**{key: "x"})  # type: ignore[call-overload]


async def test_raw_messages_are_the_feeds_own_bytes(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders(raw=True)
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        said = [orders("1", 1, "c1", b'{"new": 1.50}'), standing("live", "1", 2, "c1")]
        await peer.say(*said)
        assert [await anext(subscription) for _ in said] == said


async def test_the_answer_has_the_warnings(network: Network) -> None:
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders(coins=["btc"])
        nursery.start_soon(partial((await network.peer()).begin, "there", "did you mean 'BTC'?"))
        assert await subscription.begin() == Answer("there", ("did you mean 'BTC'?",))


async def test_what_has_come_and_was_not_taken_is_bounded(network: Network) -> None:
    text = orders("1", 1, "c1", b'"%s"' % (b"x" * 1_000_000))
    async with network.connect() as feed, trio.open_nursery() as nursery:
        subscription = feed.orders(raw=True)
        nursery.start_soon(subscription.begin)
        peer = await network.peer()
        await peer.begin()
        nursery.start_soon(partial(peer.say, *(text.replace(b'"seq":1', b'"seq":%d' % seq) for seq in range(1, 12))))
        await trio.testing.wait_all_tasks_blocked()
        assert 4 * 1024**2 <= subscription._track._waiting_bytes < 5.1 * 1024**2
        for _ in range(11):
            await anext(subscription)


async def test_a_token_goes_with_every_handshake(network: Network, autojump_clock: trio.abc.Clock) -> None:
    async with network.connect("secret"):
        await (await network.peer()).close()
        await network.peer()
    assert network.tokens == ["secret", "secret"]


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "ä"])
async def test_what_can_be_no_token_is_a_usage_error_that_does_not_repeat_it(network: Network, token: str) -> None:
    with pytest.raises(UsageError, match="the token is empty, or has signs that no token has") as caught:
        async with network.connect(token):
            pass
    assert not token or repr(token) not in str(caught.value)


# On real sockets.


async def test_the_token_is_a_bearer_header_and_its_refusal_is_raised_without_it(nursery: trio.Nursery) -> None:
    server = Plain(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 14\r\n\r\na token, please")
    listeners = await nursery.start(partial(trio.serve_tcp, server.handle, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(FeedError, match=r"\(HTTP 401, a token, pleas") as caught:
        async with connect(f"127.0.0.1:{port}", token="t0ken"):  # noqa: S106  made up
            pass
    assert b"\r\nauthorization: bearer t0ken\r\n" in server.heads[0].lower()
    assert "t0ken" not in repr(caught.value)
    nursery.cancel_scope.cancel()


async def test_the_wire_says_by_which_status_it_was_refused(nursery: trio.Nursery) -> None:
    server = Plain(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
    listeners = await nursery.start(partial(trio.serve_tcp, server.handle, 0, host="127.0.0.1"))
    with pytest.raises(RefusedError, match="HTTP 429") as caught:
        async with open_client(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/ws"):
            pass
    assert caught.value.status == 429
    nursery.cancel_scope.cancel()


async def test_an_error_in_the_block_is_not_replaced_by_a_server_that_does_not_say_goodbye() -> None:
    async def say_nothing(_peer: ServerWebSocket) -> None:
        await trio.sleep_forever()

    async with listener(say_nothing) as url:
        with pytest.raises(KeyError, match="mine"):
            async with connect(url):
                raise KeyError("mine")  # noqa: EM101


async def test_the_client_says_goodbye() -> None:
    ends: list[BaseException | None] = []

    async def hear(peer: ServerWebSocket) -> None:
        try:
            await peer.receive()
        except ClientGoneError as error:
            ends.append(error.__cause__)
            raise

    async with listener(hear) as url:
        async with connect(url):
            pass
        await until(lambda: bool(ends))
    assert isinstance(ends[0], trio_websocket.ConnectionClosed)
    assert ends[0].reason is not None
    assert ends[0].reason.code == 1000


async def test_a_wrong_path_is_an_error(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))
    async with running(tmp_path) as port:
        with pytest.raises(FeedError, match=r"cannot connect to .*/wrong \(HTTP 404, the feed is at /ws\): check"):
            async with connect(f"ws://127.0.0.1:{port}/wrong"):
                pass


async def test_a_port_where_nobody_listens_is_an_error() -> None:
    with socket.socket() as silent:  # bound, so that nobody else may listen there
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(FeedError, match=r"cannot connect to ws://127.* \(Connection refused\)") as caught:
            async with connect(f"127.0.0.1:{silent.getsockname()[1]}"):
                pass
    assert caught.value.exit_code == 1


async def test_the_service_and_the_client_agree(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1), event(2, coin="ETH")]) + line(8, [event(3)]))
    with trio.fail_after(20):
        async with running(tmp_path) as port, connect(f"127.0.0.1:{port}") as feed:
            every, bitcoin = feed.orders(start="earliest"), feed.orders(coins=["BTC"], start="earliest")
            found = [await anext(every) for _ in range(3)]
            assert [type(message) for message in found] == [Orders, Orders, Live]
            assert [found[0].block, found[0].places, found[0].late] == [7, range(2), False]  # type: ignore[union-attr]
            assert found[0].raws == [event(1), event(2, coin="ETH")]  # type: ignore[union-attr]
            assert [part.order.oid for part in (await of_orders(bitcoin)).events] == [1]
            append(path, line(9, [event(4)]))
            assert (await of_orders(every)).raws == [event(4)]
            assert isinstance(await positioned(every), Position)
            with pytest.raises(UsageError, match=r"refused the subscription: Invalid subscription: '0x12' is no addr"):
                await anext(feed.orders(users=["0x12"]))


async def of_orders(subscription: Subscription[Message]) -> Orders:
    while not isinstance(message := await anext(subscription), Orders):
        pass
    return message


async def positioned(subscription: Subscription[Message]) -> Message:
    while isinstance(message := await anext(subscription), Orders | Live):
        pass
    return message


async def test_by_default_a_broken_connection_is_a_warning_in_the_log(
    network: Network, autojump_clock: trio.abc.Clock
) -> None:
    said: list[str] = []
    number = logger.add(lambda text: said.append(text.record["message"]), level="WARNING")
    try:
        async with connect("ws://feed:1/ws"):
            await (await network.peer()).close()
            await network.peer()
    finally:
        logger.remove(number)
    assert said == ["the connection to ws://feed:1/ws broke off (code 1006); connecting again"]


# Addresses.


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/ws"),
        ("node:8000", "ws://node:8000/ws"),
        ("[::1]:8000", "ws://[::1]:8000/ws"),
        ("ws://node:8000", "ws://node:8000/ws"),
        ("ws://node:8000/", "ws://node:8000/"),
        ("wss://node/ws?x=1", "wss://node/ws?x=1"),
    ],
)
def test_an_address_is_completed(text: str, url: str) -> None:
    assert normalize_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["", "node", "http://node/ws", "ws://", "ws:///ws", "node:99999", "no de:1", "nöde:1", "ws://[::1/ws", ":80",
     "ws://a..b:80/ws", "no\0de:1"],
)  # fmt: skip
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is no address of a feed: write it as"):
        normalize_url(text)
