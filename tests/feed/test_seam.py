"""Where the files end and the ring goes on, for who begins in what a restarted node wrote again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trio

from hyperwatch.feed.catch_up import CatchUp
from hyperwatch.feed.channels.events import Orders
from hyperwatch.feed.filters.orders import OrderFilter
from hyperwatch.feed.hub import Hub
from hyperwatch.feed.registry import StreamSource
from hyperwatch.feed.subscription import Subscription
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.log.seek.resume import at_head
from hyperwatch.log.tree import Tree, head_of
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.server.connection import Connection
from hyperwatch.server.framing import FrameCache
from support import TIME, append, event, hour_file, lines_of, messages_in, places_of, until

FIRST = 1000  # the first block

Event = tuple[int, int]  # (block, place): what an event is known by, and its oid says


def time_of(block: int) -> str:
    """Blocks are 67 ms apart, and the first of the hour 10 lie, by their times, in the hour before."""
    when = datetime(2026, 5, 5, 9, 59, 59, 500_000) + timedelta(milliseconds=67 * (block - FIRST))  # noqa: DTZ001  the node writes no offset
    return f"{when.isoformat(timespec='milliseconds')}084407"


def written(layout: Layout, block: int, places: range) -> bytes:
    """Some events of a block as a node writes them, each with an oid that says its block and place."""
    events = [event(10 * block + place) for place in places]
    return lines_of(layout, [(block, events)]).replace(TIME.encode(), time_of(block).encode())


def blocks(layout: Layout, numbers: range) -> bytes:
    return b"".join(written(layout, number, range(1 + number % 3)) for number in numbers)


def events_of(numbers: range) -> list[Event]:
    return [(number, place) for number in numbers for place in range(1 + number % 3)]


def tree(root: Path, layout: Layout = Layout.STREAMING) -> Tree:
    return Tree(root, ORDERS, layout)


@attrs.define(eq=False)
class FakeSocket:
    """A client that takes everything."""

    peer: str = "a fake"
    address: str = "a fake"
    unfinished: bool = False
    heard: list[tuple[int | None, int]] = attrs.Factory(list)

    def offer(self, parts: Sequence[bytes], size: int) -> bool:
        assert size == sum(map(len, parts))
        for text in messages_in(b"".join(parts)):
            self._hear(text)
        return True

    def when_rest_waits(self, call: Callable[[], None]) -> None:
        """It takes all."""

    async def send(self, head: bytes, tail: bytes = b"", *, binary: bool = False) -> None:  # noqa: ARG002  text is all it is sent
        await trio.lowlevel.checkpoint()
        self._hear(head + tail)

    def _hear(self, text: bytes) -> None:
        message = json.loads(text)
        if message["channel"] == "orders":
            self.heard += [(block, place) for block, place, _ in places_of(message["data"])]

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()


async def served_from(log: Tree, ring: Ring, start: Cursor, last: Event) -> list[tuple[int | None, int]]:
    """What a subscription that starts there hears until it is live."""
    socket, hub = FakeSocket(), Hub(ring, FrameCache)
    connection = Connection(socket, {ORDERS.name: StreamSource(hub, CatchUp(log, ring))})  # type: ignore[arg-type]  # as far as it is used
    subscription = Subscription(Orders(OrderFilter()), "1", connection, start, -1)
    connection._subscriptions["1"] = subscription
    connection.wake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection._serve_behind)
        await until(lambda: subscription.live or last in socket.heard)
        nursery.cancel_scope.cancel()
    connection._close_reader(subscription)
    return socket.heard


@pytest.mark.parametrize("begin", [1000, 1025])
async def test_who_begins_in_what_was_written_again_is_served_from_the_files_until_it_has_what_the_head_left_out(
    tmp_path: Path, begin: int
) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, b"")
    log = tree(tmp_path)
    ring = Ring(Cursor(log.stream.directory(log.layout)), 10**9)
    reader = BatchReader(log, ring.end)
    first = blocks(Layout.STREAMING, range(1000, 1030))
    for lines in [first, *(blocks(Layout.STREAMING, range(number, number + 1)) for number in range(1020, 1040))]:
        append(path, lines)
        batch = reader.next(None, lambda: None)
        assert batch is not None
        ring.append(batch)  # batch by batch: the head leaves out 1020 to 1029, which it has had
    reader.close()
    again = len(first) + len(blocks(Layout.STREAMING, range(1020, begin)))
    place = FilePosition("20260505/9", again if begin > 1000 else 0, fingerprint=ring.end.places[0].fingerprint)
    start = Cursor(ring.end.directory, (place,), begin, time_of(begin))

    assert await served_from(log, ring, start, (1039, 1)) == events_of(range(begin, 1040))


async def test_who_has_read_what_the_head_has_not_gets_nothing_twice(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, blocks(Layout.STREAMING, range(1000, 1030)) + blocks(Layout.STREAMING, range(1020, 1022)))
    log = tree(tmp_path)
    ring = Ring(at_head(log), 10**9)  # it began where a restarted node writes again, and cannot know
    reader = BatchReader(log, ring.end)
    for number in range(1022, 1040):
        append(path, blocks(Layout.STREAMING, range(number, number + 1)))
        batch = reader.next(None, lambda: None)
        assert batch is not None
        ring.append(batch)
    reader.close()

    assert await served_from(log, ring, Cursor(ring.end.directory), (1039, 1)) == events_of(range(1000, 1040))


@pytest.mark.parametrize("again", [1010, 1007])
async def test_a_seam_at_an_hours_start_is_reached_from_the_hour_before(tmp_path: Path, again: int) -> None:
    old, new = hour_file(tmp_path, "20260505/9"), hour_file(tmp_path, "20260505/10")
    first = blocks(Layout.STREAMING, range(1000, 1010)) + blocks(Layout.STREAMING, range(1003, 1004))
    append(old, first + blocks(Layout.STREAMING, range(1004, again)))
    append(new, b"")
    log = tree(tmp_path)
    start = at_head(log)
    # The head has let go of the old hour.
    ring = Ring(attrs.evolve(start, places=start.places[-1:], block=1009, time=time_of(1009), count=2), 10**9)
    reader = BatchReader(log, ring.end)
    for number in range(again, 1015):
        append(new, blocks(Layout.STREAMING, range(number, number + 1)))
        batch = reader.next(None, lambda: None)
        assert batch is not None
        ring.append(batch)
    reader.close()
    assert [place.file for place in ring.start.places] == ["20260505/10"]

    assert await served_from(log, ring, Cursor(ring.end.directory), (1014, 0)) == events_of(range(1000, 1015))
    source = log.open("20260505/9")
    head = head_of(source)
    source.close()
    within = Cursor(
        ring.end.directory, (FilePosition("20260505/9", len(first), fingerprint=head),), 1004, time_of(1004)
    )
    assert await served_from(log, ring, within, (1014, 0)) == events_of(range(1004, 1015))
