"""Messages compressed once for all: what they hold, and real clients that read them."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from hyperwatch.feed.budget import Allowance, Budget
from hyperwatch.feed.channels.events import Orders, gap, position_message
from hyperwatch.feed.filters.orders import OrderFilter
from hyperwatch.feed.hub import Hub
from hyperwatch.feed.messages import ENCODINGS, Encoding, Message, compressed
from hyperwatch.feed.requests.answers import Subscribe, Unsubscribe
from hyperwatch.feed.requests.parse import parse
from hyperwatch.feed.subscription import Subscription
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Batch
from hyperwatch.log.gaps import PLACE_GONE, Gap
from hyperwatch.log.packed_file import zstd
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Tree
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.server.framing import FrameCache
from support import USER, append, connected, event, hour_file, line, needs_samples, running, sample

DIRECTORY = ORDERS.directory(Layout.STREAMING)


def unpacked(encoding: Encoding, body: bytes) -> bytes:
    return zstd.decompress(body) if encoding == "zstd" else gzip.decompress(body)


def split(frame: bytes, encoding: Encoding) -> tuple[dict[str, Any], dict[str, Any]]:
    """A binary message as a client takes it apart: (the line, the rest of the data)."""
    head, _, body = frame.partition(b"\n")
    return json.loads(head), json.loads(unpacked(encoding, body))


def read(root: Path, name: str, data: bytes, layout: Layout = Layout.STREAMING) -> list[Batch]:
    append(hour_file(root, name, layout), data)
    reader = BatchReader(Tree(root, ORDERS, layout), Cursor(ORDERS.directory(layout)))
    batches = []
    while batch := reader.next(None, lambda: None):
        batches.append(batch)
    reader.close()
    return batches


EVENTS = st.builds(
    lambda number, coin, status, cloid: event(number, coin=coin, status=status, cloid=cloid),
    st.integers(0, 2**53),
    st.sampled_from(["BTC", "ETH", "xyz:A", 'a"\\b', "ü€😀"]),
    st.sampled_from(["open", "canceled", "badAloPxRejected", "newThing"]),
    st.text(max_size=40),
)


@settings(deadline=None)  # it writes files
@given(st.lists(st.tuples(st.integers(1, 3), EVENTS), min_size=1, max_size=20), st.sampled_from([None, ("BTC",)]))
def test_what_is_decompressed_is_what_others_hear(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[int, bytes]],
    coins: tuple[str, ...] | None,
) -> None:
    data = b"".join(line(block, [each]) for block, each in sorted(events, key=lambda pair: pair[0])) + b"damage\n"
    wanted = OrderFilter.of(coins)
    for batch in read(tmp_path_factory.mktemp("packed"), "20260505/9", data):
        for entry in batch.entries:
            plain = Orders(wanted).messages(entry)
            for encoding in ENCODINGS:
                both = zip(plain, Orders(wanted, compress=encoding).messages(entry), strict=True)
                for said, short in both:
                    assert short.channel == said.channel
                    assert b'{"id":"x",' + unpacked(encoding, short.tail)[1:] + b"}" == b'{"id":"x",' + said.tail


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_channels_without_events_are_compressed_alike(encoding: Encoding) -> None:
    for said in (
        position_message("live", Cursor(DIRECTORY), None),
        gap(Gap(ORDERS.name, PLACE_GONE, Cursor(DIRECTORY), Cursor(DIRECTORY))),
    ):
        short = compressed(said, encoding)

        assert short.channel == said.channel
        assert unpacked(encoding, short.tail) == b"{" + said.tail[:-1]


def test_a_zstd_body_names_its_length_and_a_gzip_body_no_date() -> None:
    message = Message(b"orders", b'"cursor":"x"}}')

    assert zstd.get_frame_info(compressed(message, "zstd").tail).decompressed_size == len(b'{"cursor":"x"}')
    assert compressed(message, "gzip").tail[4:8] == bytes(4)
    assert compressed(message, None) is message


@attrs.define(eq=False)
class FakeOutlet:
    """A client that keeps what it was offered."""

    heard: list[Sequence[bytes]] = attrs.Factory(list)

    allowance: Allowance = attrs.Factory(lambda: Budget(math.inf).open("a fake", 0))

    def offer(self, parts: Sequence[bytes], size: int) -> bool:
        assert size == sum(map(len, parts))
        self.heard.append(parts)
        return True

    def wake(self) -> None:
        """Nobody sleeps here."""


async def test_equal_views_share_what_was_compressed_once(tmp_path: Path) -> None:
    (batch,) = read(tmp_path, "20260505/9", line(7, [event(1)]))
    hub = Hub(Ring(batch.before, 10**9), FrameCache)
    channels = [Orders(OrderFilter(), compress=each) for each in ("zstd", "zstd", "gzip")] + [Orders(OrderFilter())]
    outlets = [FakeOutlet() for _ in channels]
    for channel, outlet in zip(channels, outlets, strict=True):
        hub.join(Subscription(channel, f"id of {id(outlet)}", outlet, batch.before, 0))
    hub.ring.append(batch)
    await hub.publish(batch)
    (one,), (two,), (other,), (plain,) = (outlet.heard for outlet in outlets)

    assert one[2] is two[2]
    assert one[1] != two[1]
    assert one[2] != other[2]
    assert [heard[0][0] for heard in (one, two, other, plain)] == [0x82, 0x82, 0x82, 0x81]  # binary and text


def ask(method: str = "subscribe", **subscription: object) -> Any:  # noqa: ANN401  one of two
    return parse(json.dumps({"method": method, "subscription": {"type": "orders", **subscription}}))


def test_compression_is_part_of_what_makes_subscriptions_equal() -> None:
    start_point, end = ask(compress="zstd"), ask("unsubscribe", compress="zstd")

    assert isinstance(start_point, Subscribe)
    assert isinstance(end, Unsubscribe)
    assert start_point.channel == end.channel
    assert len({start_point.channel, ask(compress="gzip").channel, ask().channel}) == 3
    assert ask(compress=None).channel == ask().channel


def listen(port: int, encoding: Encoding, count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """A client of the library `websockets`: what it hears until it has heard of so many events and is live."""
    heard: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with connect(f"ws://127.0.0.1:{port}/ws", open_timeout=10) as socket:
        start_point = {"type": "orders", "id": "x", "compress": encoding, "from": "earliest"}
        socket.send(json.dumps({"method": "subscribe", "subscription": start_point}))
        answer = json.loads(socket.recv(timeout=10))
        assert answer["data"]["subscription"] == start_point
        while sum(len(data.get("events", ())) for _, data in heard) < count or "cursor" not in {
            said["channel"] for said, _ in heard
        }:
            message = socket.recv(timeout=10)
            assert isinstance(message, bytes)
            heard.append(split(message, encoding))
    return heard


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_a_plain_client_reads_it_with_what_its_language_has(tmp_path: Path, encoding: Encoding) -> None:
    path = hour_file(tmp_path, "20260505/9")
    big = "0x" + "0" * 3000  # the three sizes that a frame's header knows
    append(path, line(7, [event(1)]) + b"damage\n" + b"".join(line(8, [event(n, cloid=big)]) for n in range(80)))
    with trio.fail_after(30):
        async with running(tmp_path) as port:
            heard = await trio.to_thread.run_sync(listen, port, encoding, 81)

    assert [said["seq"] for said, _ in heard] == list(range(1, len(heard) + 1))
    assert {said["channel"] for said, _ in heard} == {"orders", "gap", "live", "cursor"}
    assert all(list(said) == ["channel", "id", "seq"] for said, _ in heard)
    assert all(said["id"] == "x" and next(iter(data)) == "cursor" for said, data in heard)
    events = [each["order"]["oid"] for said, data in heard if said["channel"] == "orders" for each in data["events"]]
    assert events == [1, *range(80)]


async def test_the_official_types_stay_text(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]))
    with trio.fail_after(20):
        async with running(tmp_path) as port, connected(port) as client:
            answer = await client.subscribe(type="orderUpdates", user=USER, compress="zstd")
            assert answer["data"]["subscription"]["compress"] == "zstd"
            append(path, line(8, [event(2)]))
            assert (await client.hear("orderUpdates"))["data"][0]["order"]["oid"] == 2


@needs_samples
@pytest.mark.parametrize(("encoding", "least"), [("zstd", 10), ("gzip", 8)])
def test_a_real_recording_takes_a_tenth_on_the_wire(tmp_path: Path, encoding: Encoding, least: int) -> None:
    layout = Layout.BY_BLOCK
    batches = read(tmp_path, "20260505/9", sample("node_order_statuses-by_block-btc51.jsonl.gz"), layout)
    said = compressed = 0
    for batch in batches:
        for entry in batch.entries:
            said += sum(len(message.tail) for message in Orders(OrderFilter()).messages(entry))
            compressed += sum(len(message.tail) for message in Orders(OrderFilter(), compress=encoding).messages(entry))

    assert said > 10**7
    assert said > least * compressed
