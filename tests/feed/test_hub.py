"""The hub and the connections it pushes to, on sockets that take what the test lets them take."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from fake_socket import FakeSocket
from hyperwatch.feed.catch_up import CatchUp
from hyperwatch.feed.channels.events import Channel, Orders, OrderUpdates
from hyperwatch.feed.filters.orders import OrderFilter
from hyperwatch.feed.hub import Hub
from hyperwatch.feed.registry import StreamSource
from hyperwatch.feed.requests.answers import Unsubscribe
from hyperwatch.feed.subscription import Subscription
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.line_reader import LineReader
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Tree
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.server import connection as connection_module
from hyperwatch.server.connection import Connection
from hyperwatch.server.framing import FrameCache
from support import USER, append, batches, event, hour_file, line, until


def subscribed(hub: Hub, socket: FakeSocket, channel: Channel | None = None, name: str = "1") -> Subscription:
    """A live subscription at the ring's end."""
    subscription = Subscription(channel or Orders(OrderFilter()), name, socket, hub.ring.end, hub.ring.end_serial)
    hub.join(subscription)
    return subscription


async def test_what_its_connection_has_sent_is_not_pushed_again(tmp_path: Path) -> None:
    _, (batch,) = batches(tmp_path, [[line(7, [event(1)]), line(8, [event(2)])]])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    hub.ring.append(batch)  # the head fills the ring, a connection serves the subscription from there, and it joins
    socket = FakeSocket()
    subscribed(hub, socket)
    await hub.publish(batch)  # and only now it is published

    assert socket.heard == []


async def test_where_a_subscription_stands_is_never_told_from_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperwatch.feed.hub.TELL_S", 0)
    _, (batch,) = batches(tmp_path, [[line(7, [event(1)]), line(8, [event(2)])]])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    hub.ring.append(batch)
    ahead = FakeSocket()
    subscribed(hub, ahead)  # it has had what the hub has not published
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.tell_positions)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert ahead.heard == []
        await hub.publish(batch)
        await until(lambda: bool(ahead.heard))
        nursery.cancel_scope.cancel()

    assert ahead.heard[0]["channel"] == "cursor"
    assert Cursor.decode(ahead.heard[0]["data"]["cursor"]) == batch.after


async def test_positions_never_go_back_while_some_views_have_an_entry_and_others_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperwatch.feed.hub.TELL_S", 0)
    lines = [line(8, [event(number)]) for number in range(300)]
    _, (batch,) = batches(tmp_path, [[line(7, [event(0)]), *lines]])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    sockets = [FakeSocket() for _ in range(20)]  # so many views that the hub lets others run within an entry
    for number, socket in enumerate(sockets):
        subscribed(hub, socket, Orders(OrderFilter.of(coins=["BTC", str(number)])))
    hub.ring.append(batch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.tell_positions)
        await hub.publish(batch)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()

    for socket in sockets:
        cursors = [Cursor.decode(message["data"]["cursor"]) for message in socket.heard]
        offsets = [cursor.places[0].offset if cursor.places else 0 for cursor in cursors]
        assert socket.blocks() == [7, 8]
        assert len(offsets) > 3
        assert offsets == sorted(offsets)


async def test_who_leaves_while_others_are_pushed_to_hears_nothing_more(tmp_path: Path) -> None:
    _, (batch,) = batches(tmp_path, [[line(7, [event(1)])]])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)

    class Disturbing(FakeSocket):
        """When it is pushed to, one leaves, and one leaves and is back, ahead: as others may while the hub lets them run."""

        def offer(self, parts: Sequence[bytes], size: int) -> bool:
            hub.leave(second)
            hub.leave(last)
            last.serial = hub.ring.end_serial
            hub.join(last)
            return super().offer(parts, size)

    sockets = [Disturbing(), FakeSocket(), FakeSocket()]
    first, second, last = [subscribed(hub, socket) for socket in sockets]
    hub.ring.append(batch)
    await hub.publish(batch)

    assert [socket.blocks() for socket in sockets] == [[7], [], []]
    assert first.seq == 1
    assert hub.live_clients() == 2


async def test_others_run_within_a_push_to_many_and_between_many_views(tmp_path: Path) -> None:
    _, (batch,) = batches(tmp_path, [[line(7, [event(1), event(2, coin="ETH")])]])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    sockets = [FakeSocket() for _ in range(1000)]
    for number, socket in enumerate(sockets):
        wanted = ["BTC"] if number % 2 else ["ETH", str(number)]  # one view of 500, and 500 views
        subscribed(hub, socket, Orders(OrderFilter.of(coins=wanted)))
    reached = [0]

    async def look() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            reached.append(sum(bool(socket.heard) for socket in sockets))

    hub.ring.append(batch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        assert await hub.publish(batch) == 1000
        nursery.cancel_scope.cancel()

    # A millisecond is 125 pushes; the hub may have two turns before another has one, and one more at the end.
    assert max(later - sooner for sooner, later in pairwise([*reached, 1000])) <= 3 * 125


async def test_small_entries_that_are_there_already_go_to_a_client_in_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperwatch.feed.hub._WRITE_BYTES", 100_000)
    pad = "0x" + "0" * 20_000
    small = [line(number, [event(number)]) for number in range(7, 20)]
    large = [line(number, [event(number, cloid=pad)]) for number in range(20, 30)]
    _, (batch,) = batches(tmp_path, [[*small, *large]])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    writes: list[int] = []

    class Listening(FakeSocket):
        def offer(self, parts: Sequence[bytes], size: int) -> bool:
            writes.append(size)
            return super().offer(parts, size)

    socket = Listening()
    subscription = subscribed(hub, socket)
    hub.ring.append(batch)
    await hub.publish(batch)

    assert socket.blocks() == list(range(7, 30))
    assert [message["data"]["seq"] for message in socket.heard] == list(range(1, 24))
    assert subscription.seq == 23
    assert len(writes) == 3
    assert max(writes) < 110_000  # what waits for a client that takes less is bounded


async def test_who_joins_within_what_goes_out_together_hears_the_rest_of_it(tmp_path: Path) -> None:
    _, (batch,) = batches(tmp_path, [[line(number, [event(number)]) for number in (7, 8, 9)]])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    socket = FakeSocket()
    subscription = Subscription(Orders(OrderFilter()), "1", socket, batch.before, 2)  # entries 0 and 1 it has had
    hub.join(subscription)
    hub.ring.append(batch)
    await hub.publish(batch)

    assert socket.blocks() == [9]
    assert subscription.seq == 1


async def test_a_clients_subscriptions_are_told_where_they_stand_in_one_write_each_with_its_own_id_and_seq(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    _, (batch,) = batches(tmp_path, [[line(7, [event(1)])]])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    socket, full = FakeSocket(), FakeSocket(room=0)
    for number in range(150):
        subscribed(hub, socket, Orders(OrderFilter.of(coins=[str(number)])), str(number))
    subscribed(hub, socket, Orders(OrderFilter.of(coins=["BTC"])), "it trades")
    subscribed(hub, socket, OrderUpdates(USER), "it has no cursors")
    later = subscribed(hub, full, Orders(OrderFilter.of(coins=["0"])))
    hub.ring.append(batch)
    await hub.publish(batch)
    socket.room = 2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.tell_positions)
        await trio.sleep(1.5)
        assert socket.room == 1
        assert (full.heard, later.live) == ([], True)
        full.room = 1
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    told = [message["data"] for message in socket.heard if message["channel"] == "cursor"]
    assert [(data["id"], data["seq"]) for data in told] == [
        *[(str(number), 1) for number in range(150)], ("it trades", 2),
        *[(str(number), 2) for number in range(150)], ("it trades", 3),
    ]  # fmt: skip
    assert {Cursor.decode(data["cursor"]) for data in told} == {batch.after}
    assert [message["data"]["seq"] for message in full.heard] == [1]  # what was not taken has no number
    assert autojump_clock.autojump_threshold == 0


async def test_positions_are_told_in_the_middle_of_a_batch_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperwatch.feed.hub.TELL_S", 0)
    monkeypatch.setattr("hyperwatch.feed.hub._TOGETHER", 1)
    monkeypatch.setattr("hyperwatch.feed.hub._PUSH_US", 1000)  # others run within entries, never between
    _, (batch,) = batches(tmp_path, [[line(number, [event(number)]) for number in range(7, 107)]])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    quiet = FakeSocket()
    subscribed(hub, quiet, Orders(OrderFilter.of(coins=["QUIET"])))
    for _ in range(2):
        subscribed(hub, FakeSocket())
    hub.ring.append(batch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.tell_positions)
        await hub.publish(batch)
        nursery.cancel_scope.cancel()

    told = [message["data"]["blockNumber"] for message in quiet.heard]
    assert len(told) > 10
    assert told == sorted(told)


async def test_a_subscription_that_fell_behind_gets_what_was_not_taken_once(tmp_path: Path) -> None:
    statuses = ["open", "newThing", "canceled"]  # three messages: what is not official travels alone
    first = [line(7, [event(number, status=status)]) for number, status in enumerate(statuses)]
    log, made = batches(tmp_path, [first, [line(8, [event(8)]), line(9, [event(9)])], [line(10, [event(10)])]])
    hub = Hub(Ring(made[0].before, 1), FrameCache)  # it has let go of the entries when they are sent
    socket = FakeSocket(room=1)
    connection = Connection(socket, {ORDERS.name: StreamSource(hub, CatchUp(log, hub.ring))})  # type: ignore[arg-type]  # as far as it is used
    subscription = Subscription(OrderUpdates(USER), "1", connection, hub.ring.end, 0)
    connection._subscriptions["1"] = subscription
    hub.join(subscription)
    for each in made:
        hub.ring.append(each)
        await hub.publish(each)
    assert not subscription.live
    socket.room = 10**9
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection._serve_behind)
        await until(lambda: subscription.live)
        nursery.cancel_scope.cancel()

    assert [update["order"]["oid"] for message in socket.heard for update in message["data"]] == [0, 1, 2, 8, 9, 10]


async def test_who_reads_from_the_earliest_while_the_first_file_appears_misses_nothing(tmp_path: Path) -> None:
    log = Tree(tmp_path, ORDERS, Layout.STREAMING)
    hub = Hub(Ring(Cursor(ORDERS.directory(Layout.STREAMING)), 10**9), FrameCache)
    catch_up, socket = CatchUp(log, hub.ring), FakeSocket()
    connection = Connection(socket, {ORDERS.name: StreamSource(hub, catch_up)})  # type: ignore[arg-type]  # as far as it is used
    reader = await catch_up.open(hub.ring.end, needs_keys=False)  # there is no file yet
    subscription = Subscription(Orders(OrderFilter()), "1", connection, hub.ring.end, -1, reader=reader)
    connection._subscriptions["1"] = subscription
    _, (batch,) = batches(tmp_path, [[line(7, [event(1)])]])
    hub.ring.append(batch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection._serve_behind)
        connection.wake()
        await until(lambda: subscription.live)
        nursery.cancel_scope.cancel()

    assert [message["channel"] for message in socket.heard if message["channel"] != "cursor"] == ["orders", "live"]


async def test_a_stalled_client_keeps_no_file_open(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    log, (batch,) = batches(tmp_path, [[line(7, [event(1)])]])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    connection = Connection(FakeSocket(), {ORDERS.name: StreamSource(hub, CatchUp(log, hub.ring))})  # type: ignore[arg-type]  # as far as it is used
    reader = BatchReader(log, Cursor(batch.before.directory))
    subscription = Subscription(Orders(OrderFilter()), "1", connection, batch.before, 0, reader=reader)
    subscription.sending_s = trio.current_time()
    connection._subscriptions["1"] = subscription
    with trio.move_on_after(3 * connection_module._LET_GO_S):
        await connection._let_files_go()

    assert subscription.reader is None
    assert subscription.serial == -1
    assert autojump_clock.autojump_threshold == 0


def test_what_is_written_while_the_newer_hour_is_looked_for_is_not_late(tmp_path: Path) -> None:
    old = hour_file(tmp_path, "20260505/9")
    append(old, line(7, [event(1)]))

    class Busy(Tree):
        """The node writes its last line and begins the next hour between two system calls of ours."""

        def names(self, after: str | None = None) -> list[str]:
            if after is not None and not (self.hourly / "20260505/10").exists():
                append(old, line(7, [event(2)]))
                append(hour_file(tmp_path, "20260505/10"), line(8, [event(3)]))
            return super().names(after)

    walk = LineReader(Busy(tmp_path, ORDERS, Layout.STREAMING))
    spans = [walk.take(1_000) for _ in range(3)]
    walk.close()

    assert [(span.file, span.late) for span in spans if span] == [
        ("20260505/9", False), ("20260505/9", False), ("20260505/10", False),
    ]  # fmt: skip


async def test_nothing_of_a_subscription_is_sent_behind_the_acknowledgement_of_its_end(tmp_path: Path) -> None:
    statuses = ["open", "newThing", "canceled"]  # three messages of one entry
    lines = [line(7, [event(number, status=status)]) for number, status in enumerate(statuses)]
    log, (batch,) = batches(tmp_path, [lines])
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    hub.ring.append(batch)
    released = trio.Event()

    class Slow(FakeSocket):
        async def send(self, head: bytes, tail: bytes = b"", *, binary: bool = False) -> None:
            await released.wait()
            await super().send(head, tail, binary=binary)

    socket = Slow(room=0)
    connection = Connection(socket, {ORDERS.name: StreamSource(hub, CatchUp(log, hub.ring))})  # type: ignore[arg-type]  # as far as it is used
    subscription = Subscription(OrderUpdates(USER), "1", connection, batch.before, 0)
    connection._subscriptions["1"] = subscription
    connection.wake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection._serve_behind)
        await trio.testing.wait_all_tasks_blocked()  # within the first message
        nursery.start_soon(connection._unsubscribe, Unsubscribe(b"{}", None, OrderUpdates(USER)))
        await trio.testing.wait_all_tasks_blocked()  # the acknowledgement waits for it
        released.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert [message["channel"] for message in socket.heard] == ["orderUpdates", "subscriptionResponse"]


async def test_a_client_that_is_slow_on_the_ring_gets_nothing_twice(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    log, made = batches(tmp_path, [[line(number, [event(number)])] for number in (7, 8, 9)])
    hub = Hub(Ring(made[0].before, 10**9), FrameCache)
    for batch in made:
        hub.ring.append(batch)

    class Slow(FakeSocket):
        async def send(self, head: bytes, tail: bytes = b"", *, binary: bool = False) -> None:
            await trio.sleep(3 * connection_module._LET_GO_S)
            await super().send(head, tail, binary=binary)

    socket = Slow(room=0)
    connection = Connection(socket, {ORDERS.name: StreamSource(hub, CatchUp(log, hub.ring))})  # type: ignore[arg-type]  # as far as it is used
    subscription = Subscription(Orders(OrderFilter()), "1", connection, made[0].before, 0)
    connection._subscriptions["1"] = subscription
    connection.wake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection._let_files_go)
        nursery.start_soon(connection._serve_behind)
        with trio.move_on_after(30 * connection_module._LET_GO_S):
            while not subscription.live:  # noqa: ASYNC110  on a virtual clock
                await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert socket.blocks() == [7, 8, 9]
    assert autojump_clock.autojump_threshold == 0
