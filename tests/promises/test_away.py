"""Away is not gone: a data directory that is unmounted or renamed for a while costs nobody an event, and nobody hears a gap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from hyperwatch.client import Orders, connect
from hyperwatch.errors import FilesAwayError
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.resume import resume
from hyperwatch.log.tree import Tree
from hyperwatch.node.streams import ORDERS, Layout
from support import Client, append, connected, event, hour_file, line, running

HOURLY = "node_order_statuses_streaming/hourly"


def write(root: Path, *blocks: int, hour: str = "20260505/9") -> None:
    for block in blocks:
        append(hour_file(root, hour), line(block, [event(block)]))


def away(root: Path, what: str) -> tuple[Path, Path]:
    """(what goes, where it is meanwhile); the node writes on there."""
    place = root / what if what else root
    other = root.parent / "elsewhere"
    place.rename(other)
    return place, other


async def cursor_behind(client: Client, count: int) -> str:
    """The cursor of the message with which so many events were heard."""
    await client.subscribe(type="orders", id="a", **{"from": "earliest"})
    heard = 0
    while heard < count:
        message = await client.hear("orders")
        heard += len(message["data"]["events"])
    return str(message["data"]["cursor"])


@pytest.mark.parametrize("what", ["", "node_order_statuses_streaming", HOURLY])
@pytest.mark.parametrize("mount_point", [False, True])
async def test_a_cursor_is_told_that_the_files_are_away_and_resolved_when_they_are_back(
    tmp_path: Path, what: str, *, mount_point: bool
) -> None:
    root = tmp_path / "data"
    write(root, 7, 8, 9)
    with trio.fail_after(20):
        async with running(root, ring_bytes=2**20) as port, connected(port) as client:
            cursor = await cursor_behind(client, 3)
            place, other = away(root, what)
            if mount_point:
                place.mkdir()  # an empty one, as an unmounted volume leaves it
            for start in (cursor, {"block": 8}, {"time": 1}):
                answer = await client.subscribe(type="orders", id="b", **{"from": start})
                assert (answer["channel"], answer["code"], answer["id"]) == ("error", "files-away", "b"), start
                assert "holds no hour files just now" in answer["data"]
            write(other, 10) if not what else append(next(other.rglob("9")), line(10, [event(10)]))
            if mount_point:
                place.rmdir()
            other.rename(place)
            heard: list[Any] = []
            assert (await client.subscribe(type="orders", id="b", **{"from": cursor}))["channel"] != "error"
            while True:
                message = await client.hear("orders", "gap")
                assert message["channel"] == "orders", message
                if message["data"]["id"] == "b":
                    heard += message["data"]["events"]
                    break
            assert [each["order"]["oid"] for each in heard] == [10]


async def test_the_library_asks_again_until_the_files_are_back_and_misses_nothing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, 7, 8)
    with trio.fail_after(20):
        async with running(root) as port, connected(port) as client:
            cursor = await cursor_behind(client, 1)
            place, other = away(root, "")
            async with connect(f"ws://127.0.0.1:{port}/ws") as feed, trio.open_nursery() as nursery:
                oids: list[int] = []

                async def listen() -> None:
                    async for message in feed.orders(start=cursor, on_gap="raise"):
                        if isinstance(message, Orders):
                            oids.extend(found.order.oid for found in message.events)
                        if 9 in oids:
                            nursery.cancel_scope.cancel("all has come")

                nursery.start_soon(listen)
                await trio.sleep(0.3)  # it is refused once at least
                write(other, 9)
                other.rename(place)
            assert oids in ([8, 9], [9])  # the first message may have held both


def test_a_reader_at_work_waits_and_names_no_file_as_removed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, 7, 8)
    write(root, 9, hour="20260505/10")
    log = Tree(root, ORDERS, Layout.STREAMING)
    reader = BatchReader(log, Cursor(ORDERS.directory(Layout.STREAMING)))
    batch = reader.next(None, lambda: None)
    assert batch is not None
    place, other = away(root, "")
    with pytest.raises(FilesAwayError, match="reading goes on from the same place"):
        reader.next(None, lambda: None)
    other.rename(place)
    reader.look_again()
    rest = []
    while batch := reader.next(None, lambda: None):
        rest.append(batch)
    assert [entry.slice.block for each in rest for entry in each.entries if entry.slice.count] == [9]
    assert not any(entry.gaps for each in rest for entry in each.entries)
    reader.close()


def test_a_file_that_was_pruned_while_others_are_there_is_gone(tmp_path: Path) -> None:
    write(tmp_path, 7, 8)
    log = Tree(tmp_path, ORDERS, Layout.STREAMING)
    reader = BatchReader(log, Cursor(ORDERS.directory(Layout.STREAMING)))
    reader.next(None, lambda: None)
    cursor = reader.cursor
    reader.close()
    write(tmp_path, 20, hour="20260505/12")
    (tmp_path / HOURLY / "20260505" / "9").unlink()
    gap = resume(log, cursor).gap
    assert gap is not None
    assert gap.reason == "place-gone"
    (tmp_path / HOURLY / "20260505" / "12").unlink()
    (tmp_path / HOURLY / "20260505").rmdir()
    with pytest.raises(FilesAwayError):
        resume(log, cursor)
