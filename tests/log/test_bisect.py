"""A subscription that begins at a time or at a block."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.errors import CursorError
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.gaps import Gap
from hyperwatch.log.seek.bisect import AtBlock, AtTime, resolve
from hyperwatch.log.tree import Tree
from hyperwatch.node.slices import BlockSlice
from hyperwatch.node.streams import DIFFS, ORDERS, Layout
from support import append, connected, event, events_of, hour_file, line, needs_samples, running, sample, until

FIRST_MS = 1_778_002_753_000


def time_of(block: int) -> str:
    """Blocks are a second apart."""
    return f"2026-05-05T17:{39 + (13 + block) // 60:02}:{(13 + block) % 60:02}"


def lines(layout: Layout, block: int, count: int = 2) -> bytes:
    """A block's lines; its time has no fraction, which the node then leaves out."""
    events = [
        event(10 * block + number).replace(b"2026-05-05T17:39:13.024084407", time_of(block).encode())
        for number in range(count)
    ]
    if layout is Layout.PLAIN:
        return b"".join(each + b"\n" for each in events)
    groups = [events] if layout is Layout.BY_BLOCK else [[each] for each in events]
    return b"".join(
        line(block, group).replace(b'"block_time":"2026-05-05T17:39:13.024084407"', b'"block_time":"%s"' % time)
        for group in groups
        for time in [time_of(block).encode()]
    )


def read(root: Path, layout: Layout, start_point: AtTime | AtBlock) -> tuple[list[int], Gap | None] | None:
    """(the oids from there on, what is said to be gone); None where nothing is there."""
    log = Tree(root, ORDERS, layout)
    start = resolve(log, start_point)
    if start is None:
        return None
    reader = BatchReader(log, start.cursor)
    oids = []
    while batch := reader.next(None, lambda: None):
        oids += [int(raw.partition(b'"oid":')[2].partition(b",")[0]) for *_, raw in events_of([batch])]
    reader.close()
    return oids, start.gap


def oids(blocks: range) -> list[int]:
    return [10 * block + number for block in blocks for number in range(2)]


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("ms", [0, -999, -500])
def test_a_time_begins_with_the_first_block_at_or_behind_it(tmp_path: Path, layout: Layout, ms: int) -> None:
    """Wherever the node put it: here its last blocks of an hour stand in the next hour's file."""
    for number, blocks in enumerate((range(5), range(5, 12), range(12, 20))):
        for block in blocks:
            append(hour_file(tmp_path, f"20260505/{16 + number}", layout), lines(layout, block))

    for block in (1, 4, 5, 8, 12, 19):
        assert read(tmp_path, layout, AtTime(FIRST_MS + 1000 * block + ms)) == (oids(range(block, 20)), None)


@pytest.mark.parametrize("layout", [Layout.STREAMING, Layout.BY_BLOCK])
def test_a_block_begins_with_its_first_event(tmp_path: Path, layout: Layout) -> None:
    for number, blocks in enumerate((range(100, 105), range(105, 112))):
        for block in blocks:
            append(hour_file(tmp_path, f"20260505/{16 + number}", layout), lines(layout, block))

    for block in (100, 103, 105, 111):
        assert read(tmp_path, layout, AtBlock(block)) == (oids(range(block, 112)), None)


@pytest.mark.parametrize("layout", [Layout.STREAMING, Layout.BY_BLOCK])
def test_a_block_that_the_hours_divide_comes_whole(tmp_path: Path, layout: Layout) -> None:
    """It begins in the old hour's file, of which a restarted node writes the last blocks again in the next."""
    for hour, blocks in ((16, range(100, 106)), (17, range(103, 110))):
        for block in blocks:
            append(
                hour_file(tmp_path, f"20260505/{hour}", layout),
                lines(layout, block, 1 if (hour, block) == (16, 105) else 2),
            )

    for start_point in (AtBlock(105), AtTime(FIRST_MS + 105_000)):
        assert read(tmp_path, layout, start_point) == (oids(range(105, 110)), None)


@pytest.mark.parametrize("layout", [Layout.STREAMING, Layout.BY_BLOCK])
@given(
    passes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12)), min_size=1, max_size=5),
    rolls=st.sets(st.integers(0, 40)),
    wanted=st.integers(0, 60),
)
def test_over_node_restarts_everything_from_a_block_on_comes_once_and_nothing_before_it(
    layout: Layout, passes: list[tuple[int, int]], rolls: set[int], wanted: int
) -> None:
    """A restarting node goes back some blocks (by at least one more than it had begun) and writes on from there."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        highest, written, hour = 20, 0, 0
        for back, count in passes:
            for block in range(max(20, highest - back), highest + count + 1):
                append(hour_file(root, f"20260505/{hour}", layout), lines(layout, block))
                highest, written = max(highest, block), written + 1
                hour += written in rolls and hour < 23

        found = read(root, layout, AtBlock(wanted))
        if wanted > highest:
            assert found is None
        else:
            assert found is not None
            assert found[0] == oids(range(max(20, wanted), highest + 1))
            assert (found[1] is None) == (wanted >= 20)


@pytest.mark.parametrize("layout", list(Layout))
def test_what_is_gone_before_the_oldest_block_is_a_gap(tmp_path: Path, layout: Layout) -> None:
    for block in range(100, 103):
        append(hour_file(tmp_path, "20260505/17", layout), lines(layout, block))

    found = read(tmp_path, layout, AtTime(FIRST_MS))
    assert found is not None
    assert found[1] is not None
    assert (found[0], found[1].reason) == (oids(range(100, 103)), "place-gone")
    if layout is not Layout.PLAIN:
        found = read(tmp_path, layout, AtBlock(90))
        assert found is not None
        assert found[1] is not None
        assert (found[0], found[1].before.block, found[1].after.block) == (oids(range(100, 103)), 90, 100)


def test_where_the_lines_do_not_tell_it_is_an_error_that_says_what_to_ask_for(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/17", Layout.PLAIN), lines(Layout.PLAIN, 1))
    with pytest.raises(CursorError, match="begin at a time"):
        resolve(Tree(tmp_path, ORDERS, Layout.PLAIN), AtBlock(7))

    diff = b'{"user":"0x0","oid":1,"coin":"BTC","side":"B","px":"1.0","raw_book_diff":"remove"}\n'
    append(hour_file(tmp_path, "20260505/17", Layout.PLAIN, DIFFS), diff)
    with pytest.raises(CursorError, match="earliest"):
        resolve(Tree(tmp_path, DIFFS, Layout.PLAIN), AtTime(FIRST_MS))


async def test_from_a_time_or_block_goes_live_without_a_seam_while_the_files_grow(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/17")
    for block in range(200):
        append(path, lines(Layout.STREAMING, block))
    heard: dict[str, list[int]] = {"time": [], "block": []}

    async def follow(port: int, key: str, start_point: int) -> None:
        async with connected(port) as client:
            await client.subscribe(type="orders", **{"from": {key: start_point}})
            while not heard[key] or heard[key][-1] < 3999:
                message = await client.hear("orders", "gap", "error")
                assert message["channel"] == "orders"
                heard[key] += [each["order"]["oid"] for each in message["data"]["events"]]

    with trio.fail_after(30):
        async with running(tmp_path, ring_bytes=2**20) as port, trio.open_nursery() as nursery:
            nursery.start_soon(follow, port, "time", FIRST_MS + 1000 * 150)
            nursery.start_soon(follow, port, "block", 150)
            for block in range(200, 400):
                append(path, lines(Layout.STREAMING, block))
                await trio.lowlevel.checkpoint()
            await until(lambda: all(found and found[-1] >= 3991 for found in heard.values()))
            nursery.cancel_scope.cancel("all heard")

    assert heard["time"] == heard["block"] == oids(range(150, 400))


async def test_what_has_not_been_written_yet_begins_at_the_newest_line_with_a_warning(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/17"), lines(Layout.STREAMING, 1))
    with trio.fail_after(20):
        async with running(tmp_path) as port, connected(port) as client:
            answers: list[dict[str, Any]] = [
                await client.subscribe(type="orders", id=key, **{"from": {key: start_point}})
                for key, start_point in (("time", FIRST_MS + 10**9), ("block", 2))
            ]
            append(hour_file(tmp_path, "20260505/17"), lines(Layout.STREAMING, 2, 1))
            for _ in answers:
                assert (await client.hear("orders"))["data"]["blockNumber"] == 2
    assert [len(answer["warnings"]) for answer in answers] == [1, 1]
    assert "has been written yet" in answers[0]["warnings"][0]


@needs_samples
@pytest.mark.parametrize("layout", [Layout.STREAMING, Layout.BY_BLOCK])
def test_every_block_of_a_recording_is_found_by_number_and_by_time(tmp_path: Path, layout: Layout) -> None:
    name = {Layout.STREAMING: "streaming", Layout.BY_BLOCK: "by_block"}[layout]
    append(hour_file(tmp_path, "20260505/17", layout), sample(f"node_order_statuses-{name}-btc51.jsonl.gz"))
    log = Tree(tmp_path, ORDERS, layout)
    reader = BatchReader(log, resolve(log, AtBlock(0)).cursor)  # type: ignore[union-attr]  # it is there
    runs: dict[int | None, BlockSlice] = {}
    while batch := reader.next(None, lambda: None):
        for entry in batch.entries:
            runs.setdefault(entry.slice.block, entry.slice)
    reader.close()

    assert len(runs) > 40
    for block, run in runs.items():
        assert block is not None
        assert run.time_ms is not None
        for start_point in (AtBlock(block), AtTime(run.time_ms)):
            start = resolve(log, start_point)
            assert start is not None
            assert (start.cursor.block, start.gap) == (block, None)
