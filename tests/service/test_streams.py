"""Several streams in one service: what clients subscribe to, when a stream is there, and how each goes on."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio_websocket
from loguru import logger

from fake_socket import FakeSocket
from hyperwatch.config import Address, Config
from hyperwatch.feed.catch_up import CatchUp
from hyperwatch.feed.channels.events import BookDiffs, Fills
from hyperwatch.feed.channels.trades import TradePairing, Trades, UserFills
from hyperwatch.feed.filters.coins_users import CoinUserFilter
from hyperwatch.feed.hub import Hub
from hyperwatch.feed.registry import StreamSource
from hyperwatch.feed.requests.answers import ProtocolError, Subscribe
from hyperwatch.feed.requests.parse import parse
from hyperwatch.feed.subscription import Subscription
from hyperwatch.ingest.counters import Counters
from hyperwatch.ingest.ring import Ring
from hyperwatch.ingest.yielding import Yielder
from hyperwatch.ledger import ledger
from hyperwatch.ledger import state_dir as state_module
from hyperwatch.ledger.ledger import Ledger
from hyperwatch.ledger.state_dir import StateDir
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.log.seek import last_block as tail_module
from hyperwatch.log.seek import resume as start_module
from hyperwatch.log.seek.resume import at_head, resume
from hyperwatch.log.tree import PlainFile, Tree
from hyperwatch.monitor import log_report, stalls
from hyperwatch.node.streams import DIFFS, FILLS, ORDERS, STREAMS, Layout, Stream
from hyperwatch.runtime.rate_limit import RateLimiter
from hyperwatch.server.connection import Connection
from hyperwatch.server.framing import FrameCache
from hyperwatch.server.server import Server
from hyperwatch.service import stream_set
from hyperwatch.service.assembly import ServedStream
from hyperwatch.service.stream_set import StreamSet
from hyperwatch.simulate.claim import Claim
from hyperwatch.simulate.hour_files import simulate
from hyperwatch.simulate.model import COINS, Faults
from support import (
    TIME_MS,
    USER,
    Client,
    append,
    connected,
    diff,
    event,
    fill,
    hour_file,
    line,
    lines_of,
    running,
    until,
)

HOUR = "20260505/9"
OTHER = "0x" + "cd" * 20
OURS = [("fills", FILLS, fill), ("bookDiffs", DIFFS, diff)]
PAIRS = [(FILLS, Layout.PLAIN, Layout.STREAMING), (FILLS, Layout.STREAMING, Layout.PLAIN),
         (FILLS, Layout.BY_BLOCK, Layout.PLAIN), (FILLS, Layout.PLAIN, Layout.BY_BLOCK),
         (FILLS, Layout.STREAMING, Layout.BY_BLOCK), (DIFFS, Layout.BY_BLOCK, Layout.STREAMING)]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node's data directory with an order in it, which the service waits for."""
    append(hour_file(tmp_path, HOUR), line(7, [event(1)]))
    return tmp_path


def file_of(root: Path, stream: Stream, layout: Layout = Layout.STREAMING, name: str = HOUR) -> Path:
    return hour_file(root, name, layout, stream)


@asynccontextmanager
async def feed(root: Path, **settings: Any) -> AsyncIterator[Client]:  # noqa: ANN401  Config checks them
    with trio.fail_after(20):
        async with running(root, **settings) as port, connected(port) as client:
            yield client


# What clients say.


def ask(**subscription: object) -> str:
    return json.dumps({"method": "subscribe", "subscription": subscription})


@pytest.mark.parametrize(("kind", "channel"), [("fills", Fills), ("bookDiffs", BookDiffs)])
def test_fills_and_book_diffs_are_asked_for_as_orders_are(kind: str, channel: type[Fills | BookDiffs]) -> None:
    cursor = Cursor("node_fills")
    request = parse(ask(type=kind, coins=["BTC", "xyz:*"], users=[USER.upper().replace("X", "x")], id="a",
                        **{"from": cursor.encode()}))  # fmt: skip

    assert isinstance(request, Subscribe)
    assert request.channel == channel(CoinUserFilter(frozenset(["BTC"]), ("xyz:",), frozenset([USER])))
    assert (request.id, request.start) == ("a", cursor)
    assert len({Fills(CoinUserFilter()), BookDiffs(CoinUserFilter())}) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ask(type="fills", foo=["open"]), "unknown key 'foo'; the keys are type, coins, users, id, from"),
        (ask(type="bookDiffs", coin="BTC"), "unknown key 'coin', did you mean 'coins'?"),
        (ask(type="fills", coins=[]), "coins is empty, which no event matches"),
        (ask(type="bookDiffs", users=["0x12"]), "'0x12' is no address"),
        (ask(type="fills", id=""), "id has 0 characters"),
        (ask(type="fills", **{"from": "?"}), "the cursor is damaged"),
        (ask(type="trades"), "missing required field `coin`"),
        (ask(type="trades", coin=5), "Expected `str`, got `int`"),
        (ask(type="userFills", user="me"), "'me' is no address"),
    ],
)
def test_a_bad_subscription_to_the_other_streams_is_an_error_that_says_what_to_do(text: str, says: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(text)
    assert says in json.loads(caught.value.message())["data"]


def test_official_types_tolerate_unknown_keys() -> None:
    trades = parse(ask(type="trades", coin="BTC", id=5))
    fills = parse(ask(type="userFills", user=USER, aggregateByTime=False))

    assert isinstance(trades, Subscribe)
    assert isinstance(fills, Subscribe)
    assert (trades.channel, fills.channel) == (Trades("BTC"), UserFills(USER))


# In the service.


@pytest.mark.parametrize(("kind", "stream", "made"), OURS)
async def test_a_subscription_to_another_stream_is_as_one_to_orders(
    root: Path,
    kind: str,
    stream: Stream,
    made: Callable[..., bytes],
) -> None:
    path = file_of(root, stream)
    old, new = made(1), [made(2), made(3, coin="ETH"), made(4, user=OTHER)]
    append(path, line(7, [old]))
    async with feed(root) as client:
        answer = await client.subscribe(type=kind, **{"from": "earliest"})
        assert answer["data"]["subscription"] == {"type": kind, "from": "earliest", "id": "1"}
        assert answer["warnings"] == []
        assert Cursor.decode(answer["cursor"]).directory == stream.directory(Layout.STREAMING)
        assert await client.collect(1, kind) == [(7, 0, old.decode())]
        assert (await client.hear())["data"]["seq"] == 2  # `live`

        for start_point in ({"id": "some", "coins": ["ETH"]}, {"id": "one", "users": [OTHER]}):
            await client.say({"method": "subscribe", "subscription": {"type": kind, **start_point}})
        for _ in range(2):
            await client.hear("live")
        append(path, line(8, new[:1]) + line(8, new[1:2]) + line(8, new[2:]))
        heard: dict[str, tuple[int, int, int, int]] = {}
        while len(heard) < 3:
            data = (await client.hear(kind))["data"]
            heard[data["id"]] = (data["blockNumber"], data["blockTime"], data["index"], len(data["events"]))
    assert heard == {"1": (8, TIME_MS, 0, 3), "some": (8, TIME_MS, 1, 1), "one": (8, TIME_MS, 2, 1)}


async def test_a_coin_that_the_stream_has_not_seen_lately_is_a_warning(root: Path) -> None:
    path = file_of(root, FILLS)
    append(path, b"")
    async with feed(root) as client:
        await client.subscribe(type="userFills", user=USER)
        append(path, line(7, [fill(1)]))
        while not (await client.hear("userFills"))["data"]["fills"]:
            pass
        answer = await client.subscribe(type="fills", coins=["ETH", "btc"])
    assert answer["warnings"] == [
        "no fill of 'ETH' was seen lately",
        "no fill of 'btc' was seen lately; did you mean 'BTC'? Case matters",
    ]


async def test_trades_of_a_coin_that_was_not_seen_lately_are_warned_of_beside_the_official_answer(root: Path) -> None:
    path = file_of(root, FILLS)
    append(path, b"")
    async with feed(root) as client:
        await client.subscribe(type="userFills", user=USER)
        append(path, line(7, [fill(1)]))
        while not (await client.hear("userFills"))["data"]["fills"]:
            pass
        known = await client.subscribe(type="trades", coin="BTC")
        wrong = await client.subscribe(type="trades", coin="btc")
    assert known == {
        "channel": "subscriptionResponse", "data": {"method": "subscribe", "subscription": {"type": "trades", "coin": "BTC"}},
    }  # fmt: skip
    assert wrong["data"] == {"method": "subscribe", "subscription": {"type": "trades", "coin": "btc"}}
    assert wrong["warnings"] == ["no fill of 'btc' was seen lately; did you mean 'BTC'? Case matters"]
    assert wrong.keys() == {"channel", "data", "warnings"}


async def test_one_connection_may_hold_several_streams_each_with_its_own_cursors(root: Path) -> None:
    append(file_of(root, FILLS), line(7, [fill(1)]))
    async with feed(root) as client:
        for kind in ("orders", "fills"):
            await client.subscribe(type=kind, id=kind)
        told: dict[str, str] = {}
        while len(told) < 2:
            data = (await client.hear("cursor"))["data"]
            told[data["id"]] = Cursor.decode(data["cursor"]).directory
        wrong = await client.subscribe(type="fills", id="x", **{"from": Cursor("node_order_statuses").encode()})
    assert told == {"orders": "node_order_statuses_streaming", "fills": "node_fills_streaming"}
    assert (wrong["code"], wrong["id"]) == ("bad-cursor", "x")


@pytest.mark.parametrize(
    ("subscription", "flag"),
    [
        ({"type": "fills", "id": "x"}, "--write-fills"),
        ({"type": "bookDiffs"}, "--write-raw-book-diffs"),
        ({"type": "trades", "coin": "BTC"}, "--write-fills"),
        ({"type": "userFills", "user": USER}, "--write-fills"),
    ],
)
async def test_a_stream_that_the_node_does_not_write_is_an_error_that_names_its_flag(
    root: Path, subscription: dict[str, Any], flag: str
) -> None:
    async with feed(root) as client:
        answer = await client.subscribe(**subscription)
    assert (answer["code"], answer.get("id")) == ("not-written", subscription.get("id"))
    assert f"a node writes it with {flag}" in answer["data"]


async def test_a_stream_is_served_as_soon_as_the_node_writes_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_set, "LOOK_S", 0.01)
    async with feed(root) as client:
        assert (await client.subscribe(type="fills"))["code"] == "not-written"
        append(file_of(root, FILLS), line(7, [fill(1)]))
        while "code" in (answer := await client.subscribe(type="fills", **{"from": "earliest"})):
            assert answer["code"] == "not-written"
        assert await client.collect(1, "fills") == [(7, 0, fill(1).decode())]
        append(file_of(root, FILLS), line(8, [fill(2)]))
        assert await client.collect(1, "fills") == [(8, 0, fill(2).decode())]


async def test_a_chosen_layout_holds_for_every_stream(root: Path) -> None:
    append(file_of(root, FILLS, Layout.STREAMING), line(7, [fill(1)]))
    append(file_of(root, DIFFS, Layout.PLAIN), diff(1) + b"\n")
    async with feed(root, layout=Layout.STREAMING) as client:
        assert (await client.subscribe(type="fills"))["channel"] == "subscriptionResponse"
        assert (await client.subscribe(type="bookDiffs"))["code"] == "not-written"


async def test_a_stream_that_cannot_be_read_is_named_once_and_stops_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_set, "LOOK_S", 0.01)
    path = file_of(root, FILLS)
    os.mkfifo(path)
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="ERROR")
    async with feed(root) as client:
        assert (await client.subscribe(type="fills"))["code"] == "not-written"
        await trio.sleep(0.05)
        path.unlink()
        append(path, line(7, [fill(1)]))
        while "code" in await client.subscribe(type="fills"):
            pass
    logger.remove(sink)
    assert len(said) == 1
    assert said[0].startswith("node_fills waits: ")


def sent(messages: list[dict[str, Any]], channel: str) -> list[Any]:
    """The elements of all messages of an official channel."""
    return [each for message in messages if message["channel"] == channel for each in message["data"]]


async def test_trades_become_complete_across_reads_and_go_to_those_who_want_their_coin(root: Path) -> None:
    path = file_of(root, FILLS)
    append(path, b"")
    heard: list[dict[str, Any]] = []
    async with feed(root) as client:
        for coin in ("BTC", "ETH"):
            answer = await client.subscribe(type="trades", coin=coin)
            assert answer == {
                "channel": "subscriptionResponse",
                "data": {"method": "subscribe", "subscription": {"type": "trades", "coin": coin}},
            }
        await client.subscribe(type="fills")
        raws = [
            fill(1, "B", crossed=True), fill(2, "A", coin="ETH"), fill(1, "A", user=OTHER),
            fill(3, "A", coin="XRP"), fill(2, "B", coin="ETH", user=OTHER, crossed=True), fill(3, "B", coin="XRP"),
        ]  # fmt: skip
        for raw in raws:
            append(path, line(7, [raw]))
            while not heard or heard[-1]["channel"] != "fills":
                heard.append(await client.hear())
            heard.append({"channel": "next"})
    trades = [each for message in heard if message["channel"] == "trades" for each in message["data"]]
    assert [(trade["coin"], trade["side"], trade["users"]) for trade in trades] == [
        ("BTC", "B", [USER, OTHER]),
        ("ETH", "B", [OTHER, USER]),
    ]


async def test_user_fills_are_a_snapshot_and_then_what_comes_and_nothing_of_ours(root: Path) -> None:
    path = file_of(root, FILLS)
    append(path, line(7, [fill(1)]))
    async with feed(root) as client:
        await client.say({"method": "subscribe", "subscription": {"type": "userFills", "user": OTHER, "extra": 1}})
        answer, snapshot = await client.hear(), await client.hear()
        append(path, line(8, [fill(2), fill(3, "A", user=OTHER), fill(4, user=OTHER)]))
        update = await client.hear()
        with trio.move_on_after(1.2) as silence:  # longer than the second after which `cursor` is told
            await client.hear()
        again = await client.subscribe(type="userFills", user=OTHER)
    assert answer["data"]["subscription"] == {"type": "userFills", "user": OTHER, "extra": 1}
    assert snapshot == {"channel": "userFills", "data": {"isSnapshot": True, "user": OTHER, "fills": []}}
    assert update["channel"] == "userFills"
    assert (update["data"]["user"], update["data"].get("isSnapshot")) == (OTHER, None)
    assert [each["tid"] for each in update["data"]["fills"]] == [3, 4]
    assert silence.cancelled_caught
    assert again["code"] == "already-subscribed"


def fill_batches(root: Path, rows: list[list[bytes]]) -> tuple[Tree, list[Any]]:
    """A log of fills, and a batch of each list of lines, its trades complete."""
    path = file_of(root, FILLS)
    append(path, b"")
    log = Tree(root, FILLS, Layout.STREAMING)
    reader, pairing = BatchReader(log, Cursor(FILLS.directory(Layout.STREAMING))), TradePairing(Counters())
    made = []
    for row in rows:
        append(path, b"".join(row))
        batch = reader.next(None, lambda: None)
        assert batch is not None
        made.append(pairing.complete(batch))
    reader.close()
    return log, made


@pytest.mark.parametrize("room", range(7))
@pytest.mark.parametrize(("ring_bytes", "pad"), [(1, 0), (3_000, 0), (10**9, 0), (1, 90_000)])
async def test_a_client_that_falls_behind_between_two_sides_gets_every_trade_once(
    tmp_path: Path, room: int, ring_bytes: int, pad: int
) -> None:
    raws = [  # A A B B A A B B; of the padded ones a reader of the past reads two at once
        fill(number // 4 * 2 + number % 2, "AB"[number // 2 % 2], cloid="0" * pad) for number in range(24)
    ]
    log, made = fill_batches(tmp_path, [[line(7 + number // 8, [raw])] for number, raw in enumerate(raws)])
    hub = Hub(Ring(made[0].before, ring_bytes), FrameCache)
    socket = FakeSocket(room=room)
    connection = Connection(socket, {FILLS.name: StreamSource(hub, CatchUp(log, hub.ring))})  # type: ignore[arg-type]  # as far as it is used
    subscription = Subscription(Trades("BTC"), "trades BTC", connection, hub.ring.end, 0)
    connection._subscriptions["trades BTC"] = subscription
    hub.join(subscription)
    for batch in made:
        hub.ring.append(batch)
        await hub.publish(batch)
    socket.room = 10**9
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection._serve_behind)
        await until(lambda: subscription.live)
        nursery.cancel_scope.cancel()

    assert [trade["tid"] for trade in sent(socket.heard, "trades")] == list(range(12))


@pytest.mark.parametrize("layout", list(Layout))
async def test_of_a_run_with_rollover_and_faults_every_fill_and_diff_comes_once_and_every_trade(
    tmp_path: Path, layout: Layout
) -> None:
    with Claim(tmp_path):
        for stream in STREAMS.values():
            file_of(tmp_path, stream, layout, "20260505/8")
    undated = layout is Layout.PLAIN  # of a restart's repetitions plain diffs tell nothing, so there is none
    faults = Faults(torn=True, late_file=True, late_lines=True, restart_every=0 if undated else 25)
    start_ns = 1_778_003_998_000_000_000  # two seconds before an hour's end
    write = partial(simulate, tmp_path, layouts=(layout,), rate=0, blocks=60, start_ns=start_ns, faults=faults)
    coins = sorted({coin.name for coin in COINS})
    fills: list[str] = []
    diffs: list[str] = []
    trades: list[int] = []

    with trio.fail_after(40):
        async with running(tmp_path, layout=layout) as port, connected(port) as client:
            await client.subscribe(type="fills")
            await client.subscribe(type="bookDiffs")
            for coin in coins:
                await client.subscribe(type="trades", coin=coin)
            await trio.to_thread.run_sync(write)
            all_fills, _ = read_on(Tree(tmp_path, FILLS, layout), Cursor(FILLS.directory(layout)))
            all_diffs, _ = read_on(Tree(tmp_path, DIFFS, layout), Cursor(DIFFS.directory(layout)))
            while len(fills) < len(all_fills) or len(diffs) < len(all_diffs) or 2 * len(trades) < len(all_fills):
                message = await client.hear("fills", "bookDiffs", "trades")
                if message["channel"] == "trades":
                    trades += [trade["tid"] for trade in message["data"]]
                else:
                    events = [json.dumps(each, separators=(",", ":")) for each in message["data"]["events"]]
                    (fills if message["channel"] == "fills" else diffs).extend(events)

    assert len(all_fills) > 100
    assert Counter(fills) == Counter(raw.decode() for raw in all_fills)  # late lines come when they appear
    assert Counter(diffs) == Counter(raw.decode() for raw in all_diffs)
    assert Counter(trades) == Counter({tid: number // 2 for tid, number in tids(all_fills).items()})


def tids(fills: list[bytes]) -> Counter[int]:
    return Counter(json.loads(raw)[1]["tid"] for raw in fills)


# Cursors.


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize(("kind", "stream", "made"), OURS)
async def test_every_cursor_of_every_message_resumes_exactly_behind_it(
    root: Path,
    kind: str,
    stream: Stream,
    made: Callable[..., bytes],
    layout: Layout,
) -> None:
    blocks = [(number, [made(10 * number + each) for each in range(3)]) for number in range(100, 104)]
    append(file_of(root, stream, layout), lines_of(layout, blocks))
    raws = [raw.decode() for _, events in blocks for raw in events]
    async with feed(root) as client:
        await client.subscribe(type=kind, id="all", **{"from": "earliest"})
        got: list[str] = []
        cursors: dict[str, int] = {}
        while len(got) < len(raws):
            data = (await client.hear(kind))["data"]
            got += [json.dumps(each, separators=(",", ":")) for each in data["events"]]
            cursors[data["cursor"]] = len(got)
        assert got == raws
        cursors[(await client.hear("live"))["data"]["cursor"]] = len(got)
        for number, (cursor, taken) in enumerate(cursors.items()):
            await client.subscribe(type=kind, id=str(number), **{"from": cursor})
            rest: list[str] = []
            while (message := await client.hear(kind, "live"))["channel"] == kind:
                assert message["data"]["id"] == str(number)
                rest += [json.dumps(each, separators=(",", ":")) for each in message["data"]["events"]]
            assert rest == raws[taken:]


def timed(stream: Stream, layout: Layout) -> bytes:
    """Blocks of three events, a second apart, each with its own time."""
    data = b""
    for number in range(10, 20):
        raws = [
            (fill(10 * number + each, time=TIME_MS - 24 + 1000 * (number - 13)) if stream is FILLS else diff(number))
            for each in range(3)
        ]
        data += lines_of(layout, [(number, raws)]).replace(b"17:39:13.024084407", b"17:39:%d.000084407" % number)
    return data


def read_on(log: Tree, cursor: Cursor) -> tuple[list[bytes], BatchReader]:
    reader = BatchReader(log, cursor)
    events: list[bytes] = []
    while batch := reader.next(None, lambda: None):
        events += [bytes(raw) for entry in batch.entries for raw in entry.slice.events]
    reader.close()
    return events, reader


@pytest.mark.parametrize(("stream", "one", "other"), PAIRS)
def test_a_cursor_of_one_layout_goes_on_in_another(tmp_path: Path, stream: Stream, one: Layout, other: Layout) -> None:
    for layout in (one, other):
        append(file_of(tmp_path, stream, layout), timed(stream, layout))
    raws, _ = read_on(Tree(tmp_path, stream, one), Cursor(stream.directory(one)))
    half = BatchReader(Tree(tmp_path, stream, one), Cursor(stream.directory(one)))
    batch = half.next(None, lambda: None)
    half.close()
    assert batch is not None
    assert len(raws) == 30

    taken = 0
    for entry in batch.entries:
        taken += len(entry.slice.events)
        rest, reader = read_on(Tree(tmp_path, stream, other), entry.after)
        assert rest == raws[taken:]
        assert reader.gap is None


# Plain book diffs: neither block nor time.


async def test_plain_book_diffs_come_as_they_were_read_and_nothing_but_a_cursor_names_them(root: Path) -> None:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    path = file_of(root, DIFFS, Layout.PLAIN)
    append(path, b"".join(diff(number) + b"\n" for number in range(5)))
    async with feed(root) as client:
        await client.subscribe(type="bookDiffs", **{"from": "earliest"})
        data = (await client.hear("bookDiffs"))["data"]
        told = (await client.hear("live"))["data"]
    logger.remove(sink)
    assert [each["oid"] for each in data["events"]] == [0, 1, 2, 3, 4]
    assert (data["blockNumber"], data["blockTime"], data["index"]) == (None, None, None)
    assert (told["blockNumber"], told["blockTime"], told["writeTime"]) == (None, None, None)
    assert sum("carry neither time nor block" in line for line in said) == 1


def test_a_head_on_plain_book_diffs_begins_without_a_look_through_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (start_module, tail_module):
        monkeypatch.setattr(module, "_WINDOW_BYTES", 200)
    path = file_of(tmp_path, DIFFS, Layout.PLAIN)
    append(path, b"".join(diff(number) + b"\n" for number in range(1_000)))
    read = []

    def watching(self: PlainFile, offset: int, count: int) -> bytes:
        read.append(count)
        return pread(self, offset, count)

    pread = PlainFile.read
    monkeypatch.setattr(PlainFile, "read", watching)
    cursor = at_head(Tree(tmp_path, DIFFS, Layout.PLAIN))
    assert (cursor.places[0].offset, cursor.key, cursor.count) == (path.stat().st_size, None, 0)
    assert sum(read) < 6_000


@pytest.mark.parametrize("start_point", [Layout.PLAIN, Layout.BY_BLOCK])
def test_what_is_gone_of_undated_files_is_a_gap_and_reading_goes_on_at_the_hour(
    tmp_path: Path, start_point: Layout
) -> None:
    for hour in (8, 10, 11):
        append(file_of(tmp_path, DIFFS, Layout.PLAIN, f"20260505/{hour}"), diff(hour) + b"\n")
    log = Tree(tmp_path, DIFFS, Layout.PLAIN)
    gone = Cursor(
        DIFFS.directory(start_point), (FilePosition(HOUR, 50, 0, "abc"),), None if start_point is Layout.PLAIN else 7
    )
    rest, reader = read_on(log, gone)
    assert rest == [diff(10), diff(11)]

    start = resume(log, gone)
    assert start.gap is not None
    assert (start.gap.reason, start.gap.before, start.gap.after) == ("place-gone", gone, start.cursor)
    assert reader.start == start.cursor

    newest = attrs.evolve(gone, places=(FilePosition("20260506/1", 50, 0, "abc"),))
    assert read_on(log, newest)[0] == [diff(11)]
    nameless = attrs.evolve(gone, places=(FilePosition("../x", 50, 0, "abc"),))
    assert read_on(log, nameless)[0] == [diff(8), diff(10), diff(11)]


def test_a_cursor_of_undated_files_outlives_the_pruning_of_the_older(tmp_path: Path) -> None:
    append(file_of(tmp_path, DIFFS, Layout.PLAIN, "20260505/10"), diff(1) + b"\n" + diff(2) + b"\n")
    log = Tree(tmp_path, DIFFS, Layout.PLAIN)
    two = (FilePosition("20260505/9", 50), FilePosition("20260505/10", len(diff(1)) + 1))
    start = resume(log, Cursor(DIFFS.directory(Layout.PLAIN), two))
    assert (start.cursor.places, start.gap) == (two[1:], None)


# What is kept, and how it ends.


async def test_every_stream_has_its_own_place_and_its_lines_their_whole_path_in_the_state(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_SAVE_S", 0.01)
    path = file_of(root, FILLS)
    append(path, line(7, [fill(1)]))
    async with feed(root, state_dir=root / "state") as client:
        await client.subscribe(type="fills")
        await client.hear("live")
        append(path, b"nonsense\n" + line(8, [fill(2)]))
        gap = await client.hear("gap")
        await client.hear("fills")
        saved = root / "state/head.json"
        await until(lambda: saved.exists() and b'"node_fills":' in saved.read_bytes())  # not only at the end
    assert gap["data"]["stream"] == "node_fills"
    with StateDir(root / "state") as state:
        assert {name: cursor.places[0].offset for name, cursor in state.heads.items()} == {
            "node_order_statuses": (root / "node_order_statuses_streaming/hourly" / HOUR).stat().st_size,
            "node_fills": path.stat().st_size,
        }
        assert [(gap.stream, gap.reason) for _, gap in state.gaps.read()] == [("node_fills", "unreadable")]
        assert [unreadable.file for _, unreadable in state.quarantine.read()] == [f"node_fills_streaming/hourly/{HOUR}"]


async def test_the_log_counts_each_stream_with_its_trades_and_the_fills_that_are_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_report, "REPORT_S", 0.05)
    path, said = file_of(root, FILLS), []
    append(path, b"")
    sink = logger.add(lambda message: said.append(message.record["message"].split("; ")), level="INFO")
    late = line(900, [fill(5)]).replace(b"17:39:13.024084407", b"17:39:15.024084407")
    async with feed(root) as client:
        await client.subscribe(type="fills")
        append(path, line(7, [fill(1), fill(2), fill(2, "A")]) + late)
        await client.collect(4, "fills")
        await until(lambda: any("1 trades, 1 fills without another side" in parts for parts in said))
    logger.remove(sink)
    counted = [parts for parts in said if "1 trades, 1 fills without another side" in parts]
    assert "2 lines, 4 fills, 0 failures, 1 batches" in counted[0][0]
    assert any("0 lines, 0 orders" in parts[0] for parts in said)


async def _write_on(path: Path) -> None:
    """What a node does: the line that was there when the service looked for the first time tells it nothing."""
    for block in itertools.count(9):
        await trio.sleep(0.02)
        append(path, line(block, [fill(block)]))


async def test_a_stream_beside_that_changes_its_layout_ends_all_with_1012_and_goes_on_by_block(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "_LOOK_S", 0.01)
    monkeypatch.setattr(stalls, "_SETTLED_S", 0.1)
    old, new = file_of(root, FILLS, Layout.STREAMING), file_of(root, FILLS, Layout.BY_BLOCK)
    append(old, line(7, [fill(1), fill(2)]))
    with trio.fail_after(20):
        async with running(root, state_dir=root / "state") as port:
            async with connected(port) as client:
                await client.subscribe(type="fills", **{"from": "earliest"})
                data = (await client.hear("fills"))["data"]
                append(new, line(7, [fill(1), fill(2)]) + line(8, [fill(3)]))
                os.utime(old, (1, 1))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_write_on, new)
                    with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                        await client.hear("none of these")
                    nursery.cancel_scope.cancel()
                assert closed.value.reason is not None
                assert closed.value.reason.code == 1012
            async with connected(port) as client:
                while (answer := await client.subscribe(type="fills", **{"from": data["cursor"]})).get("code"):
                    pass
                assert Cursor.decode(answer["cursor"]).directory == "node_fills_by_block"
                assert await client.collect(1, "fills") == [(8, 0, fill(3).decode())]
                await client.subscribe(type="orders")
                await client.hear("live")
    assert list(state_module.gaps(root / "state").read()) == []  # its head went on where it had been


async def test_the_rings_of_the_streams_beside_are_a_quarter_of_the_first_each(root: Path) -> None:
    for stream, raw in ((FILLS, fill(1)), (DIFFS, diff(1))):
        append(file_of(root, stream), line(7, [raw]))
    config = Config(data_dir=root, listen=Address("127.0.0.1", 0), ring_bytes=8 * 2**20, workers=4)
    main = ServedStream.of(
        Tree(root, ORDERS, Layout.STREAMING), Cursor(ORDERS.directory(Layout.STREAMING)), ring_bytes=config.ring_bytes,
        workers=4, deadline_s=1, changes=None, yielder=Yielder(lambda: 0), ledger=Ledger(None), rate_limiter=RateLimiter(),
    )  # fmt: skip
    feed = await StreamSet(main, Server({}), {}, RateLimiter(), Yielder(lambda: 0)).with_others(
        config, Ledger(None), {}
    )
    sizes = [(pipeline.ring.max_bytes, pipeline.head.workers.limiter.total_tokens) for pipeline in feed.pipelines]
    assert sizes == [(8 * 2**20, 4), (2 * 2**20, 1), (2 * 2**20, 1)]


def test_at_a_signal_every_stream_ends_in_order_with_its_place_kept(root: Path) -> None:
    append(file_of(root, FILLS), line(7, [fill(1)]))
    command = [sys.executable, "-m", "hyperwatch", "run", "--data-dir", str(root), "--listen", "127.0.0.1:0"]
    command += ["--metrics-listen="]
    with subprocess.Popen([*command, "--state-dir", str(root / "state")], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "the feed is at" not in next(process.stderr):
            pass
        process.terminate()
        said = list(process.stderr)
        assert process.wait(10) == 0
    assert len(said) == 2
    with StateDir(root / "state") as state:
        assert set(state.heads) == {"node_order_statuses", "node_fills"}
