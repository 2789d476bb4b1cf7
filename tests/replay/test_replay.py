"""`hyperwatch replay`: recorded files, to standard output and as the feed."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lz4.frame  # type: ignore[import-untyped]  # ships no types
import msgspec
import pytest
import trio
import trio_websocket
from loguru import logger

from hyperwatch.cli.main import _exit_code
from hyperwatch.config import Address
from hyperwatch.ingest.watcher import DirectoryWatcher
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.packed_file import zstd
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Recording, Tree
from hyperwatch.node.streams import FILLS, ORDERS, Layout, Stream
from hyperwatch.replay import to_stdout
from hyperwatch.replay.formats import OutputFormat, Piece, Selection
from hyperwatch.replay.pacing import Pace
from hyperwatch.replay.plan import Job, Report
from hyperwatch.replay.playback import TolerantRecording
from hyperwatch.replay.range import Bound, Bounds
from hyperwatch.replay.session import Settings, _prepare
from hyperwatch.replay.to_feed import Gate, broadcast
from hyperwatch.replay.to_stdout import play
from hyperwatch.simulate.hour_files import simulate
from replaying import Run, oids
from support import (
    SAMPLES,
    TIME,
    TIME_MS,
    Client,
    append,
    connected,
    event,
    fill,
    hour_file,
    line,
    lines_of,
    needs_samples,
)

HOUR = "20260505/17"
BLOCK_MS = 67
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".lz4": lz4.frame.compress,
    ".zst": zstd.compress,
}


@pytest.fixture(autouse=True)
def _no_sinks() -> Iterator[None]:
    yield
    logger.remove()  # the command's own writes to a standard error that is gone


def stamp(number: int) -> str:
    """The time of a block: 67 ms after the one before, block 0 at TIME."""
    return f"{datetime.fromtimestamp((TIME_MS + number * BLOCK_MS) / 1000, UTC):%Y-%m-%dT%H:%M:%S.%f}"


def block_line(number: int, events: list[bytes]) -> bytes:
    return line(number, events).replace(f'"block_time":"{TIME}"'.encode(), f'"block_time":"{stamp(number)}"'.encode())


def timed(count: int, layout: Layout = Layout.STREAMING) -> bytes:
    """A file of `count` blocks of two events, the first of them BTC's."""
    pairs = [[event(number * 2), event(number * 2 + 1, coin="xyz:SP500", status="filled")] for number in range(count)]
    if layout is Layout.BY_BLOCK:
        return b"".join(block_line(number, pair) for number, pair in enumerate(pairs))
    return b"".join(block_line(number, [each]) for number, pair in enumerate(pairs) for each in pair)


def made(root: Path, *layouts: Layout, blocks: int = 40, start: str = "2026-05-05T08:59:58") -> None:
    """A data directory of all streams, from before nine to after it."""
    start_ns = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()) * 10**9
    simulate(root, layouts=layouts, rate=600, blocks=blocks, start_ns=start_ns, clock=lambda: 0.0, sleep=lambda _: None)


def events_in(root: Path, layout: Layout, stream: Stream = ORDERS) -> list[bytes]:
    files = sorted((root / stream.directory(layout) / "hourly").glob("*/*"), key=lambda path: int(path.name))
    raw = [each for file in files for each in file.read_bytes().splitlines()]
    if layout is Layout.PLAIN:
        return raw
    return [bytes(each) for text in raw for each in msgspec.json.decode(text, type=_Line).events]


class _Line(msgspec.Struct):
    events: list[msgspec.Raw]


# What goes out.


@needs_samples
@pytest.mark.parametrize("layout", ["streaming", "by_block"])
def test_a_real_recording_gives_the_nodes_own_events_byte_for_byte_in_order(replay: Run, layout: str) -> None:
    path = SAMPLES / f"node_order_statuses-{layout}-btc51.jsonl.gz"
    ended = replay(path, "--to", "stdout")

    texts = gzip.decompress(path.read_bytes()).splitlines()
    expected = [bytes(each) for text in texts for each in msgspec.json.decode(text, type=_Line).events]
    assert len(expected) == 41_592
    assert ended.lines == expected
    assert ended.code == 0


@needs_samples
@pytest.mark.parametrize("layout", ["streaming", "by_block"])
def test_lines_of_a_real_recording_are_the_file_itself(replay: Run, layout: str) -> None:
    path = SAMPLES / f"node_order_statuses-{layout}-btc51.jsonl.gz"
    assert replay(path, "--format", "lines").out == gzip.decompress(path.read_bytes())


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("layout", Layout, ids=lambda layout: layout.label)
def test_events_are_the_same_in_every_layout_however_packed(
    replay: Run, tmp_path: Path, layout: Layout, ending: str
) -> None:
    blocks = [(number, [event(number * 3 + each) for each in range(3)]) for number in range(20)]
    path = tmp_path / "recording"  # told by its first bytes, not by its name
    path.write_bytes(PACK[ending](lines_of(layout, blocks)))

    assert replay(path).lines == [each for _, events in blocks for each in events]


@pytest.mark.parametrize("stream", [ORDERS, FILLS], ids=lambda stream: stream.name)
@pytest.mark.parametrize("layout", Layout, ids=lambda layout: layout.label)
def test_a_data_directory_is_played_across_hours(replay: Run, tmp_path: Path, layout: Layout, stream: Stream) -> None:
    made(tmp_path, layout)
    ended = replay(tmp_path, "--stream", stream.name)

    assert len(ended.lines) > 20
    assert ended.lines == events_in(tmp_path, layout, stream)
    assert "replayed 2 files: " in ended.err


def test_lines_with_a_filter_are_whole_envelopes_that_hold_a_wanted_event(replay: Run, tmp_path: Path) -> None:
    path = tmp_path / "one"
    slices = [block_line(1, [event(1), event(2, coin="ETH")]), block_line(1, [event(3)]), block_line(1, [])]
    path.write_bytes(b"".join(slices))
    settings = ("--format", "lines", "--layout", "streaming")
    path.with_name("two").write_bytes(block_line(0, [event(9)]) * 3)  # makes the folder's layout streaming

    assert replay(path, "--format", "lines", "--coin", "ETH").out == slices[0]
    assert replay(path, "--format", "lines", "--coin", "BTC").out == slices[0] + slices[1]
    assert replay(path, "--format", "lines").out == b"".join(slices)
    assert replay(path.with_name("two"), *settings, "--coin", "ETH").out == b""


@pytest.mark.parametrize("layout", [Layout.STREAMING, Layout.BY_BLOCK], ids=lambda layout: layout.label)
def test_a_line_of_several_runs_is_one_line_again(replay: Run, tmp_path: Path, layout: Layout) -> None:
    """600 KB are more than one message may hold, and are decoded as two runs; the slice behind joins the second."""
    big = [event(number, coin="ETH" if number == 0 else "BTC") for number in range(1500)]
    path = hour_file(tmp_path, HOUR, layout)
    behind = 1 if layout is Layout.STREAMING else 2  # a second by-block line of a block would be a repeat
    path.write_bytes(line(1, big) + line(behind, [event(1500)]) + line(3, [event(1501, coin="ETH")]))

    assert oids(replay(path).out) == list(range(1502))
    assert replay(path, "--format", "lines").out == path.read_bytes()
    assert replay(path, "--format", "lines", "--coin", "ETH").out == line(1, big) + line(3, [event(1501, coin="ETH")])
    flat = [json.loads(each) for each in replay(path, "--format", "flat").lines]
    assert [each["event"]["order"]["oid"] for each in flat] == list(range(1502))


def test_flat_objects_name_stream_block_times_and_place(replay: Run, tmp_path: Path) -> None:
    path = hour_file(tmp_path, HOUR)
    later = line(7, [event(2)]).replace(b"13.5", b"13.75")
    path.write_bytes(line(7, [event(1)]) + later)

    first, second = replay(path, "--format", "flat").lines
    assert first == (
        b'{"stream":"node_order_statuses","block_number":7,"block_time":"%s","local_time":"2026-05-05T17:39:13.5",'
        b'"index":0,"event":%s}' % (TIME.encode(), event(1))
    )
    assert json.loads(second)["local_time"] == "2026-05-05T17:39:13.75"
    assert json.loads(second)["index"] == 1


def test_flat_objects_hold_null_for_what_the_plain_layout_lacks(replay: Run, tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(event(1) + b"\n")
    flat = json.loads(replay(path, "--format", "flat").out)
    assert flat == {
        "stream": "node_order_statuses",
        "block_number": None,
        "block_time": None,
        "local_time": None,
        "index": 0,
        "event": json.loads(event(1)),
    }


def test_flat_places_agree_between_the_layouts(replay: Run, tmp_path: Path) -> None:
    made(tmp_path, Layout.STREAMING, Layout.BY_BLOCK)
    there = [
        [
            {key: value for key, value in json.loads(each).items() if key != "local_time"}
            for each in replay(tmp_path, "--format", "flat", "--layout", layout).lines
        ]
        for layout in ("streaming", "by-block")
    ]
    assert len(there[0]) > 100
    assert there[0] == there[1]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--coin", "BTC"], [0, 2, 4]),
        (["--coin", "xyz:*"], [1, 3, 5]),
        (["--coin", "ETH", "--coin", "BTC"], [0, 2, 4]),
        (["--status", "filled"], [1, 3, 5]),
        (["--status", "live"], [0, 2, 4]),
        (["--status", "live", "--coin", "xyz:*"], []),
        (["--user", "0x" + "AB" * 20], [0, 1, 2, 3, 4, 5]),
        (["--user", "0x" + "00" * 20], []),
    ],
    ids=lambda value: " ".join(map(str, value)) or "none",
)
def test_filters_leave_what_matches_all_of_them(
    replay: Run, tmp_path: Path, words: list[str], wanted: list[int]
) -> None:
    path = tmp_path / "recording"
    path.write_bytes(timed(3))
    assert oids(replay(path, *words).out) == wanted


def test_fills_are_filtered_by_coin_and_user(replay: Run, tmp_path: Path) -> None:
    made(tmp_path, Layout.BY_BLOCK)
    fills = events_in(tmp_path, Layout.BY_BLOCK, FILLS)
    user, fill = json.loads(fills[0])
    ended = replay(tmp_path, "--stream", "node_fills", "--coin", fill["coin"], "--user", user)
    assert ended.lines == [
        each for each in fills if (json.loads(each)[0], json.loads(each)[1]["coin"]) == (user, fill["coin"])
    ]
    assert 0 < len(ended.lines) < len(fills)


# From where to where.


@pytest.mark.parametrize("layout", [Layout.STREAMING, Layout.BY_BLOCK], ids=lambda layout: layout.label)
@pytest.mark.parametrize(
    ("words", "blocks"),
    [
        (["--from", "block:4", "--until", "block:6"], [4, 5]),
        (["--from", str(TIME_MS + 8 * BLOCK_MS)], [8, 9]),
        (["--until", stamp(2)], [0, 1]),
        (["--until", stamp(2) + "Z"], [0, 1]),
        (["--from", stamp(8), "--until", "2100-01-01"], [8, 9]),
        (["--from", "block:3", "--until", stamp(4)], [3]),
        (["--from", "block:10"], []),
    ],
    ids=lambda value: " ".join(map(str, value)) or "none",
)
def test_from_is_inside_and_until_is_not(
    replay: Run, tmp_path: Path, layout: Layout, words: list[str], blocks: list[int]
) -> None:
    path = tmp_path / "recording"
    path.write_bytes(timed(10, layout))
    wanted = [oid for number in blocks for oid in (2 * number, 2 * number + 1)]
    assert oids(replay(path, *words).out) == wanted


@pytest.mark.parametrize(
    ("first", "early"),
    [
        ("2026-05-05T18:59:59.999", 0),  # the hour is 17, its end 18, and an hour is the margin
        ("2026-05-05T19:00:00", 1),
        ("2026-05-05T20:00:00", 2),
        ("block:5", 0),
    ],
)
def test_only_hours_that_ended_an_hour_before_from_are_left_out(first: str, early: int) -> None:
    hours = ["20260505/17", "20260505/18", None, "20260505/0"]
    assert Bounds(first=Bound.parse(first)).too_early(hours) == early


def test_files_behind_until_are_not_read(replay: Run, tmp_path: Path) -> None:
    for number, hour in enumerate(("17", "18", "19")):
        hour_file(tmp_path, f"20260505/{hour}").write_bytes(block_line(number, [event(number)]))
    ended = replay(tmp_path, "--until", "block:1")
    assert oids(ended.out) == [0]
    assert "replayed 2 files" in ended.err  # the second one says that it is behind


def test_a_restart_only_repeats_and_is_not_taken_for_more(replay: Run, tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(b"".join(block_line(number, [event(number)]) for number in (1, 2, 3, 4, 2, 3, 4, 5)))
    assert oids(replay(path, "--until", "block:4").out) == [1, 2, 3]


# Which files.


@pytest.mark.parametrize("where", ["", "{stream}", "{stream}/hourly", "{stream}/hourly/20260505"])
def test_any_directory_of_a_tree_is_played(replay: Run, tmp_path: Path, where: str) -> None:
    made(tmp_path, Layout.STREAMING)
    directory = tmp_path / where.format(stream=ORDERS.directory(Layout.STREAMING))
    assert replay(directory).lines == events_in(tmp_path, Layout.STREAMING)


def test_hours_without_padding_are_in_time_order(replay: Run, tmp_path: Path) -> None:
    names = ["20260505/2", "20260505/10", "20260505/9", "20260506/1"]
    for name in names:
        hour_file(tmp_path, name).write_bytes(line(1, [event(int(name.replace("/", "")))]))
    assert oids(replay(tmp_path).out) == [202605052, 202605059, 2026050510, 202605061]


def test_files_without_an_hour_are_in_the_order_of_their_first_lines(replay: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(block_line(5, [event(5)]))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"torn\n" + block_line(2, [event(2)])))
    assert oids(replay(tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz").out) == [2, 5]


def test_an_hour_that_is_there_plain_and_packed_is_read_once(replay: Run, tmp_path: Path) -> None:
    path = hour_file(tmp_path, HOUR)
    path.write_bytes(line(1, [event(1)]))
    path.with_name("17.lz4").write_bytes(lz4.frame.compress(line(1, [event(1)])))
    ended = replay(tmp_path)
    assert oids(ended.out) == [1]
    assert f"hour {HOUR} is there twice: {path} is read, {path}.lz4 is not" in ended.err


def test_a_file_named_twice_is_read_once(replay: Run, tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(line(1, [event(1)]))
    assert oids(replay(path, tmp_path, path).out) == [1]


def test_the_layout_with_the_newest_data_is_read_and_the_other_named(replay: Run, tmp_path: Path) -> None:
    for number, layout in enumerate((Layout.BY_BLOCK, Layout.STREAMING)):
        path = hour_file(tmp_path, HOUR, layout)
        path.write_bytes(line(1, [event(number)]))
        os.utime(path, (1000 - number, 1000 - number))
    ended = replay(tmp_path)
    assert oids(ended.out) == [0]
    assert "not read: 1 files of the layout streaming; --layout streaming reads them" in ended.err
    assert oids(replay(tmp_path, "--layout", "streaming").out) == [1]


def test_what_is_no_node_output_in_a_directory_is_passed_over(replay: Run, tmp_path: Path) -> None:
    hour_file(tmp_path, HOUR).write_bytes(line(1, [event(1)]))
    hour_file(tmp_path, "20260505/17.part").write_bytes(line(1, [event(2)]))
    (tmp_path / "notes.txt").write_text("hello\n")
    (tmp_path / "empty").touch()
    (tmp_path / "node_twap_statuses_by_block").mkdir()
    (tmp_path / "node_twap_statuses_by_block" / "17").write_bytes(line(1, []))
    os.mkfifo(tmp_path / "pipe")
    ended = replay(tmp_path, "--log-level", "DEBUG")
    assert oids(ended.out) == [1]
    for left in ("notes.txt (no node output)", "empty (no node output)", "17.part (not called by an hour)"):
        assert left in ended.err


def test_a_file_without_any_event_needs_its_stream_named(replay: Run, tmp_path: Path) -> None:
    path = tmp_path / "quiet"
    path.write_bytes(line(1, []) + line(2, []))
    ended = replay(path, "--format", "lines")
    assert ended.code == 2
    assert "holds no event that would tell its stream: name it with --stream" in ended.err
    assert replay(path, "--format", "lines", "--stream", "node_fills").out == path.read_bytes()


def test_several_streams_without_order_statuses_are_listed(replay: Run, tmp_path: Path) -> None:
    made(tmp_path, Layout.STREAMING)
    (tmp_path / ORDERS.directory(Layout.STREAMING)).rename(tmp_path / "node_trades")
    ended = replay(tmp_path)
    assert (ended.code, ended.out) == (2, b"")
    assert "holds node_fills and node_raw_book_diffs: choose one with --stream" in ended.err


# What is wrong.


def test_everything_before_the_damage_of_a_packed_file_goes_out_then_the_error(replay: Run, tmp_path: Path) -> None:
    path = tmp_path / "recording.gz"
    events = [event(number, user=f"0x{number * 7919 % 2**31:040x}") for number in range(3000)]
    whole = gzip.compress(b"".join(line(1, [each]) for each in events))
    path.write_bytes(whole[: len(whole) // 2])
    ended = replay(path)
    assert ended.code == 2
    assert 500 < len(ended.lines) < 3000
    assert ended.lines == events[: len(ended.lines)]
    assert ended.err.splitlines()[-1].startswith(f"hyperwatch: {path} is damaged or cut short near byte ")


def test_nothing_after_a_damaged_hour_is_played_as_if_it_followed(replay: Run, tmp_path: Path) -> None:
    hour_file(tmp_path, "20260505/17.gz").write_bytes(gzip.compress(line(1, [event(1)]))[:-9])
    hour_file(tmp_path, "20260505/18.gz").write_bytes(gzip.compress(line(2, [event(2)])))
    ended = replay(tmp_path)
    assert (ended.code, oids(ended.out)) == (2, [1])


def test_events_of_unknown_kind_are_replayed_and_no_filter_leaves_them_out_without_a_word(
    replay: Run, tmp_path: Path
) -> None:
    path = tmp_path / "recording"
    path.write_bytes(line(1, [event(1)]) + line(1, [b'{"account":"0x"}']) + line(2, [event(2)]))

    assert b'{"account":"0x"}' in replay(path).out
    filtered = replay(path, "--coin", "BTC")
    assert oids(filtered.out) == [1, 2]
    assert "3 events read, 1 of an unknown kind, 2 written, 0 unreadable lines" in filtered.err


def test_lines_that_cannot_be_read_are_named_counted_and_stop_nothing(replay: Run, tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(line(1, [event(1)]) + b"{torn\n" * 7 + line(1, [event(2)]))
    ended = replay(path)
    assert (ended.code, oids(ended.out)) == (2, [1, 2]), "most of it could not be read: that is no success"
    assert "7 of 9 lines cannot be read: see whether these are a node's files" in ended.err
    assert ended.err.count("unreadable: 6 bytes of ") == 5
    assert f"{path} at offset {len(line(1, [event(1)]))}: " in ended.err
    assert "9 lines, 2 events read, 2 written, 7 unreadable lines" in ended.err
    assert replay(path, "--format", "lines").out == line(1, [event(1)]) + line(1, [event(2)])


@pytest.mark.parametrize("layout", [Layout.STREAMING, Layout.BY_BLOCK], ids=lambda layout: layout.label)
def test_a_whole_line_behind_a_torn_one_goes_out_in_every_format(replay: Run, tmp_path: Path, layout: Layout) -> None:
    path = hour_file(tmp_path, HOUR, layout)
    lines = [line(number, [event(number)]) for number in range(5)]
    path.write_bytes(b"".join([lines[0], lines[1][:60], *lines[2:]]))

    assert oids(replay(path).out) == [0, 2, 3, 4]
    assert replay(path, "--format", "lines").out == b"".join([lines[0], *lines[2:]])
    assert [json.loads(each)["event"] for each in replay(path, "--format", "flat").lines] == [
        json.loads(event(number)) for number in (0, 2, 3, 4)
    ]
    assert replay(path, "--format", "lines", "--user", "0x" + "0" * 40).out == b""


def test_a_fault_of_our_own_is_never_a_quiet_end(replay: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FaultError(Exception):
        pass

    def wrong(*_: object) -> Callable[..., list[Piece]]:
        def fails(*_: object) -> list[Piece]:
            raise FaultError

        return fails

    monkeypatch.setattr(to_stdout, "formatter", wrong)
    path = tmp_path / "recording"
    path.write_bytes(timed(2))

    with pytest.RaisesGroup(FaultError, flatten_subgroups=True):
        replay(path)


def test_a_last_line_without_an_end_counts(replay: Run, tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(timed(2)[:-1])
    assert oids(replay(path).out) == [0, 1, 2, 3]
    assert replay(path, "--format", "lines").out == timed(2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{tmp}/missing"], "{tmp}/missing does not exist: give a recorded file"),
        (["{tmp}/empty"], "{tmp}/empty is empty: give a recorded file"),
        (["{tmp}/pipe"], "{tmp}/pipe is not a regular file: "),
        (["{tmp}/notes"], "{tmp}/notes is no output of a node that is known: "),
        (["{tmp}/packed.bz2"], "{tmp}/packed.bz2 is compressed as bzip2: unpack it"),
        (["{tmp}/bare"], "no node output in {tmp}/bare: "),
        ([], "Missing argument 'PATH...'"),
        (["{tmp}/good", "--stream", "node_fills"], "holds no node_fills: what is there: node_order_statuses"),
        (["{tmp}/good", "--layout", "plain"], "holds no plain node_order_statuses: what is there: streaming"),
        (["{tmp}/good", "--speed", "0"], "'0' is neither max nor a factor of recorded time; write max, 1 or 10"),
        (["{tmp}/good", "--speed", "nan"], "'nan' is neither max"),
        (["{tmp}/good", "--from", "yesterday"], "'yesterday' is no place; write 2026-05-05T17:39:13Z (UTC)"),
        (["{tmp}/good", "--until", "1778002753"], "'1778002753' is not ms since 1970, which has 13 digits"),
        (["{tmp}/good", "--from", "block:9", "--until", "block:9"], "nothing lies between --from block:9 and --until"),
        (
            ["{tmp}/plain", "--from", "block:9"],
            "--from block:9: the plain layout carries no block numbers: give a time",
        ),
        (["{tmp}/good", "--coin", "B*"], "--coin: 'B*' is no coin: a star stands alone"),
        (["{tmp}/good", "--user", "0x12"], "--user: '0x12' is no address"),
        (["{tmp}/good", "--min-px", "1e5"], "--min-px: minPx '1e5' is no decimal: digits are, up to 40 on either side"),
        (["{tmp}/good", "--max-px="], "--max-px: maxPx '' is no decimal: digits are"),
        (
            ["{tmp}/good", "--min-px", "2", "--max-px", "1"],
            "--min-px with --max-px: minPx 2 is above maxPx 1: no price",
        ),
        (["{tmp}/good", "--oid", "-1"], "--oid: -1 is no oid: whole numbers from 0 to 2^64 - 1 are: write"),
        (["{tmp}/good", "--cloid", "0x12"], "--cloid: '0x12' is no cloid: 0x and 32 hex digits are: write"),
        (["{tmp}/good", "--builder", "me"], "--builder: 'me' is no address: 0x and 40 hex digits are: write"),
        (["{tmp}/fills", "--status", "open"], "--status: node_fills has no statuses: leave it out"),
        (["{tmp}/fills", "--order-type", "Limit"], "--order-type: node_fills has no orders: leave it out, or choose"),
        (["{tmp}/fills", "--min-notional", "1"], "--min-notional: node_fills has no orders: leave it out, or choose"),
        (["{tmp}/good", "--to", "ws", "--min-px", "5"], "--min-px '5' with --to ws: leave it out: clients filter"),
        (["{tmp}/good", "--to", "ws", "--oid", "5"], "--oid 5 with --to ws: leave it out: clients filter"),
        (["{tmp}/good", "--to", "ws", "--coin", "BTC"], "--coin 'BTC' with --to ws: leave it out: clients filter"),
        (["{tmp}/good", "--to", "ws", "--format", "flat"], "--format with --to ws: leave it out"),
        (["{tmp}/good", "--to", "ws", "--listen", "8000"], "--listen '8000' is not HOST:PORT"),
        (["{tmp}/good", "--wait-clients", "2"], "--wait-clients with --to stdout: leave it out, or write --to ws"),
        (
            ["{tmp}/good", "--follow"],
            "--follow: {tmp}/good is not one directory that a node writes to: give the node's",
        ),
        (["{tmp}/missing", "--follow"], "{tmp}/missing does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(replay: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "notes").write_text("hello\n")
    (tmp_path / "packed.bz2").write_bytes(b"BZh91AY&SY")
    (tmp_path / "good").write_bytes(timed(2))
    (tmp_path / "plain").write_bytes(event(1) + b"\n")
    (tmp_path / "fills").write_bytes(b'["0x12",{"coin":"BTC","tid":1,"time":1778002753024}]\n')

    ended = replay(*(word.format(tmp=tmp_path) for word in arguments))

    assert (ended.code, ended.out) == (2, b"")
    assert ended.err.startswith("hyperwatch: ")
    assert ended.err.count("\n") == 1
    assert says.format(tmp=tmp_path) in ended.err


def test_options_are_also_read_from_the_environment(
    replay: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recording").write_bytes(timed(3))
    monkeypatch.setenv("HYPERWATCH_COIN", "BTC ETH")
    monkeypatch.setenv("HYPERWATCH_FROM", "block:1")
    monkeypatch.setenv("HYPERWATCH_LISTEN", "0.0.0.0:80")  # of `run`: no reason to refuse a replay to standard output
    assert oids(replay(tmp_path / "recording").out) == [2, 4]


def test_a_closed_pipe_ends_it_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recording").write_bytes(timed(3))
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:  # noqa: PTH123  a descriptor
        monkeypatch.setattr(sys, "stdout", pipe)
        assert _exit_code(["replay", str(tmp_path / "recording")]) == 0
    assert capfd.readouterr().err == ""


class Out(io.BytesIO):
    """Standard output that does something when it is written to."""

    def __init__(self, then: Callable[[bytes], None]) -> None:
        super().__init__()
        self._then = then

    def write(self, data: Any, /) -> int:  # noqa: ANN401  any buffer
        size = super().write(data)
        self._then(self.getvalue())
        return size


def output(monkeypatch: pytest.MonkeyPatch, then: Callable[[bytes], None]) -> Out:
    out = Out(then)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out, isatty=lambda: False))
    return out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_summary_and_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    (tmp_path / "recording").write_bytes(timed(100))
    out = output(monkeypatch, lambda _: os.kill(os.getpid(), number))
    # The second block would go out after 67 s: only a signal ends this within the test's time.
    assert _exit_code(["replay", str(tmp_path / "recording"), "--speed", "0.001"]) == 130
    assert oids(out.getvalue()) == [0, 1]
    assert "200 events read, 2 written, 0 unreadable" in capfd.readouterr().err


def test_a_disk_that_is_full_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recording").write_bytes(timed(3))
    with open("/dev/full", "w") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        assert _exit_code(["replay", str(tmp_path / "recording")]) == 1
    assert "standard output cannot be written (No space left on device)" in capfd.readouterr().err


# In time.


def test_pace_begins_with_the_first_time_and_waits_for_recorded_time() -> None:
    pace = Pace(10)
    assert pace.wait_s(None, 5.0) == 0
    assert pace.wait_s(1_000_000, 5.0) == 0
    assert pace.wait_s(1_002_000, 5.0) == pytest.approx(0.2)
    assert pace.wait_s(1_002_000, 5.5) == 0
    assert pace.wait_s(999_000, 5.0) == 0  # a node that went back


async def test_the_gate_lets_each_block_through_when_it_is_due(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001  waits pass at once
    tmp_path: Path,
) -> None:
    path = tmp_path / "recording"
    path.write_bytes(timed(10, Layout.BY_BLOCK))
    reader = BatchReader(Recording([path], ORDERS, Layout.BY_BLOCK), Cursor(ORDERS.directory(Layout.BY_BLOCK)))
    report = Report()
    gate = Gate(Bounds(end=Bound(block=5)), Pace(1), report)
    passed = []
    rest = reader.next(None, lambda: None)
    begun = trio.current_time()
    while rest is not None:
        part, rest = await gate.admit(rest)
        assert part is not None
        passed.append((round(trio.current_time() - begun, 3), [entry.slice.block for entry in part.entries]))
    reader.close()

    assert passed == [(round(number * BLOCK_MS / 1000, 3), [number]) for number in range(5)]
    assert (report.events, report.written) == (20, 10)
    assert part is not None
    assert not gate.closed  # what comes next closes it


async def test_follow_goes_on_across_hours_until_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = hour_file(tmp_path, HOUR), hour_file(tmp_path, "20260505/18")
    append(first, line(1, [event(1)]))

    def then(written: bytes) -> None:
        match oids(written):
            case [1]:
                append(first, line(2, [event(2)]) + line(3, [event(3)])[:50])
            case [1, 2]:
                append(second, line(4, [event(4)]))
            case [1, 2, 4]:
                append(first, line(3, [event(3)])[50:])  # late, after the new hour's file exists
            case _:
                os.kill(os.getpid(), signal.SIGINT)

    out = output(monkeypatch, then)
    report = Report()
    with DirectoryWatcher() as watch, trio.fail_after(20):
        log = Tree(tmp_path, ORDERS, Layout.STREAMING)
        await play(
            Job(log, Cursor(ORDERS.directory(log.layout)), Selection(ORDERS)), OutputFormat.EVENTS, report, watch
        )

    assert oids(out.getvalue()) == [1, 2, 4, 3]
    assert report.interrupted


# As the feed.


async def goodbye(client: Client) -> tuple[int, str | None]:
    """The code and the reason that the server closed with."""
    with pytest.raises(trio_websocket.ConnectionClosed) as closed:
        await client.hear("nothing else")
    await trio.aclose_forcefully(client.socket._stream)  # this client leaves it to the garbage collector
    assert closed.value.reason is not None
    return closed.value.reason.code, closed.value.reason.reason


async def test_the_feed_of_a_recording_waits_for_clients_and_says_goodbye_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(timed(50))
    bounds = Bounds(end=Bound(block=40))
    log = TolerantRecording.of(Recording([path], ORDERS, Layout.STREAMING), bounds)
    job = Job(log, Cursor(ORDERS.directory(log.layout)), Selection(ORDERS, bounds))
    report = Report()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(partial(broadcast, job, Address("127.0.0.1", 0), 2, report))
            async with connected(port) as first, connected(port) as second:
                await first.subscribe(type="orders")
                await first.hear("live")
                assert report.events == 0  # one client is not two
                await second.subscribe(type="orders", coins=["BTC"])
                assert len(await first.collect(80)) == 80
                assert [index for _, index, _ in await second.collect(40)] == [0] * 40
                assert await goodbye(first) == await goodbye(second) == (1000, "end of the recording")
    assert (report.written, report.interrupted) == (80, False)


async def test_the_feed_of_recorded_fills_serves_them_and_their_trades_and_names_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "fills"
    path.write_bytes(b"".join(line(number, [fill(number, "B"), fill(number, "A")]) for number in range(1, 11)))
    settings = Settings(paths=[path], listen=Address("127.0.0.1", 0))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(partial(broadcast, _prepare(settings), Address("127.0.0.1", 0), 1, Report()))
            async with connected(port) as client:
                assert (await client.subscribe(type="orders"))["code"] == "not-written"
                await client.subscribe(type="trades", coin="BTC")
                tids: list[int] = []
                while len(tids) < 10:
                    tids += [trade["tid"] for trade in (await client.hear("trades"))["data"]]
                assert await goodbye(client) == (1000, "end of the recording")
    assert tids == list(range(1, 11))


async def test_the_feed_of_a_damaged_recording_sends_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "recording.gz"
    path.write_bytes(gzip.compress(timed(50))[:-9])
    log = TolerantRecording([path], ORDERS, Layout.STREAMING)
    job = Job(log, Cursor(ORDERS.directory(log.layout)), Selection(ORDERS))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(partial(broadcast, job, Address("127.0.0.1", 0), 1, Report()))
            async with connected(port) as client:
                await client.subscribe(type="orders")
                assert [json.loads(text)["order"]["oid"] for *_, text in await client.collect(90)] == list(range(90))
                await goodbye(client)
    assert log.faults


def test_a_replay_of_nothing_says_which_coin_may_be_meant(replay: Run, tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1, coin="BTC")]))
    nothing, all_of_it = replay(tmp_path, "--coin", "btc"), replay(tmp_path, "--coin", "BTC")
    assert "no order of 'btc' was seen where the replay begins; did you mean 'BTC'? Case matters" in nothing.err
    assert "did you mean" not in all_of_it.err
