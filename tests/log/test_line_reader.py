"""The node's files as one log: files in order, walking, reading from any cursor, the ring, the start."""

from __future__ import annotations

import errno
import gzip
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped]  # ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.errors import CursorError, DataError
from hyperwatch.ingest.ring import Ring
from hyperwatch.log import tree as tree_module
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Batch, RawBatch
from hyperwatch.log.line_reader import LineReader
from hyperwatch.log.packed_file import open_source, zstd
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.log.seek.resume import at_head
from hyperwatch.log.tree import (
    GRACE_S,
    OversizedLineError,
    PlainFile,
    Recording,
    Tree,
    backlog,
    find_trees,
    read_lines,
)
from hyperwatch.node.streams import ORDERS, Layout
from support import SAMPLES, TIME, append, event, events_of, hour_file, line, lines_of, needs_samples, sample

BLOCKS = [(7, [event(1), event(2)]), (8, [event(3)]), (9, []), (10, [event(4), event(5), event(6)])]
EVENTS = [(block, place, raw) for block, events in BLOCKS for place, raw in enumerate(events)]


def tree(root: Path, layout: Layout = Layout.STREAMING) -> Tree:
    return Tree(root, ORDERS, layout)


def start(layout: Layout = Layout.STREAMING) -> Cursor:
    return Cursor(ORDERS.directory(layout))


def read_all(log: Tree | Recording, cursor: Cursor) -> list[Batch]:
    reader = BatchReader(log, cursor)
    batches = []
    while batch := reader.next(None, lambda: None):
        batches.append(batch)
    assert reader.cursor.places == (batches[-1].after.places if batches else cursor.places)
    reader.close()
    return batches


def test_hour_files_come_in_the_order_of_time_and_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    for name in ("20260505/9", "20260505/10", "20260506/0", "20260505/9.lz4", "20260505/09", "x/3"):
        append(hour_file(tmp_path, name), b"")

    assert tree(tmp_path).names() == ["20260505/9", "20260505/10", "20260506/0"]
    assert tree(tmp_path).names("20260505/9") == ["20260505/10", "20260506/0"]
    assert tree(tmp_path).names("20260506/0") == []
    assert tree(tmp_path / "nowhere").names() == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "20260505/../9", "20260505", "/etc/passwd", "20260505/9/0", ""])
def test_no_cursor_opens_anything_but_an_hour_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyError):
        tree(tmp_path).open(name)


def test_a_fifo_in_place_of_an_hour_file_is_an_error_not_a_wait(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a regular file"):
        PlainFile(path)


def test_layouts_are_found_by_themselves_the_newest_first(tmp_path: Path) -> None:
    for age, layout in enumerate(Layout):
        path = hour_file(tmp_path, "20260505/9", layout)
        append(path, b"")
        os.utime(path, (1000 - age, 1000 - age))

    assert [found.layout for found in find_trees(tmp_path, ORDERS)] == list(Layout)
    assert find_trees(tmp_path / "node_order_statuses", ORDERS) == []


def test_a_missing_data_directory_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist.*--data-dir"):
        find_trees(tmp_path / "nowhere", ORDERS)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="not a directory"):
        find_trees(tmp_path / "file", ORDERS)


@pytest.mark.parametrize("layout", list(Layout))
def test_a_reader_gives_every_event_its_block_and_place(tmp_path: Path, layout: Layout) -> None:
    append(hour_file(tmp_path, "20260505/9", layout), lines_of(layout, BLOCKS))
    got = events_of(read_all(tree(tmp_path, layout), start(layout)))

    if layout is Layout.PLAIN:  # all of one time, and no block numbers
        assert got == [(None, place, raw) for place, (_, _, raw) in enumerate(EVENTS)]
    else:
        assert got == EVENTS


@pytest.mark.parametrize("layout", list(Layout))
def test_every_cursor_goes_on_where_it_stands(tmp_path: Path, layout: Layout) -> None:
    append(hour_file(tmp_path, "20260505/9", layout), lines_of(layout, BLOCKS[:2]))
    append(hour_file(tmp_path, "20260505/10", layout), lines_of(layout, BLOCKS[2:]))
    log = tree(tmp_path, layout)
    batches = read_all(log, start(layout))
    everything = events_of(batches)
    entries = [entry for batch in batches for entry in batch.entries]

    for entry in entries:
        rest = events_of(read_all(log, Cursor.decode(entry.after.encode())))
        before = sum(len(each.slice.events) for each in entries[: entries.index(entry) + 1])
        assert rest == everything[before:]


def test_a_cursor_in_the_middle_of_a_line_goes_on_with_its_next_event(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9", Layout.BY_BLOCK), lines_of(Layout.BY_BLOCK, BLOCKS))
    cursor = Cursor("node_order_statuses_by_block", (FilePosition("20260505/9", 0, 1),), 7, TIME, 1)

    assert events_of(read_all(tree(tmp_path, Layout.BY_BLOCK), cursor)) == EVENTS[1:]


@given(st.lists(st.integers(1, 4000), max_size=8))
def test_however_the_bytes_arrive_the_events_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    root = tmp_path_factory.mktemp("cuts")
    path = hour_file(root, "20260505/9")
    data = lines_of(Layout.STREAMING, BLOCKS)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    append(path, b"")
    reader = BatchReader(tree(root), start())
    batches = []
    for begin, end in itertools.pairwise(places):
        append(path, data[begin:end])
        while batch := reader.next(None, lambda: None):
            batches.append(batch)
    reader.close()

    assert events_of(batches) == EVENTS


def test_the_hour_rolls_over_and_over_midnight(tmp_path: Path) -> None:
    for name, block in (("20260505/22", 0), ("20260505/23", 1), ("20260506/0", 3)):
        append(hour_file(tmp_path, name), lines_of(Layout.STREAMING, BLOCKS[block : block + 1]))

    assert events_of(read_all(tree(tmp_path), start())) == EVENTS[:3] + EVENTS[3:]


def test_what_the_node_wrote_before_the_new_hour_existed_is_not_late(tmp_path: Path) -> None:
    old = hour_file(tmp_path, "20260505/9")
    append(old, line(7, [event(1)]))
    walk = LineReader(tree(tmp_path))
    assert walk.take(10_000) is not None

    append(old, line(7, [event(2)]))
    append(hour_file(tmp_path, "20260505/10"), line(8, [event(3)]))
    spans = [walk.take(10_000), walk.take(10_000)]

    assert [(span.file, span.late) for span in spans if span] == [("20260505/9", False), ("20260505/10", False)]
    walk.close()


def test_lines_that_appear_late_in_the_old_hour_come_when_they_appear(tmp_path: Path) -> None:
    old = hour_file(tmp_path, "20260505/9")
    append(old, line(7, [event(1)]))
    append(hour_file(tmp_path, "20260505/10"), line(8, [event(3)]))
    reader = BatchReader(tree(tmp_path), start())
    first = [reader.next(None, lambda: None), reader.next(None, lambda: None)]

    append(old, line(7, [event(2)]))
    late = reader.next(None, lambda: None)

    assert [batch.entries[0].late for batch in first if batch] == [False, False]
    assert late is not None
    assert [entry.late for entry in late.entries] == [True]
    assert events_of([late]) == [(7, 1, event(2))]
    reader.close()


def test_the_old_hour_is_let_go_when_it_will_not_grow_any_more(tmp_path: Path) -> None:
    old = hour_file(tmp_path, "20260505/9")
    append(old, line(7, [event(1)]))
    append(hour_file(tmp_path, "20260505/10"), line(8, [event(3)]))
    now = [0.0]
    walk = LineReader(tree(tmp_path), monotonic_s=lambda: now[0])
    while walk.take(10_000):
        pass
    os.utime(old, (1, 1))  # which says nothing: it may have been restored

    assert [place.file for place in walk.places] == ["20260505/9", "20260505/10"]
    now[0] += GRACE_S + 1
    assert walk.take(10_000) is None
    assert [place.file for place in walk.places] == ["20260505/10"]
    walk.close()


def test_a_partial_line_waits_for_its_end(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    whole = line(7, [event(1)])
    append(path, whole[:50])
    walk = LineReader(tree(tmp_path))
    assert walk.take(10_000) is None

    append(path, whole[50:])

    span = walk.take(10_000)
    assert span is not None
    assert span.data == whole
    walk.close()


@pytest.fixture
def no_wait(tmp_path: Path) -> None:
    """Skips where the file system cannot tell what is in memory, as tmpfs cannot."""
    path = tmp_path / "probe"
    path.write_bytes(b"x")
    source = PlainFile(path)
    try:
        source.lines_cached(0, 10)
    except BlockingIOError:
        pytest.skip("this file system does not read without waiting")
    finally:
        source.close()


@pytest.mark.usefixtures("no_wait")
def test_what_is_in_memory_is_the_same_as_what_a_thread_reads(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    data = b"".join(line(number, [event(number)]) for number in range(7, 12))
    append(path, data[:100])
    walk = LineReader(tree(tmp_path))
    assert walk.take(10_000) is None
    spans: list[RawBatch] = []
    for start in range(100, len(data), 100):
        append(path, data[start : start + 100])
        span = walk.take_cached(10_000) if spans else walk.take(10_000)
        spans += [span] if span else []

    assert b"".join(span.data for span in spans) == data
    assert [span.offset for span in spans] == [sum(map(len, data.splitlines(True)[:count])) for count in range(5)]
    assert {span.head for span in spans} == {spans[0].head}
    assert walk.take(10_000) is None
    walk.close()


@pytest.mark.usefixtures("no_wait")
def test_lines_that_appear_late_in_the_old_hour_are_told_from_memory_too(tmp_path: Path) -> None:
    old = hour_file(tmp_path, "20260505/9")
    append(old, line(7, [event(1)]))
    append(hour_file(tmp_path, "20260505/10"), line(8, [event(3)]))
    walk = LineReader(tree(tmp_path))
    while walk.take(10_000):
        pass
    append(old, line(7, [event(2)]))
    append(hour_file(tmp_path, "20260505/10"), line(8, [event(4)]))
    spans = [walk.take_cached(10_000), walk.take_cached(10_000)]
    walk.close()

    assert [(span.file, span.late) for span in spans if span] == [("20260505/9", True), ("20260505/10", False)]


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize("known", [False, True], ids=["first line", "line longer than a read"])
def test_where_more_must_be_read_than_what_comes_next_it_is_left_to_a_thread(tmp_path: Path, *, known: bool) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]) if known else b"")
    walk = LineReader(tree(tmp_path))
    walk.take(10_000)
    append(path, line(7, [event(2)]))

    with pytest.raises(BlockingIOError):
        walk.take_cached(100 if known else 10_000)
    span = walk.take(10_000)
    walk.close()

    assert span is not None
    assert span.data == line(7, [event(2)])


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EIO])
def test_where_the_system_cannot_say_at_once_it_is_left_to_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def preadv(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "file"
    path.write_bytes(b"a\n")
    source = PlainFile(path)
    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(BlockingIOError):
        source.lines_cached(0, 100)
    source.close()


def test_a_line_longer_than_a_read_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\n" + b"b" * 5000 + b"\n" + b"c\n")
    source = PlainFile(path)

    assert read_lines(source, 0, 1000) == b"a\n"
    assert read_lines(source, 2, 1000) == b"b" * 5000 + b"\n"
    assert read_lines(source, 5003, 1000) == b"c\n"
    assert read_lines(source, 0, 1000, limit=2) == b"a\n"
    assert read_lines(source, 2, 1000, limit=2) == b""
    source.close()


def test_a_line_over_the_bound_is_named_by_position_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_module, "LINE_BYTES", 10_000)
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]) + b"x" * 20_000)
    reader = BatchReader(tree(tmp_path), start())
    batches = [reader.next(None, lambda: None, 1000)]
    assert reader.next(None, lambda: None, 1000) is None

    append(path, b"\n" + line(7, [event(2)]))
    while batch := reader.next(None, lambda: None, 1000):
        batches.append(batch)
    reader.close()

    assert events_of(batch for batch in batches if batch) == [(7, 0, event(1)), (7, 1, event(2))]
    (unreadable,) = [unreadable for batch in batches if batch for unreadable in batch.unreadable]
    assert (unreadable.offset, unreadable.length_bytes) == (len(line(7, [event(1)])), 20_001)


def test_the_oversized_error_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "LINE_BYTES", 1_000)
    (tmp_path / "file").write_bytes(b"x" * 5_000 + b"\n")
    source = PlainFile(tmp_path / "file")
    with pytest.raises(OversizedLineError, match="5001 bytes at offset 0"):
        read_lines(source, 0, 100)
    source.close()


def test_a_cursor_of_another_stream_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CursorError, match="one of node_fills, this log is node_order_statuses_streaming"):
        BatchReader(tree(tmp_path), Cursor("node_fills"))


def pack(path: Path, data: bytes) -> Path:
    tools = {".gz": gzip.compress, ".lz4": lz4.frame.compress, ".zst": zstd.compress, "": bytes}
    path.write_bytes(tools[path.suffix](data))
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".lz4", ".zst"])
def test_recordings_are_read_packed_or_not_also_without_a_last_newline(tmp_path: Path, suffix: str) -> None:
    path = pack(tmp_path / f"9{suffix}", lines_of(Layout.STREAMING, BLOCKS)[:-1])
    recording = Recording([path], ORDERS, Layout.STREAMING)

    assert events_of(read_all(recording, start())) == EVENTS


@pytest.mark.parametrize("suffix", [".gz", ".lz4", ".zst"])
def test_a_recording_that_is_cut_short_is_read_to_the_cut_and_then_named(tmp_path: Path, suffix: str) -> None:
    noise = [event(number, cloid="0x" + os.urandom(16).hex()) for number in range(2000)]
    path = pack(tmp_path / f"9{suffix}", lines_of(Layout.STREAMING, [(7, noise)]))
    path.write_bytes(path.read_bytes()[:-2000])
    reader = BatchReader(Recording([path], ORDERS, Layout.STREAMING), start())
    batches: list[Batch] = []

    def read() -> None:
        while batch := reader.next(None, lambda: None):
            batches.append(batch)

    with pytest.raises(DataError, match=f"{path.name} is damaged or cut short"):
        read()
    got = [raw for _, _, raw in events_of(batches)]
    assert got == noise[: len(got)]
    assert len(got) > (0 if suffix == ".zst" else 500)  # zstd and lz4 give whole blocks of 64 KiB and more
    reader.close()


def test_an_unknown_compression_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "9.bz2").write_bytes(b"BZh91AY&SY")
    with pytest.raises(DataError, match=r"bzip2.*\.gz, \.lz4 or \.zst"):
        open_source(tmp_path / "9.bz2")


@needs_samples
def test_the_recordings_give_the_same_events_in_the_same_places() -> None:
    def read(kind: str, layout: Layout, directory: Path) -> Sequence[tuple[int | None, int, bytes]]:
        path = directory / f"node_order_statuses-{kind}.jsonl.gz"
        return events_of(read_all(Recording([path], ORDERS, layout), start(layout)))

    streaming = read("streaming-btc51", Layout.STREAMING, SAMPLES)
    by_block = read("by_block-btc51", Layout.BY_BLOCK, SAMPLES)
    plain = read("plain-btc51-thinned", Layout.PLAIN, SAMPLES)

    assert len(streaming) == 41_592
    assert streaming == by_block
    remaining = iter(raw for _, _, raw in streaming)
    assert len(plain) == 2_102
    assert all(raw in remaining for _, _, raw in plain)  # a subsequence: `in` moves the iterator on
    assert len(sample("node_order_statuses-plain-btc51-thinned.jsonl.gz").splitlines()) == 2_102


@pytest.mark.parametrize("layout", list(Layout))
def test_the_head_starts_after_the_newest_complete_line_and_knows_the_place_in_its_block(
    tmp_path: Path, layout: Layout
) -> None:
    path = hour_file(tmp_path, "20260505/9", layout)
    data = lines_of(layout, BLOCKS)
    append(path, data + b'{"cut')

    cursor = at_head(tree(tmp_path, layout))

    assert [(place.file, place.offset) for place in cursor.places] == [("20260505/9", len(data))]
    assert cursor.count == (6 if layout is Layout.PLAIN else 3)
    if layout is not Layout.PLAIN:
        assert cursor.block == 10


def test_a_block_that_began_in_the_old_hour_is_counted_from_there(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]) + line(8, [event(2)]))
    append(hour_file(tmp_path, "20260505/10"), line(8, [event(3)]))

    assert (at_head(tree(tmp_path)).block, at_head(tree(tmp_path)).count) == (8, 2)


def test_a_directory_without_files_is_read_from_the_first_that_appears(tmp_path: Path) -> None:
    cursor = at_head(tree(tmp_path))
    assert cursor.places == ()

    append(hour_file(tmp_path, "20260505/9"), lines_of(Layout.STREAMING, BLOCKS))
    assert events_of(read_all(tree(tmp_path), cursor)) == EVENTS


def test_the_backlog_is_what_lies_behind_a_cursor(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), b"x" * 100)
    append(hour_file(tmp_path, "20260505/10"), b"x" * 10)

    assert backlog(tree(tmp_path), start()).size_bytes == 110
    assert backlog(tree(tmp_path), Cursor("x", (FilePosition("20260505/9", 60),))).size_bytes == 50
    assert backlog(tree(tmp_path), Cursor("x", (FilePosition("20260505/10", 10),))).size_bytes == 0


def batches_of(tmp_path: Path, count: int) -> list[Batch]:
    path = hour_file(tmp_path, "20260505/9")
    append(path, b"")
    reader = BatchReader(tree(tmp_path), start())
    batches = []
    for number in range(count):
        append(path, line(number, [event(number)]) + line(number + 1, [event(number)]))
        batch = reader.next(None, lambda: None)
        assert batch is not None
        batches.append(batch)
    reader.close()
    return batches


def test_the_ring_is_bounded_and_numbers_its_entries(tmp_path: Path) -> None:
    batches = batches_of(tmp_path, 5)
    ring = Ring(batches[0].before, max_bytes=3 * batches[0].weight_bytes + 100)
    for batch in batches:
        ring.append(batch)

    assert ring.weight_bytes <= 3 * batches[0].weight_bytes + 100
    assert (ring.first_serial, ring.end_serial) == (4, 10)
    assert ring.at(3) is None
    assert ring.at(10) is None
    assert [ring.at(serial) for serial in range(4, 10)] == [entry for batch in batches[2:] for entry in batch.entries]
    assert (ring.start, ring.end) == (batches[2].before, batches[4].after)


def test_the_newest_batch_stays_in_the_ring_even_where_it_alone_is_too_heavy(tmp_path: Path) -> None:
    (batch,) = batches_of(tmp_path, 1)
    ring = Ring(batch.before, max_bytes=1)
    ring.append(batch)

    assert ring.at(0) is batch.entries[0]


def test_a_reader_leaves_off_exactly_where_the_ring_begins(tmp_path: Path) -> None:
    batches = batches_of(tmp_path, 5)
    log = tree(tmp_path)
    ring = Ring(batches[0].before, max_bytes=2 * batches[0].weight_bytes + 100)
    for batch in batches:
        ring.append(batch)
    everything = events_of(batches)

    for behind in [start(), *(entry.after for batch in batches for entry in batch.entries)]:
        seam = ring.boundary(behind, log.rank)
        assert seam is not None
        until, serial = seam
        reader = BatchReader(log, behind)
        read = []
        while (following := reader.next(until, lambda: None)) is not None:
            read.append(following)
        assert reader.cursor == until or read == []
        reader.close()
        from_ring = [entry for number in range(serial, ring.end_serial) if (entry := ring.at(number))]
        rest = [*events_of(read), *((e.slice.block, e.first_index, bytes(e.slice.events[0])) for e in from_ring)]
        assert rest == everything[len(everything) - len(rest) :]


def test_a_cursor_ahead_of_the_head_has_no_place_in_the_ring_yet(tmp_path: Path) -> None:
    batches = batches_of(tmp_path, 2)
    ring = Ring(batches[0].before, max_bytes=10**9)
    ring.append(batches[0])

    assert ring.boundary(batches[1].after, tree(tmp_path).rank) is None
    assert ring.boundary(batches[0].after, tree(tmp_path).rank) == (batches[0].after, 2)


def cut_in_two(root: Path, data: bytes, cut: int, layout: Layout) -> list[tuple[int | None, int, bytes]]:
    """What a reader makes of a file that grows in two steps."""
    path = hour_file(root, "20260505/9", layout)
    path.unlink(missing_ok=True)
    append(path, data[:cut])
    reader = BatchReader(tree(root, layout), start(layout))
    batches = []
    for more in (data[cut:], b""):
        while batch := reader.next(None, lambda: None):
            batches.append(batch)
        append(path, more)
    reader.close()
    return events_of(batches)


def every_cut(root: Path, data: bytes, layout: Layout) -> None:
    whole = cut_in_two(root, data, 0, layout)
    assert len(whole) > 3
    for cut in range(1, min(3_000, len(data))):
        assert cut_in_two(root, data, cut, layout) == whole, cut


@pytest.mark.parametrize("layout", [Layout.STREAMING, Layout.BY_BLOCK])
def test_wherever_the_bytes_are_cut_in_two_the_events_are_the_same(tmp_path: Path, layout: Layout) -> None:
    every_cut(tmp_path, lines_of(layout, BLOCKS), layout)


@needs_samples
def test_wherever_a_recording_is_cut_in_two_the_events_are_the_same(tmp_path: Path) -> None:
    data = sample("node_order_statuses-streaming-btc51.jsonl.gz")
    every_cut(tmp_path, data[: data.index(b"\n", 6_000) + 1], Layout.STREAMING)
    some = data[: data.index(b"\n", 600_000) + 1]
    whole = cut_in_two(tmp_path, some, 0, Layout.STREAMING)
    for cut in range(3_001, len(some), 29_989):
        assert cut_in_two(tmp_path, some, cut, Layout.STREAMING) == whole, cut
