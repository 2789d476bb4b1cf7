"""Recordings as people keep them: every sensible spelling of an hour, every way of packing, files that are still written."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import lz4.block  # type: ignore[import-untyped]  # ships no types
import lz4.frame  # type: ignore[import-untyped]  # as above
import pytest
from loguru import logger

from hyperwatch.errors import DataError
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.discover import find_recording, find_tree
from hyperwatch.log.identify import hour_of
from hyperwatch.log.packed_file import open_source, zstd
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Recording, read_lines
from hyperwatch.node.streams import ORDERS, Layout
from replaying import Run, oids
from support import TIME, event, line

STREAM = "node_order_statuses_streaming/hourly"
SKIPPED = struct.pack("<II", 0x184D2A50, 4) + b"skip"


@pytest.mark.parametrize(
    ("path", "hour"),
    [
        ("20260505/9", "20260505/9"),
        ("20260505/09", "20260505/9"),
        ("20260505/00", "20260505/0"),
        ("20260505/09.lz4", "20260505/9"),
        ("20260505/09.jsonl.zst", "20260505/9"),
        ("2026-05-05/23.gz", "20260505/23"),
        ("date=2026-05-05/hour=09", "20260505/9"),
        ("date=2026-05-05/hour=9.lz4", "20260505/9"),
        ("date=20260505/hour=09/part-0.jsonl", "20260505/9"),
        ("x/2026-05-05T09.zst", "20260505/9"),
        ("x/20260505_17", "20260505/17"),
        ("20260505/24", None),
        ("20261305/9", None),
        ("20260505/9.part", None),
        ("x/9", None),
        ("20260505/9/notes.txt", None),
    ],
)
def test_an_hour_is_told_by_any_sensible_name(path: str, hour: str | None) -> None:
    assert hour_of(Path("/recordings") / path) == hour


@pytest.mark.parametrize(
    "spelled", ["{day}/{hour:02}", "{day}/{hour}", "date={day}/hour={hour:02}.jsonl", "{day}/{hour:02}.lz4"]
)
@pytest.mark.parametrize("day", ["20260505", "2026-05-05"])
def test_a_day_of_24_hours_is_replayed_whole_and_in_order(replay: Run, tmp_path: Path, spelled: str, day: str) -> None:
    for hour in range(24):
        path = tmp_path / STREAM / spelled.format(day=day, hour=hour)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = line(100 + hour, [event(hour)])
        path.write_bytes(lz4.frame.compress(data) if path.suffix == ".lz4" else data)
    ended = replay(tmp_path)
    assert (ended.code, oids(ended.out)) == (0, list(range(24)))
    assert "left out" not in ended.err


def test_what_of_a_tree_is_left_out_is_said_with_the_reason(replay: Run, tmp_path: Path) -> None:
    day = tmp_path / STREAM / "20260505"
    day.mkdir(parents=True)
    (day / "17").write_bytes(line(1, [event(1)]))
    for number in range(8):
        (day / f"17.copy{number}").write_bytes(b"x\n")
    ended = replay(tmp_path)
    assert oids(ended.out) == [1]
    assert "8 files in" in ended.err
    assert ended.err.count("(not called by an hour)") == 5
    assert "and 3 more" in ended.err


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "pzstd": lambda data: SKIPPED + zstd.compress(data),
    "several skippable frames": lambda data: SKIPPED * 3 + zstd.compress(data),
    "lz4 behind a skippable frame": lambda data: SKIPPED + lz4.frame.compress(data),
    "an empty frame first": lambda data: zstd.compress(b"") + zstd.compress(data),
    "members": lambda data: gzip.compress(data[:300]) + gzip.compress(data[300:]),
    "frames": lambda data: zstd.compress(data[:300]) + zstd.compress(data[300:]),
    "a window of 2 GiB": lambda data: zstd.compress(
        data,
        options={zstd.CompressionParameter.window_log: 31, zstd.CompressionParameter.enable_long_distance_matching: 1},
    ),
}


@pytest.mark.parametrize("how", PACKED)
def test_a_packed_file_is_told_by_its_first_bytes(replay: Run, tmp_path: Path, how: str) -> None:
    path = tmp_path / "recording"
    path.write_bytes(PACKED[how](b"".join(line(number, [event(number)]) for number in range(4))))
    ended = replay(path)
    assert (ended.code, oids(ended.out)) == (0, [0, 1, 2, 3]), ended.err


def test_a_packed_file_that_cannot_be_read_is_one_line_that_says_why(tmp_path: Path) -> None:
    data = line(1, [event(1)])
    block = lz4.block.compress(data, store_size=False)
    refused = {
        "lz4 in its legacy format": struct.pack("<II", 0x184C2102, len(block)) + block,
        "packed twice": gzip.compress(zstd.compress(data)),
        "compressed as xz": b"\xfd7zXZ\x00" + bytes(20),
    }
    for says, packed in refused.items():
        path = tmp_path / "recording"
        path.write_bytes(packed)
        with pytest.raises(DataError, match=says):
            open_source(path)


def test_a_file_that_is_still_written_is_read_by_whole_lines_to_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    lines = [line(number, [event(number)]) for number in range(6)]
    path.write_bytes(b"".join(lines[:3]) + lines[3][:100])
    source = open_source(path)
    first = source.read(0, 2**20)
    with path.open("ab") as file:
        file.write(lines[3][100:] + lines[4])
    assert first == b"".join(lines[:3])
    assert source.read(len(first), 2**20) == b"", "its end was reached"
    assert source.unfinished_bytes == 100
    source.close()
    path.write_bytes(b"".join(lines[:3])[:-1])
    source = open_source(path)
    assert source.read(0, 2**20) == b"".join(lines[:3]), "whole but for its newline"
    assert source.unfinished_bytes == 0
    source.close()


def test_an_unfinished_last_line_is_said_as_such_and_is_no_unreadable_one(replay: Run, tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(line(1, [event(1)]) + line(2, [event(2)])[:70])
    ended = replay(path)
    assert (ended.code, oids(ended.out)) == (0, [1])
    assert "ends within a line, 70 bytes of which are there" in ended.err
    assert "0 unreadable lines" in ended.err


@pytest.mark.skipif(os.getuid() == 0, reason="root may list every directory")
def test_a_directory_that_may_not_be_listed_is_passed_over_unless_it_may_hold_hours(tmp_path: Path) -> None:
    path = tmp_path / STREAM / "20260505" / "17"
    path.parent.mkdir(parents=True)
    path.write_bytes(line(1, [event(1)]))
    lost = tmp_path / "lost+found"
    lost.mkdir(mode=0o000)
    assert [found.name for found in find_recording([tmp_path]).paths] == ["17"]
    (tmp_path / STREAM / "20260506").mkdir(mode=0o000)
    with pytest.raises(DataError, match="20260506 cannot be read"):
        find_recording([tmp_path])


def test_a_directory_whose_listing_fails_is_judged_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / STREAM / "20260505" / "17"
    path.parent.mkdir(parents=True)
    path.write_bytes(line(1, [event(1)]))
    denied: set[str] = set()
    listing = os.scandir

    def scandir(where: str) -> object:
        if Path(where).name in denied:
            raise PermissionError(13, "Permission denied", str(where))
        return listing(where)

    monkeypatch.setattr(os, "scandir", scandir)
    (tmp_path / "lost+found").mkdir()
    denied.add("lost+found")
    assert [found.name for found in find_recording([tmp_path]).paths] == ["17"]
    denied.add("20260505")
    with pytest.raises(DataError, match="20260505 cannot be read"):
        find_recording([tmp_path])


def test_every_part_of_an_hour_that_is_a_directory_is_replayed(replay: Run, tmp_path: Path) -> None:
    hour = tmp_path / STREAM / "date=2026-05-05" / "hour=09"
    hour.mkdir(parents=True)
    for name, number in (("part-10", 3), ("part-2", 2), ("part-1", 1)):
        began = b"2026-05-05T09:00:0%d.000000000" % number
        (hour / f"{name}.jsonl").write_bytes(line(number, [event(number)]).replace(TIME.encode(), began))
    (hour / "part-2.jsonl.gz").write_bytes(gzip.compress((hour / "part-2.jsonl").read_bytes()))
    ended = replay(tmp_path)
    assert (ended.code, oids(ended.out)) == (0, [1, 2, 3])
    assert "part-2.jsonl is read" in ended.err, "a part and its packed copy are the same lines"


@pytest.mark.parametrize("ending", [".ndjson", ".log", ".txt", ".ndjson.gz", ".jsonl.zstd"])
def test_an_hour_file_may_have_any_ending_that_text_has(ending: str) -> None:
    assert hour_of(Path(f"/recordings/20260505/09{ending}")) == "20260505/9"


@pytest.mark.parametrize("contents", [b"\x80\x90" * 2000, bytes(4000)], ids=["binary", "zeros"])
def test_what_is_no_line_at_all_is_unreadable_and_not_unfinished(replay: Run, tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / STREAM / "20260505" / "9"
    path.parent.mkdir(parents=True)
    path.write_bytes(contents)
    ended = replay(tmp_path)
    assert ended.code == 2
    assert "1 of 1 lines cannot be read" in ended.err


@pytest.mark.parametrize("frames", [1, 40])
def test_a_file_of_frames_that_decoders_skip_holds_nothing(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "recording"
    path.write_bytes(SKIPPED * frames)
    source = open_source(path)
    assert source.read(0, 100) == b""
    assert source.unfinished_bytes == 0
    source.close()


def test_many_skippable_frames_come_before_a_packed_file_as_one_does(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    for pack in (zstd.compress, lz4.frame.compress):
        path.write_bytes(SKIPPED * 200 + pack(b"{}\n"))
        source = open_source(path)
        assert source.read(0, 100) == b"{}\n"
        source.close()


def test_a_file_that_is_packed_twice_is_said_to_be_also_where_the_inner_one_begins_with_a_skippable_frame(
    tmp_path: Path,
) -> None:
    path = tmp_path / "recording"
    path.write_bytes(gzip.compress(SKIPPED + zstd.compress(b"{}\n")))
    with pytest.raises(DataError, match="packed twice"):
        open_source(path)


def test_an_unfinished_line_is_said_also_where_a_read_begins_with_it(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    lines = [line(number, [event(number)]) for number in range(4)]
    whole = b"".join(lines[:3])
    path.write_bytes(whole + lines[3][:300])
    source = open_source(path)
    assert read_lines(source, 0, len(whole) + 10) == whole
    assert read_lines(source, len(whole), len(whole)) == b""
    assert source.unfinished_bytes == 300
    with path.open("ab") as file:
        file.write(lines[3][300:])
    assert read_lines(source, len(whole), len(whole)) == b"", "its end was reached"
    source.close()


def test_what_is_called_as_an_hour_and_is_no_file_is_said(replay: Run, tmp_path: Path) -> None:
    day = tmp_path / STREAM / "20260505"
    day.mkdir(parents=True)
    (day / "9").write_bytes(line(1, [event(1)]))
    (day / "10").symlink_to("nowhere")
    (day / "11").symlink_to("11")
    (day / "up").symlink_to("..")
    os.mkfifo(day / "12")
    ended = replay(tmp_path)
    assert (ended.code, oids(ended.out)) == (0, [1])
    for left in ("10 (a link to nowhere)", "11 (a link to itself)", "12 (not a regular file)"):
        assert left in ended.err


def test_a_day_that_is_pruned_while_a_tree_is_looked_through_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / STREAM / "20260506" / "17"
    path.parent.mkdir(parents=True)
    path.write_bytes(line(1, [event(1)]))
    (tmp_path / STREAM / "20260505").mkdir()
    listing = os.scandir

    def scandir(where: str) -> object:
        if Path(where).name == "20260505":
            Path(where).rmdir()
        return listing(where)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [found.name for found in find_recording([tmp_path]).paths] == ["17"]


def test_a_name_that_is_no_utf_8_has_cursors_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.jsonl")
    path.write_bytes(line(1, [event(1)]) + line(2, [event(2)]))
    recording = Recording([path], ORDERS, Layout.STREAMING)
    reader = BatchReader(recording, Cursor(ORDERS.directory(Layout.STREAMING)))
    assert reader.next(None, lambda: None, len(line(1, [event(1)]))) is not None
    again = BatchReader(recording, Cursor.decode(reader.cursor.encode()))
    rest = again.next(None, lambda: None)
    assert rest is not None
    assert [entry.slice.block for entry in rest.entries] == [2]
    assert again.gap is None
    reader.close()
    again.close()


def test_hours_of_a_live_tree_that_no_node_names_so_are_said(tmp_path: Path) -> None:
    day = tmp_path / STREAM / "20260505"
    day.mkdir(parents=True)
    for name in ("9", "08", "7.lz4", "10.part"):
        (day / name).write_bytes(line(1, [event(1)]))
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    try:
        tree = find_tree(tmp_path)
    finally:
        logger.remove(sink)
    assert tree.names() == ["20260505/9"]
    assert len(said) == 1
    assert "2 hour files in" in said[0]
    assert "20260505/08, 20260505/7.lz4" in said[0]
