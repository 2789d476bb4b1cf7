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
from test_replay import Run, oids, replay  # noqa: F401  a fixture

from hyperwatch.errors import DataError
from hyperwatch.log.compressed import open_source, zstd
from hyperwatch.log.recordings import find_recording
from hyperwatch.log.scan import hour_of
from support import event, line

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
def test_a_day_of_24_hours_is_replayed_whole_and_in_order(replay: Run, tmp_path: Path, spelled: str, day: str) -> None:  # noqa: F811  the fixture
    for hour in range(24):
        path = tmp_path / STREAM / spelled.format(day=day, hour=hour)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = line(100 + hour, [event(hour)])
        path.write_bytes(lz4.frame.compress(data) if path.suffix == ".lz4" else data)
    ended = replay(tmp_path)
    assert (ended.code, oids(ended.out)) == (0, list(range(24)))
    assert "left out" not in ended.err


def test_what_of_a_tree_is_left_out_is_said_with_the_reason(replay: Run, tmp_path: Path) -> None:  # noqa: F811  the fixture
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
def test_a_packed_file_is_told_by_its_first_bytes(replay: Run, tmp_path: Path, how: str) -> None:  # noqa: F811  the fixture
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


def test_an_unfinished_last_line_is_said_as_such_and_is_no_unreadable_one(replay: Run, tmp_path: Path) -> None:  # noqa: F811  the fixture
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
