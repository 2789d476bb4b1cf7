"""The feed over real sockets: a node's files on one side, clients on the other."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.feed.catch_up import CatchUp
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.positions import Cursor
from hyperwatch.node.streams import Layout
from hyperwatch.server.transport import _behind
from support import (
    TIME_MS,
    USER,
    Client,
    append,
    connected,
    event,
    hour_file,
    line,
    lines_of,
    places_of,
    running,
    until,
)

OTHER = "0x" + "cd" * 20
HOUR = "20260505/9"
BLOCKS = [(number, [event(10 * number + each) for each in range(3)]) for number in range(100, 120)]
EVENTS = [(block, place, raw.decode()) for block, events in BLOCKS for place, raw in enumerate(events)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = hour_file(tmp_path, HOUR)
    append(path, lines_of(Layout.STREAMING, BLOCKS))
    return path


@asynccontextmanager
async def feed(path: Path, **settings: Any) -> AsyncIterator[Client]:  # noqa: ANN401  Config checks them
    """A running service and one client of it."""
    with trio.fail_after(20):
        async with running(path.parents[3], **settings) as port, connected(port) as client:
            yield client


async def test_every_event_arrives_in_order_with_its_place_and_seq_counts(path: Path) -> None:
    async with feed(path) as client:
        answer = await client.subscribe(type="orders")
        assert answer["data"]["subscription"] == {"type": "orders", "id": "1"}
        assert answer["warnings"] == []
        assert (await client.hear())["channel"] == "live"

        got: list[Any] = []
        seqs = [1]
        for number in range(200, 230):
            append(path, line(number, [event(number)]) + line(number, [event(number + 1)]))
            while len(got) < 2 * (number - 199):
                message = await client.hear()
                seqs.append(message["data"]["seq"])
                got += places_of(message["data"]) if message["channel"] == "orders" else []

    expected = [(n, place, event(n + place).decode()) for n in range(200, 230) for place in (0, 1)]
    assert got == expected
    assert seqs == list(range(1, len(seqs) + 1))


async def test_without_from_a_subscription_starts_at_the_newest_complete_line(path: Path) -> None:
    append(path, line(120, [event(1)])[:100])
    async with feed(path) as client:
        await client.subscribe(type="orders")
        append(path, line(120, [event(1)])[100:])
        assert await client.collect(1) == [(120, 0, event(1).decode())]


async def test_earliest_is_everything_there_is_and_then_the_head(path: Path) -> None:
    async with feed(path) as client:
        await client.subscribe(type="orders", **{"from": "earliest"})
        assert await client.collect(len(EVENTS)) == EVENTS
        assert (await client.hear("live"))["data"]["blockNumber"] == 119
        append(path, line(119, [event(7)]) + line(120, [event(8)]))
        assert await client.collect(2) == [(119, 3, event(7).decode()), (120, 0, event(8).decode())]


@pytest.mark.parametrize("layout", list(Layout))
async def test_every_cursor_of_every_message_resumes_exactly_behind_it(tmp_path: Path, layout: Layout) -> None:
    path = hour_file(tmp_path, HOUR, layout)
    append(path, lines_of(layout, BLOCKS[:6]))
    async with feed(path) as client:
        await client.subscribe(type="orders", id="all", **{"from": "earliest"})
        got: list[Any] = []
        cursors: dict[str, int] = {}
        while len(got) < 18:
            data = (await client.hear("orders"))["data"]
            got += places_of(data)
            cursors[data["cursor"]] = len(got)
        cursors[(await client.hear("live"))["data"]["cursor"]] = 18
        for number, (cursor, taken) in enumerate(cursors.items()):
            await client.subscribe(type="orders", id=str(number), **{"from": cursor})
            rest: list[Any] = []
            while (message := await client.hear("orders", "live"))["channel"] == "orders":
                assert message["data"]["id"] == str(number)
                rest += places_of(message["data"])
            assert rest == got[taken:]


async def test_a_subscription_from_the_middle_of_a_long_by_block_line(tmp_path: Path) -> None:
    path = hour_file(tmp_path, HOUR, Layout.BY_BLOCK)
    events = [event(number, cloid="0x" + "0" * 100_000) for number in range(12)]
    append(path, line(7, events))
    async with feed(path) as client:
        await client.subscribe(type="orders", id="a", **{"from": "earliest"})
        first = (await client.hear("orders"))["data"]
        assert len(first["events"]) == 9
        await client.hear("live")
        await client.subscribe(type="orders", id="b", **{"from": first["cursor"]})
        rest = await client.collect(3)
    assert [(block, place) for block, place, _ in rest] == [(7, place) for place in range(9, 12)]
    assert [json.loads(raw)["order"]["oid"] for _, _, raw in rest] == list(range(9, 12))


async def test_a_cursor_of_another_stream_is_refused_with_the_reason(path: Path) -> None:
    async with feed(path) as client:
        wrong = Cursor("node_fills").encode()
        answer = await client.subscribe(type="orders", id="x", **{"from": wrong})
        assert answer["channel"] == "error"
        assert (answer["code"], answer["id"]) == ("bad-cursor", "x")
        assert "one of node_fills, this log is node_order_statuses_streaming" in answer["data"]


async def test_filters_choose_and_the_cursor_goes_past_what_did_not_match(path: Path) -> None:
    async with feed(path) as client:
        await client.subscribe(type="orders", coins=["ETH"], sides=["B"])
        await client.hear("live")
        append(path, line(120, [event(1)]) + line(120, [event(2, coin="ETH")]) + line(120, [event(3)]))
        data = (await client.hear("orders"))["data"]
        assert (data["index"], [each["order"]["oid"] for each in data["events"]]) == (1, [2])
        told = (await client.hear("cursor"))["data"]
        assert (told["blockNumber"], told["blockTime"]) == (120, TIME_MS)
        assert Cursor.decode(told["cursor"]).count == 3


async def test_an_event_of_unknown_kind_reaches_who_wants_everything_and_who_cannot_judge_it(path: Path) -> None:
    odd = {"account": "0x", "kind": "new"}
    wants: dict[str, dict[str, Any]] = {
        "all": {},
        "rest": {"notStatuses": ["rejected"]},
        "coin": {"coins": ["BTC"]},
        "large": {"minNotional": "0"},
    }
    async with feed(path) as client:
        for name, filter_ in wants.items():
            await client.subscribe(type="orders", id=name, **filter_)
            await client.hear("live")
        append(path, line(120, [event(1)]) + line(120, [json.dumps(odd).encode()]) + line(120, [event(2)]))
        heard = [(await client.hear("orders"))["data"] for _ in wants]

    assert {each["id"]: each["index"] for each in heard} == {"all": 0, "rest": 0, "coin": [0, 2], "large": [0, 2]}
    assert {each["id"]: each["events"][1] == odd for each in heard} == {
        "all": True, "rest": True, "coin": False, "large": False
    }  # fmt: skip


async def test_order_updates_are_official_and_for_any_number_of_users(path: Path) -> None:
    async with feed(path) as client:
        for user in (USER, OTHER):
            answer = await client.subscribe(type="orderUpdates", user=user)
            assert answer == {
                "channel": "subscriptionResponse",
                "data": {"method": "subscribe", "subscription": {"type": "orderUpdates", "user": user}},
            }
        append(path, line(120, [event(1)]) + line(120, [event(2, user=OTHER, status="newThing")]))
        first, second = await client.hear(), await client.hear()
        assert [first["channel"], second["channel"]] == ["orderUpdates"] * 2
        assert {first["user"], second["user"]} == {USER, OTHER}


async def test_our_channels_go_only_to_connections_that_hold_one_of_our_subscriptions(path: Path) -> None:
    async with feed(path) as client:
        await client.subscribe(type="orderUpdates", user=USER)
        with trio.move_on_after(1.2) as scope:  # longer than the second after which `cursor` is told
            await client.hear()
        assert scope.cancelled_caught


async def test_ids_are_unique_and_equal_subscriptions_without_one_are_refused(path: Path) -> None:
    async with feed(path) as client:
        await client.subscribe(type="orders", id="a")
        assert (await client.subscribe(type="orders", id="a"))["code"] == "already-subscribed"
        assert (await client.subscribe(type="orders"))["code"] == "already-subscribed"
        assert (await client.subscribe(type="orders", id="b"))["channel"] == "subscriptionResponse"
        assert (await client.subscribe(type="orders", coins=["BTC"]))["data"]["subscription"]["id"] == "1"
        await client.subscribe(type="orderUpdates", user=USER)
        again = await client.subscribe(type="orderUpdates", user=USER)
        assert again["data"] == f'Already subscribed: {{"type": "orderUpdates", "user": "{USER}"}}'


async def test_after_unsubscribe_nothing_more_comes(path: Path) -> None:
    async with feed(path) as client:
        await client.subscribe(type="orders", id="a")
        await client.subscribe(type="orders", coins=["BTC"])
        for subscription in ({"type": "orders", "id": "a"}, {"type": "orders", "coins": ["BTC"]}):
            await client.say({"method": "unsubscribe", "subscription": subscription})
            answer = await client.hear("subscriptionResponse")
            assert answer["data"] == {"method": "unsubscribe", "subscription": subscription}
        await client.say({"method": "unsubscribe", "subscription": {"type": "orders", "id": "a"}})
        assert (await client.hear("error"))["data"] == 'Already unsubscribed: {"type": "orders", "id": "a"}'
        append(path, line(120, [event(1)]))
        await client.subscribe(type="orders", id="c", **{"from": "earliest"})
        while (message := await client.hear("orders", "live"))["channel"] == "orders":
            assert message["data"]["id"] == "c"


async def test_unsubscribing_in_the_middle_of_the_past_ends_it(path: Path) -> None:
    append(path, b"".join(line(number, [event(number, cloid="0x" + "0" * 1000)]) for number in range(120, 5_000)))
    async with feed(path) as client:
        await client.subscribe(type="orders", id="a", **{"from": "earliest"})
        await client.say({"method": "unsubscribe", "subscription": {"type": "orders", "id": "a"}})
        await client.hear("subscriptionResponse")
        await client.say({"method": "ping"})
        while (await client.hear())["channel"] != "pong":
            pass
        await client.subscribe(type="orders", id="b")
        assert (await client.hear("orders", "live"))["data"]["id"] == "b"


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        ('{"method":"ping"}', {"channel": "pong"}),
        ("nonsense", "Error parsing JSON into valid websocket request"),
        (b"\x00\xff", "binary messages are not understood"),
        ('{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC"}}', "'l2Book' is not served here"),
    ],
)
async def test_whatever_a_client_says_it_is_answered_and_goes_on(path: Path, said: str | bytes, answered: Any) -> None:  # noqa: ANN401
    async with feed(path) as client:
        await client.socket.send_message(said)
        answer = await client.hear()
        assert answer == answered or answered in answer["data"]
        if "l2Book" in str(said):
            assert (await client.hear())["data"]["method"] == "unsubscribe"
        await client.say({"method": "ping"})
        assert await client.hear() == {"channel": "pong"}


async def test_another_path_and_what_is_no_websocket_are_refused_and_the_others_go_on(path: Path) -> None:
    with trio.fail_after(20):
        async with running(path.parents[3]) as port, connected(port) as client:
            handshake = HANDSHAKE.replace(b"/ws", b"/elsewhere")
            for said, status in (
                (handshake, b"404"),
                (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
                (b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
                (b"GET /ws HTTP/1.1\r\n\r\n", b"400"),
                (b"\x00" * 100, b"400"),
            ):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(said)
                    answer = b"".join([bytes(data) async for data in stream])
                assert answer.startswith(b"HTTP/1.1 " + status)
            await client.say({"method": "ping"})
            assert await client.hear() == {"channel": "pong"}


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class LazyClient(Client):
    """Has a small receive buffer, and takes from it only what it is asked for: a library would read ahead."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._data = b""

    async def say(self, message: object) -> None:
        body = json.dumps(message).encode()
        assert len(body) < 126
        await self._stream.send_all(bytes((0x81, 0x80 | len(body), 0, 0, 0, 0)) + body)

    async def hear(self, *channels: str) -> dict[str, Any]:
        while True:
            first, length = await self._take(2)
            assert first == 0x81
            if length >= 126:
                length = int.from_bytes(await self._take(2 if length == 126 else 8), "big")
            message: dict[str, Any] = json.loads(await self._take(length))
            if not channels or message["channel"] in channels:
                return message

    async def _take(self, count: int) -> bytes:
        while len(self._data) < count:
            more = await self._stream.receive_some(65536)
            assert more
            self._data += more
        taken, self._data = self._data[:count], self._data[count:]
        return taken


@asynccontextmanager
async def lazily_connected(port: int) -> AsyncIterator[LazyClient]:
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with trio.SocketStream(trio.socket.from_stdlib_socket(plain)) as stream:
        await stream.socket.connect(("127.0.0.1", port))
        await stream.send_all(HANDSHAKE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await stream.receive_some(1)
        assert answer.startswith(b"HTTP/1.1 101")
        yield LazyClient(stream)


async def test_a_client_that_stops_reading_delays_nobody_and_gets_everything(path: Path, monkeypatch: Any) -> None:  # noqa: ANN401
    opened: list[Cursor] = []
    open_files = CatchUp.open

    async def watching(self: CatchUp, cursor: Cursor, *, needs_keys: bool) -> BatchReader:
        opened.append(cursor)
        return await open_files(self, cursor, needs_keys=needs_keys)

    monkeypatch.setattr(CatchUp, "open", watching)
    pad = "0x" + "0" * 4000
    written = [(number, 0, event(number, cloid=pad).decode()) for number in range(200, 2_200)]
    with trio.fail_after(40):
        async with (
            running(path.parents[3], ring_bytes=2**20) as port,  # so small that the lazy client needs the files
            connected(port) as quick,
            lazily_connected(port) as lazy,
        ):
            await lazy.subscribe(type="orders")
            await quick.subscribe(type="orders")
            await lazy.hear("live")
            await quick.hear("live")
            got = []
            for start in range(200, 2_200, 100):
                append(path, b"".join(line(number, [event(number, cloid=pad)]) for number in range(start, start + 100)))
                got += await quick.collect(100)
            assert got == written
            opened.clear()
            assert await lazy.collect(len(written)) == written
            assert len(opened) > 0
            await lazy.hear("live")
            append(path, line(3_000, [event(1)]))
            assert await lazy.collect(1) == await quick.collect(1) == [(3_000, 0, event(1).decode())]


async def test_equal_filters_share_their_bytes(path: Path) -> None:
    with trio.fail_after(20):
        async with running(path.parents[3]) as port, connected(port) as first, connected(port) as second:
            await first.subscribe(type="orders", id="x")
            await second.subscribe(type="orders", id="x")
            await first.hear("live")
            await second.hear("live")
            append(path, line(200, [event(1)]))
            one, two = await first.hear("orders"), await second.hear("orders")
            assert one == two


async def test_one_connection_may_hold_several_subscriptions_each_with_its_own_seq(path: Path) -> None:
    async with feed(path) as client:
        for start_point in ({"id": "a", "from": "earliest"}, {"id": "b", "coins": ["ETH"]}, {"id": "c"}):
            await client.say({"method": "subscribe", "subscription": {"type": "orders", **start_point}})
        seen: dict[str, list[int]] = {"a": [], "b": [], "c": []}
        live = 0
        while live < 3:
            message = await client.hear("orders", "live", "cursor")
            seen[message["data"]["id"]].append(message["data"]["seq"])
            live += message["channel"] == "live"
        append(path, line(200, [event(1, coin="ETH")]))
        reached: set[str] = set()
        while reached != {"a", "b", "c"}:
            message = await client.hear()
            seen[message["data"]["id"]].append(message["data"]["seq"])
            if message["channel"] == "orders" and message["data"]["blockNumber"] == 200:
                reached.add(message["data"]["id"])
    assert seen == {name: list(range(1, len(seqs) + 1)) for name, seqs in seen.items()}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_many_reconnections_leave_no_thread_file_or_task_behind(path: Path) -> None:
    with trio.fail_after(30):
        async with running(path.parents[3]) as port:
            async with connected(port) as client:
                await client.subscribe(type="orders", **{"from": "earliest"})
            before = open_files()
            for _ in range(50):
                async with connected(port) as client:
                    await client.subscribe(type="orders", **{"from": "earliest"})
            await until(lambda: open_files() <= before + 1)
    assert trio.testing.active_thread_count() == 0


@given(parts=st.lists(st.binary(max_size=5), max_size=5), sent=st.integers(0, 25))
def test_what_a_socket_has_not_taken_is_kept_in_parts(parts: list[bytes], sent: int) -> None:
    assert b"".join(_behind(parts, sent)) == b"".join(parts)[sent:]
    assert all(_behind(parts, sent))
