"""What a node wrote a second time, and cursors that hold whatever becomes of the files."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Batch
from hyperwatch.log.line_reader import GONE_S, LOOK_S, LineReader
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.log.seek.resume import resume, seek
from hyperwatch.log.tree import Recording, Tree
from hyperwatch.node.streams import ORDERS, Layout
from support import SAMPLES, TIME, append, event, events_of, hour_file, line, lines_of, needs_samples

BLOCKS = [(number, [event(10 * number + each) for each in range(number % 4)]) for number in range(100, 140)]
EVENTS = [(block, place, raw) for block, events in BLOCKS for place, raw in enumerate(events)]
ENVELOPES = [Layout.BY_BLOCK, Layout.STREAMING]


def dated(blocks: list[tuple[int, list[bytes]]]) -> list[tuple[int, list[bytes]]]:
    """With a time of its own for every block: the plain layout knows blocks by nothing else."""
    return [
        (number, [raw.replace(b"17:39:13.024084407", b"17:%02d:%02d.5" % divmod(number, 60)) for raw in events])
        for number, events in blocks
    ]


def tree(root: Path, layout: Layout = Layout.STREAMING) -> Tree:
    return Tree(root, ORDERS, layout)


def read_on(reader: BatchReader) -> list[Batch]:
    batches = []
    while batch := reader.next(None, lambda: None):
        batches.append(batch)
    return batches


def read_all(log: Tree | Recording, cursor: Cursor | None = None) -> list[Batch]:
    reader = BatchReader(log, cursor or Cursor(log.stream.directory(log.layout)))
    batches = read_on(reader)
    reader.close()
    return batches


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("where", ["the same file", "a later file"])
def test_what_a_restarted_node_wrote_again_is_delivered_once(tmp_path: Path, layout: Layout, where: str) -> None:
    blocks = dated(BLOCKS)
    append(hour_file(tmp_path, "20260505/9", layout), lines_of(layout, blocks[:30]))
    again = "20260505/9" if where == "the same file" else "20260505/10"
    append(hour_file(tmp_path, again, layout), lines_of(layout, blocks[17:]))
    batches = read_all(tree(tmp_path, layout))

    assert [raw for _, _, raw in events_of(batches)] == [raw for _, events in blocks for raw in events]
    assert sum(batch.repeated for batch in batches) == sum(len(events) for _, events in blocks[17:30])
    if layout is not Layout.PLAIN:
        assert [(block, place) for block, place, _ in events_of(batches)] == [(b, p) for b, p, _ in EVENTS]


@pytest.mark.parametrize("layout", ENVELOPES)
def test_a_node_that_died_within_a_block_writes_the_rest_of_it_after_its_restart(
    tmp_path: Path, layout: Layout
) -> None:
    first, second, third = event(1), event(2), event(3)
    path = hour_file(tmp_path, "20260505/9", layout)
    append(path, lines_of(layout, [(7, [event(0)]), (8, [first, second])]))
    append(path, lines_of(layout, [(7, [event(0)]), (8, [first, second, third]), (9, [event(4)])]))

    assert events_of(read_all(tree(tmp_path, layout))) == [
        (7, 0, event(0)), (8, 0, first), (8, 1, second), (8, 2, third), (9, 0, event(4)),
    ]  # fmt: skip


@pytest.mark.parametrize("layout", list(Layout))
def test_a_cursor_within_a_repeat_goes_on_behind_it(tmp_path: Path, layout: Layout) -> None:
    blocks = dated(BLOCKS)
    path = hour_file(tmp_path, "20260505/9", layout)
    append(path, lines_of(layout, blocks[:30]) + lines_of(layout, blocks[17:25]))
    log = tree(tmp_path, layout)
    cursor = Cursor.decode(read_all(log)[-1].after.encode())
    append(path, lines_of(layout, blocks[25:]))

    assert [raw for _, _, raw in events_of(read_all(log, cursor))] == [raw for _, evs in blocks[30:] for raw in evs]


def test_late_lines_in_the_old_hour_are_no_repeats_for_a_cursor_behind_them(tmp_path: Path) -> None:
    old, new = hour_file(tmp_path, "20260505/9"), hour_file(tmp_path, "20260505/10")
    append(old, line(7, [event(1)]))
    append(new, line(9, [event(3)]))
    log = tree(tmp_path)
    reader = BatchReader(log, Cursor("node_order_statuses_streaming"))
    read_on(reader)
    cursor = reader.cursor
    reader.close()
    append(old, line(7, [event(5)]) + line(8, [event(2)]))

    assert [place.file for place in cursor.places] == ["20260505/9", "20260505/10"]
    assert events_of(read_all(log, Cursor.decode(cursor.encode()))) == [(7, 1, event(5)), (8, 0, event(2))]


def test_a_block_that_began_in_the_old_hour_is_counted_on_by_a_cursor_in_the_new_one(tmp_path: Path) -> None:
    old = hour_file(tmp_path, "20260505/9")
    append(old, line(7, [event(1)]) + line(7, [event(2)]))
    append(hour_file(tmp_path, "20260505/10"), line(7, [event(3)]))
    log = attrs.evolve(tree(tmp_path), grace_s=0)  # it will not grow any more: the cursor names the new file only
    cursor = read_all(log)[-1].after
    append(hour_file(tmp_path, "20260505/10"), line(7, [event(4)]))

    assert [place.file for place in cursor.places] == ["20260505/10"]
    assert events_of(read_all(log, cursor)) == [(7, 3, event(4))]


@pytest.mark.parametrize("layout", ENVELOPES)
@pytest.mark.parametrize("other", ENVELOPES)
def test_a_cursor_goes_on_by_its_block_on_another_node_and_in_another_layout(
    tmp_path: Path, layout: Layout, other: Layout
) -> None:
    append(hour_file(tmp_path / "a", "20260505/9", layout), lines_of(layout, BLOCKS))
    for name, part in (("20260505/8", BLOCKS[:5]), ("20260505/9", BLOCKS[5:25]), ("20260505/10", BLOCKS[25:])):
        append(hour_file(tmp_path / "b", name, other), lines_of(other, part).replace(b"13.5", b"13.7"))
    reader = BatchReader(tree(tmp_path / "a", layout), Cursor(ORDERS.directory(layout)))
    entries = [entry for batch in read_on(reader) for entry in batch.entries]
    reader.close()

    for entry in entries:
        seen = [(block, place) for block, place, _ in EVENTS if (block, place) < (entry.after.block, entry.after.count)]
        rest = events_of(read_all(tree(tmp_path / "b", other), Cursor.decode(entry.after.encode())))
        assert rest == EVENTS[len(seen) :]
        assert resume(tree(tmp_path / "b", other), entry.after).gap is None


def test_a_cursor_goes_on_by_time_where_the_layout_has_no_block_numbers(tmp_path: Path) -> None:
    blocks = dated(BLOCKS)
    plain, by_block = tree(tmp_path, Layout.PLAIN), tree(tmp_path, Layout.BY_BLOCK)
    append(hour_file(tmp_path, "20260505/9", Layout.PLAIN), lines_of(Layout.PLAIN, blocks))
    timed = b"".join(
        line(number, events).replace(b"17:39:13.024084407", b"17:%02d:%02d.5" % divmod(number, 60))
        for number, events in blocks
    )
    append(hour_file(tmp_path, "20260505/9", Layout.BY_BLOCK), timed)
    raws = [raw for _, events in blocks for raw in events]
    for log, other in ((plain, by_block), (by_block, plain)):
        entries = [entry for batch in read_all(log) for entry in batch.entries if entry.slice.events]
        taken = 0
        for entry in entries:
            taken += len(entry.slice.events)
            rest = [raw for _, _, raw in events_of(read_all(other, entry.after))]
            assert rest == raws[taken:]


@needs_samples
def test_a_cursor_of_the_by_block_recording_continues_on_the_streaming_recording() -> None:
    logs = {
        kind: Recording([SAMPLES / f"node_order_statuses-{kind.value[1:]}-btc51.jsonl.gz"], ORDERS, kind)
        for kind in ENVELOPES
    }
    batches = read_all(logs[Layout.BY_BLOCK])
    everything = events_of(batches)
    entries = [entry for batch in batches for entry in batch.entries]
    for entry in entries[:: len(entries) // 4]:
        rest = events_of(read_all(logs[Layout.STREAMING], entry.after))
        assert rest == [each for each in everything if each[:2] >= (entry.after.block, entry.after.count)]


def test_what_is_gone_is_a_gap_and_what_is_left_is_read(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/8"), lines_of(Layout.STREAMING, BLOCKS[:10]))
    append(hour_file(tmp_path, "20260505/9"), lines_of(Layout.STREAMING, BLOCKS[20:]))
    log = tree(tmp_path)
    (first, *_) = read_all(log)[0].entries
    (tmp_path / "node_order_statuses_streaming/hourly/20260505/8").unlink()
    reader = BatchReader(log, first.after)

    assert reader.gap is not None
    assert (reader.gap.before.block, reader.gap.before.count) == (first.after.block, first.after.count)
    assert (reader.gap.after.block, reader.gap.after.count) == (121, 0)
    assert events_of(read_on(reader)) == [each for each in EVENTS if each[0] >= 120]
    reader.close()


def test_a_file_that_was_replaced_is_seen_as_another(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, lines_of(Layout.STREAMING, BLOCKS[:20]))
    log = tree(tmp_path)
    cursor = read_all(log)[-1].after
    path.write_bytes(lines_of(Layout.STREAMING, BLOCKS[10:]).replace(b"13.5", b"13.7"))

    assert events_of(read_all(log, cursor)) == [each for each in EVENTS if each[0] >= 120]


@pytest.mark.parametrize("how", ["truncated", "replaced", "removed and made again"])
def test_a_file_that_changes_under_a_reader_is_read_from_its_start_without_repeats(tmp_path: Path, how: str) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, lines_of(Layout.STREAMING, BLOCKS[:20]))
    log = tree(tmp_path)
    now = [0.0]
    reader = BatchReader(log, Cursor("node_order_statuses_streaming"))
    reader._walk._monotonic_s = lambda: now[0]
    got = read_on(reader)
    data = lines_of(Layout.STREAMING, BLOCKS[15:])
    if how == "truncated":
        os.truncate(path, 0)
        now[0] += 2 * LOOK_S
        got += read_on(reader)
        append(path, data)
    elif how == "replaced":
        (tmp_path / "new").write_bytes(data)
        (tmp_path / "new").rename(path)
    else:
        path.unlink()
        for _ in range(3):
            now[0] += GONE_S
            got += read_on(reader)
        path.write_bytes(data)
    for _ in range(3):
        now[0] += 2 * LOOK_S
        got += read_on(reader)
    reader.close()

    assert events_of(got) == EVENTS


def test_a_removed_file_is_let_go_within_a_minute_and_its_place_is_kept(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]))
    now = [0.0]
    walk = LineReader(tree(tmp_path), monotonic_s=lambda: now[0])
    assert walk.take(1000) is not None
    path.unlink()
    held = []
    for _ in range(130):
        now[0] += 0.5
        assert walk.take(1000) is None
        held.append(any("20260505/9" in name for name in open_files()))

    assert held[0]
    assert not held[-10]
    assert [(place.file, place.offset) for place in walk.places] == [("20260505/9", len(line(7, [event(1)])))]
    append(hour_file(tmp_path, "20260505/10"), line(8, [event(2)]))
    now[0] += 1
    span = walk.take(1000)
    assert span is not None
    assert span.file == "20260505/10"
    walk.close()


def open_files() -> list[str]:
    return [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


def test_a_file_that_was_removed_before_it_was_read_is_named(tmp_path: Path) -> None:
    for name in ("20260505/9", "20260505/10", "20260505/11"):
        append(hour_file(tmp_path, name), line(7, [event(1)]))
    walk = LineReader(tree(tmp_path))
    assert walk.take(1000) is not None
    assert walk.take(1000) is not None
    hour_file(tmp_path, "20260505/11").unlink()
    append(hour_file(tmp_path, "20260505/12"), line(8, [event(1)]))
    span = walk.take(1000)

    assert span is not None
    assert span.file == "20260505/12"
    assert span.missed == ("20260505/11",)
    walk.close()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(0, 61), st.booleans())
def test_seek_ends_before_what_is_not_below_and_at_most_two_lines_that_are(  # for it asks three at each step
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], wanted: int, damaged: bool
) -> None:
    path = hour_file(tmp_path_factory.mktemp("seek"), "20260505/9")
    numbers.sort()
    lines = [line(number, [event(number)]) for number in numbers]
    if damaged:
        lines.insert(len(lines) // 2, b"damage\n" * 3)
    append(path, b"".join(lines))
    log = tree(path.parents[3])
    source = log.open("20260505/9")
    size = source.size_bytes()
    offset = seek(log, source, size, lambda slice_: slice_.block is not None and slice_.block < wanted)
    rest = source.read(offset, size)
    source.close()

    left = [raw for raw in rest.splitlines() if raw != b"damage"]
    expected = [line(number, [event(number)]).rstrip() for number in numbers if number >= wanted]
    assert left[len(left) - len(expected) :] == expected
    assert len(left) <= len(expected) + 2


def test_seek_in_a_file_with_a_restart_loses_nothing(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, lines_of(Layout.STREAMING, BLOCKS[:25]) + lines_of(Layout.STREAMING, BLOCKS[10:]))
    log = tree(tmp_path)
    for block in range(100, 141):
        cursor = Cursor("node_order_statuses_by_block", (FilePosition("x", 5),), block, TIME, 1)
        expected = [each for each in EVENTS if each[:2] >= (block, 1)]
        assert events_of(read_all(log, cursor)) == expected


@pytest.mark.parametrize(
    ("layout", "reasons"), [(Layout.BY_BLOCK, ["missing-blocks"]), (Layout.STREAMING, ["place-gone"])]
)
def test_what_lies_between_a_cursor_and_the_first_block_that_is_left_is_one_gap(
    tmp_path: Path, layout: Layout, reasons: list[str]
) -> None:
    append(hour_file(tmp_path, "20260505/9", layout), lines_of(layout, [(20, [event(1)]), (21, [event(2)])]))
    gone = Cursor(ORDERS.directory(layout), (FilePosition("20260505/8", 50, 0, "abc"),), 7, TIME, 3)

    reader = BatchReader(Tree(tmp_path, ORDERS, layout), gone)
    batch = reader.next(None, lambda: None)
    reader.close()

    assert batch is not None
    told = [reader.gap] if reader.gap else []
    told += [gap for entry in batch.entries for gap in entry.gaps]
    assert [(gap.reason, gap.before.block, gap.after.block) for gap in told] == [(reasons[0], 7, 20)]
    assert [block for block, _, _ in events_of([batch])] == [20, 21]
