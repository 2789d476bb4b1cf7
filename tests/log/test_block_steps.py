"""One damaged block number moves nothing that others are measured by, and nothing behind it is lost."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from hyperwatch.ledger.ledger import Ledger
from hyperwatch.ledger.state_dir import StateDir
from hyperwatch.log.block_steps import Steps
from hyperwatch.log.gaps import UNREADABLE
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.bisect import AtBlock, resolve
from hyperwatch.log.seek.resume import at_head, resume
from hyperwatch.log.tree import Tree
from hyperwatch.node.slices import BlockSlice
from hyperwatch.node.streams import ORDERS, Layout, hour_end_ms
from hyperwatch.node.times import ms_of, text_of
from support import TIME, TIME_MS, append, connected, event, events_of, hour_file, line, lines_of, read_all, running

ENVELOPES = [Layout.BY_BLOCK, Layout.STREAMING]
FAR = 10**12
BLOCKS = [(block, [event(block)]) for block in range(1_000, 1_400)]


def tree(root: Path, layout: Layout) -> Tree:
    return Tree(root, ORDERS, layout)


def write(root: Path, layout: Layout, *, far: int = FAR, at: int = 200) -> Tree:
    """400 blocks of an event each, a damaged line among them."""
    path = hour_file(root, "20260505/17", layout)
    damaged = [*BLOCKS[:at], (far, [event(7)]), *BLOCKS[at:]]
    append(path, lines_of(layout, damaged))
    return tree(root, layout)


@pytest.mark.parametrize("far", [FAR, 1])
@pytest.mark.parametrize("layout", ENVELOPES)
def test_a_damaged_block_number_is_a_named_gap_and_all_around_it_is_delivered(
    tmp_path: Path, layout: Layout, far: int
) -> None:
    blocks = [(block + 200_000, events) for block, events in BLOCKS]
    path = hour_file(tmp_path, "20260505/17", layout)
    append(path, lines_of(layout, [*blocks[:200], (far, [event(7)]), *blocks[200:]]))
    batches = read_all(tree(tmp_path, layout))
    assert events_of(batches) == [(block, 0, raw) for block, (raw,) in blocks]
    (unreadable,) = [unreadable for batch in batches for unreadable in batch.unreadable]
    assert f"block {far} cannot follow block 201199" in unreadable.reason
    assert path.read_bytes()[unreadable.offset :].startswith(unreadable.data)
    assert unreadable.data == line(far, [event(7)])
    gaps = [gap for batch in batches for entry in batch.entries for gap in entry.gaps]
    assert [gap.reason for gap in gaps] == [UNREADABLE]
    assert sum(batch.restarts for batch in batches) == 0


@pytest.mark.parametrize("layout", ENVELOPES)
def test_a_cursor_from_behind_a_damaged_number_has_everything_that_follows(tmp_path: Path, layout: Layout) -> None:
    log = write(tmp_path, layout)
    entries = [entry for batch in read_all(log) for entry in batch.entries]
    everything = events_of(read_all(log))
    for number in (0, 150, 199, 200, 201, 300):
        cursor = Cursor.decode(entries[number].after.encode())
        assert events_of(read_all(log, cursor)) == everything[number + 1 :], number


@pytest.mark.parametrize("layout", ENVELOPES)
@pytest.mark.parametrize("behind", [0, 1, 100])
def test_a_cursor_that_holds_a_damaged_number_is_resolved_by_its_file(
    tmp_path: Path, layout: Layout, behind: int
) -> None:
    """As an older version made them: with the damaged block as the highest."""
    log = write(tmp_path, layout)
    clean = [entry.after for batch in read_all(log) for entry in batch.entries if entry.slice.count]
    poisoned = attrs.evolve(clean[200 + behind - 1], block=FAR, time=TIME, count=1)
    rest = read_all(log, poisoned)
    assert events_of(rest) == [(block, 0, raw) for block, (raw,) in BLOCKS[200 + behind :]]


@pytest.mark.parametrize("layout", ENVELOPES)
@pytest.mark.parametrize("last", [True, False])
def test_the_newest_line_does_not_decide_alone_where_the_head_begins(
    tmp_path: Path, layout: Layout, *, last: bool
) -> None:
    log = write(tmp_path, layout, at=400 if last else 399)
    start = at_head(log)
    assert (start.block, start.count) == (1_399, 1)
    append(log.hourly / "20260505/17", lines_of(layout, [(1_400, [event(1_400)])]))
    assert events_of(read_all(log, start)) == [(1_400, 0, event(1_400))]


@pytest.mark.parametrize("layout", ENVELOPES)
def test_a_remembered_place_with_a_damaged_number_does_not_move_the_head(tmp_path: Path, layout: Layout) -> None:
    log = write(tmp_path, layout, at=100)
    start = at_head(log)
    with StateDir(tmp_path / "state") as state:
        state.save_head(ORDERS.name, attrs.evolve(start, places=(), block=FAR))
        records = Ledger(state)
        assert records.since_last_time(log, start).block == 1_399


@pytest.mark.parametrize("layout", ENVELOPES)
@pytest.mark.parametrize("damaged", range(0, 400, 7))
@pytest.mark.parametrize("far", [FAR, 0])
def test_a_block_is_found_in_spite_of_a_damaged_number(tmp_path: Path, layout: Layout, damaged: int, far: int) -> None:
    log = write(tmp_path, layout, far=far, at=damaged)
    for wanted in (1_001, 1_199, 1_200, 1_201, 1_398):
        found = resolve(log, AtBlock(wanted))
        assert found is not None
        raws = [raw for _, _, raw in events_of(read_all(log, found.cursor)) if raw != event(7)]
        assert raws == [event(block) for block in range(wanted, 1_400)]


def run_of(block: int | None, time_ms: int) -> BlockSlice:
    text = text_of(time_ms)
    return BlockSlice(ORDERS, block, text, time_ms, "", False, 1, 1, 0, 1, 0)


def test_a_pause_of_the_node_a_restart_and_empty_blocks_are_believed() -> None:
    day_ms = 86_400_000
    for step, passed_ms in (
        (1, 60),
        (1, 0),
        (900, 0),
        (15 * 86_400, day_ms),
        (-10_000, -600_000),
        (-50_000, 0),
        (0, 0),
    ):
        steps = Steps(10**9, TIME_MS)
        assert steps.place("20260505/17", run_of(10**9 + step, TIME_MS + passed_ms)) is None, (step, passed_ms)


def test_a_real_jump_is_believed_when_it_goes_on_and_what_was_read_of_another_chain_says_nothing_of_it(
    tmp_path: Path,
) -> None:
    path = hour_file(tmp_path, "20260505/17")
    other = [(block, [event(block)]) for block in range(5, 45)]
    append(path, lines_of(Layout.STREAMING, [(block + 10**6, events) for block, events in BLOCKS] + other))
    batches = read_all(tree(tmp_path, Layout.STREAMING))
    assert [block for block, _, _ in events_of(batches)][-38:] == list(range(7, 45))
    assert [gap.reason for batch in batches for entry in batch.entries for gap in entry.gaps] == [UNREADABLE] * 2
    assert batches[-1].after.block == 44


def test_a_time_of_the_plain_layout_that_its_hour_cannot_have_is_suspect(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/17", Layout.PLAIN)
    raws = [event(number).replace(TIME.encode(), text_of(TIME_MS + number * 70).encode()) for number in range(40)]
    far = event(7).replace(b"2026-05-05", b"2126-05-05")
    append(path, b"".join(raw + b"\n" for raw in [*raws[:20], far, *raws[20:]]))
    log = tree(tmp_path, Layout.PLAIN)
    batches = read_all(log)
    assert [raw for _, _, raw in events_of(batches)] == raws
    (unreadable,) = [unreadable for batch in batches for unreadable in batch.unreadable]
    assert unreadable.data == far + b"\n"
    end = at_head(log)
    append(path, raws[39].replace(b'"oid":39', b'"oid":40') + b"\n")
    assert len(events_of(read_all(log, end))) == 1


def test_an_hour_ends_when_its_name_says() -> None:
    assert hour_end_ms("20260505/17") == ms_of("2026-05-05T18:00:00")
    assert hour_end_ms("/recordings/orders.jsonl") is None


async def test_a_client_that_resumes_at_a_service_that_was_started_anew_has_all_of_it(tmp_path: Path) -> None:
    log = write(tmp_path / "data", Layout.STREAMING, at=0)
    async with running(tmp_path / "data") as port, connected(port) as client:
        await client.subscribe(type="orders", **{"from": "earliest"})
        message = await client.hear("orders")
        cursor = message["data"]["cursor"]
        heard = [json.loads(raw) for raw in map(json.dumps, message["data"]["events"])]
    async with running(tmp_path / "data") as port, connected(port) as client:
        await client.subscribe(type="orders", **{"from": cursor})
        while len(heard) < len(BLOCKS):
            heard += (await client.hear("orders"))["data"]["events"]
    assert [each["order"]["oid"] for each in heard] == [block for block, _ in BLOCKS]
    assert resume(log, Cursor.decode(cursor)).gap is None
