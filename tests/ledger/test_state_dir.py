"""What is remembered: gaps, what could not be read, the head's place; and what happens when it cannot be."""

from __future__ import annotations

import errno
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from guarded import asked
from hyperwatch.cli.main import _exit_code
from hyperwatch.config import Address, Config
from hyperwatch.errors import FormatChangedError
from hyperwatch.ingest.counters import Counters
from hyperwatch.ledger import ledger
from hyperwatch.ledger import state_dir as state_module
from hyperwatch.ledger.journal import Journal
from hyperwatch.ledger.ledger import Ledger
from hyperwatch.ledger.set_aside import KEPT, set_aside
from hyperwatch.ledger.state_dir import StateDir, StateError
from hyperwatch.log.batches import MESSAGE_BYTES
from hyperwatch.log.gaps import MISSING_BLOCKS, Gap
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.node.slices import UnreadableLine
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.service import service
from support import TIME, append, connected, event, hour_file, line, running, until


class Note(msgspec.Struct):
    text: str


def journal(path: Path, max_bytes: int = 10_000) -> Journal[Note]:
    return Journal(path / "notes.jsonl", Note, max_bytes)


def texts(path: Path) -> list[tuple[int, str]]:
    return [(number, note.text) for number, note in journal(path).read()]


def test_a_journal_is_read_as_it_was_written_also_over_restarts(tmp_path: Path) -> None:
    journal(tmp_path).append([Note("a"), Note("b")])
    journal(tmp_path).append([Note("c")])

    assert texts(tmp_path) == [(1, "a"), (2, "b"), (3, "c")]


def test_a_journal_is_bounded_and_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    notes = journal(tmp_path)
    for number in range(1, 1001):
        notes.append([Note(f"note {number}")])
    kept = texts(tmp_path)

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000
    assert kept[-1] == (1000, "note 1000")
    assert kept == [(number, f"note {number}") for number, _ in kept]
    assert notes.dropped() == kept[0][0] - 1 > 0
    assert journal(tmp_path).next_number == 1001


def test_a_line_that_a_crash_cut_is_left_out(tmp_path: Path) -> None:
    journal(tmp_path).append([Note("a")])
    append(tmp_path / "notes.jsonl", b'{"text":"b')
    assert texts(tmp_path) == [(1, "a")]
    notes = journal(tmp_path)
    assert notes.mend() == [
        f"1 record of {tmp_path / 'notes.jsonl'} cannot be read: they are kept in {tmp_path / 'notes.jsonl.unreadable'}"
    ]
    notes.append([Note("c")])

    assert texts(tmp_path) == [(1, "a"), (2, "c")]


@pytest.mark.parametrize(
    "torn", [b'{"text":"b', b"\n", b"{}\n", b'{"text":7}\n', b"\xff\xfe\n", b"[" * 1200 + b"\n", b"\0" * 300]
)
def test_a_record_behind_a_torn_one_is_read_and_what_is_torn_is_kept(tmp_path: Path, torn: bytes) -> None:
    notes = journal(tmp_path)
    notes.append([Note("a")])
    append(tmp_path / "notes.jsonl", torn)
    journal(tmp_path).append([Note("c")])
    before = journal(tmp_path)
    assert texts(tmp_path) == [(1, "a"), (3, "c")]
    assert bool(before.troubles()) is bool(torn.strip())

    said = before.mend()
    assert len(said) == bool(torn.strip())
    assert texts(tmp_path) == [(1, "a"), (3, "c")], "a number is a record's for good"
    assert before.troubles() == before.mend() == []
    if torn.strip():
        assert (tmp_path / "notes.jsonl.unreadable").read_bytes().strip() == torn.strip()


def test_a_header_that_was_torn_costs_no_record(tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_bytes(b'{"version":1,"ki{"text":"a"}\n{"text":"b"}\n')
    notes = journal(tmp_path)
    assert texts(tmp_path) == [(2, "b")]
    assert len(notes.mend()) == 1
    notes.append([Note("c")])
    assert texts(tmp_path) == [(2, "b"), (3, "c")]
    assert journal(tmp_path).troubles() == []


def test_what_a_full_disk_took_of_a_record_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = journal(tmp_path)
    notes.append([Note("a")])

    def partial(descriptor: int, data: bytes) -> int:
        assert write(descriptor, data[:5]) == 5
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write = os.write
    with monkeypatch.context() as context:
        context.setattr(os, "write", partial)
        with pytest.raises(OSError, match="No space left"):
            notes.append([Note("b")])
    notes.append([Note("c")])
    assert texts(tmp_path) == [(1, "a"), (2, "c")]
    assert notes.troubles() == []


@pytest.mark.parametrize("data", [b"nonsense\n", b'{"version":9,"kind":"notes","first":1}\n{"text":"a"}\n', b"\0" * 9])
def test_a_file_that_is_no_journal_is_moved_aside_and_never_added_to(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(data)
    notes = journal(tmp_path)
    assert list(notes.read()) == []
    with pytest.raises(FileExistsError):
        notes.append([Note("a")])
    assert path.read_bytes() == data
    assert len(notes.troubles()) == 1

    (said,) = notes.mend()
    (aside,) = tmp_path.iterdir()
    assert (aside.name in said, aside.read_bytes()) == (True, data)
    notes.append([Note("a")])
    assert texts(tmp_path) == [(1, "a")]


def test_of_what_was_moved_aside_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        (tmp_path / "head.json").write_bytes(b"%d" % number)
        set_aside(tmp_path / "head.json", lambda number=number: 10**18 + number)  # type: ignore[misc]  # the loop's own
    (tmp_path / "head.json").mkdir()
    set_aside(tmp_path / "head.json", lambda: 10**17)
    kept = sorted(path for path in tmp_path.iterdir() if path.is_file())
    assert [path.read_bytes() for path in kept] == [b"%d" % number for number in range(3, KEPT + 3)]
    assert len(list(tmp_path.iterdir())) == KEPT + 1, "and a directory, which may be anybody's"


CURSOR = Cursor("node_order_statuses_streaming", (FilePosition("20260505/9", 5, 0, "abc"),), 7, TIME, 3)


def test_the_state_is_found_again(tmp_path: Path) -> None:
    with StateDir(tmp_path / "new" / "state") as state:
        assert state.heads == {}
        state.save_head("node_order_statuses", CURSOR)
        state.save_head("node_fills", Cursor("node_fills"))
        state.note([Gap("s", MISSING_BLOCKS, CURSOR, CURSOR, "blocks 8 to 9")])
        state.keep("20260505/9", [UnreadableLine(5, 3, "torn", b"\x00\xff\n")])
    with StateDir(tmp_path / "new" / "state") as state:
        assert state.heads == {"node_order_statuses": CURSOR, "node_fills": Cursor("node_fills")}
        (gap,) = state.gaps.read()
        (unreadable,) = state.quarantine.read()
    assert (gap[0], gap[1].reason, gap[1].from_block, gap[1].where) == (1, MISSING_BLOCKS, 7, "blocks 8 to 9")
    assert (unreadable[1].offset, unreadable[1].data) == (5, b"\x00\xff\n")


def test_two_processes_do_not_share_a_state_directory(tmp_path: Path) -> None:
    with (
        StateDir(tmp_path),
        pytest.raises(StateError, match="is another hyperwatch's: end that one"),
        StateDir(tmp_path),
    ):
        pass
    with StateDir(tmp_path):
        pass


HEADS = b'{"version":2,"cursors":{"a":"?","node_fills":"%s"},"saved_ms":1}' % Cursor("node_fills").encode().encode()


@pytest.mark.parametrize(
    ("data", "heads"),
    [
        (b"", {}),
        (b"{", {}),
        (b"\xff\xfe", {}),
        (b'{"version":9,"cursors":{},"saved_ms":1}', {}),
        (HEADS, {"node_fills": Cursor("node_fills")}),
    ],
)
def test_of_a_damaged_or_foreign_state_what_can_be_used_is_and_the_rest_is_said(
    tmp_path: Path, data: bytes, heads: dict[str, Cursor]
) -> None:
    (tmp_path / "head.json").write_bytes(data)
    sink, lines = said()
    with StateDir(tmp_path) as state:
        assert state.heads == heads
        state.save_head("node_order_statuses", CURSOR)
    logger.remove(sink)
    assert len(lines) == 1
    assert "head.json" in lines[0]
    with StateDir(tmp_path) as state:
        assert state.heads == {**heads, "node_order_statuses": CURSOR}


NAMES = ("head.json", "head.tmp", "gaps.jsonl", "gaps.jsonl.old", "gaps.jsonl.unreadable", "quarantine.jsonl", "lock")


def works(directory: Path) -> None:
    """A state directory is opened, keeps what it is given, and has it when it is opened again."""
    with StateDir(directory) as state:
        state.save_head("node_order_statuses", CURSOR)
        state.note([Gap("s", MISSING_BLOCKS, CURSOR, CURSOR, "this one")])
        state.keep("20260505/9", [UnreadableLine(5, 3, "torn", b"\x00\xff\n")])
    with StateDir(directory) as state:
        assert state.heads["node_order_statuses"] == CURSOR
        assert [gap.where for _, gap in state.gaps.read()][-1] == "this one"
        assert [unreadable.data for _, unreadable in state.quarantine.read()][-1] == b"\x00\xff\n"
        assert state.gaps.troubles() == state.quarantine.troubles() == []


def put_directory(path: Path) -> None:
    (path / "below").mkdir(parents=True)


def put_link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "no" / "where")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("put", [put_directory, put_link_to_nowhere, os.mkfifo])
def test_the_state_is_opened_whatever_stands_in_place_of_its_files(
    tmp_path: Path, name: str, put: Callable[[Path], None]
) -> None:
    put(tmp_path / name)
    works(tmp_path)


RECORD = msgspec.json.encode(state_module.gap_record(Gap("s", MISSING_BLOCKS, CURSOR, CURSOR)))
PIECES = st.sampled_from([
    b"\n", b"\n\n", b"{", b"}", b"\xff", b"\0", b"\r", b"null", b"{}\n", RECORD, RECORD + b"\n", RECORD[:40],
    b'{"version":1,"kind":"gaps","first":7}\n', b'{"version":1,"kind":"quarantine","first":1}\n',
    b'{"version":1,"kind":"gaps","first":-1}\n', b'{"version":2,"kind":"gaps","first":1}\n', HEADS, HEADS[:60],
    re.sub(rb'"seen_ms":[0-9]+', b'"seen_ms":999999999999999', RECORD) + b"\n",
    re.sub(rb'"from_block":[0-9]+', b'"from_block":' + b"9" * 5000, RECORD) + b"\n",
])  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(PIECES | st.binary(max_size=30), max_size=8).map(b"".join)))
def test_the_state_is_opened_and_kept_whatever_bytes_its_files_hold(files: dict[str, bytes]) -> None:
    with TemporaryDirectory() as folder, silent():
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        works(Path(folder))


@pytest.mark.parametrize("name", ["gaps.jsonl", "quarantine.jsonl"])
@pytest.mark.parametrize("words", [["gaps"], ["gaps", "--json"], ["quarantine", "list"], ["quarantine", "show", "1"]])
def test_what_cannot_be_read_of_the_lists_is_said_and_the_rest_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: list[str]
) -> None:
    with StateDir(tmp_path) as state:
        state.note([Gap("s", MISSING_BLOCKS, CURSOR, CURSOR, "this one")])
        state.keep("20260505/9", [UnreadableLine(5, 5, "torn, this one", b"this\n")])
    append(tmp_path / name, b"{}\n\n\xff\n")
    touched = name.startswith(words[0])
    shows = "show" in words
    assert _exit_code([*words, "--state-dir", str(tmp_path)]) == int(touched and not shows)
    out, err = capsys.readouterr()
    assert "this" in out
    assert (f"2 records of {tmp_path / name} cannot be read" in err) is (touched and not shows)

    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert _exit_code([*words, "--state-dir", str(tmp_path)]) == (2 if shows and touched else int(touched))
    out, err = capsys.readouterr()
    assert (f"{tmp_path / name} cannot be read: it is no file" in err) is touched
    assert "none" not in err


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
def test_a_disk_that_is_full_or_read_only_keeps_nothing_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refused, opened = OSError(code, os.strerror(code)), os.open
    append(tmp_path / "gaps.jsonl", b"torn")

    def open_for_reading(path: Any, flags: int, *arguments: Any, **more: Any) -> int:  # noqa: ANN401  as os.open
        if flags & os.O_CREAT:
            raise refused
        return opened(path, flags, *arguments, **more)

    def refuse(*_: object, **__: object) -> None:
        raise refused

    monkeypatch.setattr(os, "open", open_for_reading)
    monkeypatch.setattr(Path, "rename", refuse)
    with StateDir(tmp_path) as state:
        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(OSError, match=os.strerror(code)):
            state.save_head("node_order_statuses", CURSOR)
        with pytest.raises(StateError, match="another hyperwatch's"), StateDir(tmp_path):
            pass


async def test_a_last_place_that_is_another_streams_is_said_and_stops_nothing(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))
    with StateDir(tmp_path / "state") as state:
        state.save_head(
            "node_order_statuses", Cursor("node_fills_streaming", (FilePosition("20260505/9", 5, 0, "a"),), 7)
        )
    sink, lines = said()
    with trio.fail_after(20):
        async with running(tmp_path, state_dir=tmp_path / "state") as port, connected(port) as client:
            assert (await client.subscribe(type="orders"))["channel"] == "subscriptionResponse"
    logger.remove(sink)
    assert any("the last place of node_order_statuses cannot be used" in text for text in lines)


def test_a_directory_that_cannot_be_used_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="--state-dir"), StateDir(tmp_path / "file"):
        pass


def said(level: str = "WARNING") -> tuple[int, list[str]]:
    lines: list[str] = []
    return logger.add(lambda message: lines.append(message.record["message"]), level=level), lines


@contextmanager
def silent() -> Iterator[None]:
    logger.disable("hyperwatch")
    try:
        yield
    finally:
        logger.enable("hyperwatch")


class FullDisk:
    """A state whose disk is full."""

    def note(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save_head = note


def test_a_state_directory_that_fails_in_use_is_named_once_a_minute_and_stops_nothing() -> None:
    sink, lines = said("ERROR")
    now = [0.0]
    counters: defaultdict[str, Counters] = defaultdict(Counters)
    ledger = Ledger(FullDisk(), lambda: now[0], counters)  # type: ignore[arg-type]  # as far as it is used
    for _ in range(230):
        ledger.note(Gap("s", MISSING_BLOCKS, CURSOR, CURSOR))
        ledger.save_last(ORDERS, CURSOR)
        now[0] += 1
    logger.remove(sink)

    assert [line[:79] for line in lines] == [
        "the state directory cannot be written ([Errno 28] No space left on device): gap"
    ] * 4
    assert counters["s"].gaps == {MISSING_BLOCKS: 230}
    assert len(ledger.gaps) == 200, "the newest"


async def test_a_missing_block_is_a_gap_for_subscribers_in_the_log_and_in_the_ledger(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9", Layout.BY_BLOCK)
    append(path, line(7, [event(1)]))
    sink, lines = said()
    with trio.fail_after(20):
        async with running(tmp_path, state_dir=tmp_path / "state") as port, connected(port) as client:
            await client.subscribe(type="orders", coins=["NONE"])
            await client.hear("live")
            append(path, line(8, []) + line(11, [event(2)]) + line(12, []))
            gap = (await client.hear("gap"))["data"]
    logger.remove(sink)

    assert (gap["reason"], gap["readable"], gap["stream"]) == ("missing-blocks", False, "node_order_statuses")
    assert (gap["from"]["block"], gap["to"]["block"]) == (8, 11)
    assert gap["seq"] == 2
    assert any("gap: missing-blocks of node_order_statuses: blocks 9 to 10" in line for line in lines)
    ((_, record),) = state_module.gaps(tmp_path / "state").read()
    assert (record.reason, record.where) == ("missing-blocks", "blocks 9 to 10")


async def test_an_unreadable_line_is_a_gap_and_in_quarantine_and_stops_nothing(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]))
    with trio.fail_after(20):
        async with running(tmp_path, state_dir=tmp_path / "state") as port, connected(port) as client:
            await client.subscribe(type="orders")
            await client.hear("live")
            append(path, line(7, [event(2)]) + b"no \xff JSON\n" + line(7, [event(3)]))
            messages = [await client.hear("orders", "gap") for _ in range(3)]
    assert [message["channel"] for message in messages] == ["orders", "gap", "orders"]
    assert [message["data"]["seq"] for message in messages] == [2, 3, 4]
    assert messages[1]["data"]["reason"] == "unreadable"
    assert [message["data"].get("index") for message in messages] == [1, None, 2]

    assert _exit_code(["quarantine", "list", "--state-dir", str(tmp_path / "state")]) == 0
    assert b"20260505/9 at 1060, 10 bytes  UnicodeDecodeError" in capsysbinary.readouterr().out
    assert _exit_code(["quarantine", "show", "1", "--state-dir", str(tmp_path / "state")]) == 0
    assert capsysbinary.readouterr().out == b"no \xff JSON\n"
    assert _exit_code(["quarantine", "show", "2", "--state-dir", str(tmp_path / "state")]) == 2
    assert b"quarantine 2 is not there" in capsysbinary.readouterr().err
    assert _exit_code(["gaps", "--json", "--state-dir", str(tmp_path / "state")]) == 0
    assert json.loads(capsysbinary.readouterr().out)["where"] == "20260505/9, 10 bytes at 1060"
    assert _exit_code(["gaps", "--state-dir", str(tmp_path / "nowhere")]) == 2


async def test_the_time_hyperwatch_was_down_is_in_the_ledger_and_a_client_that_resumes_has_it_all(
    tmp_path: Path,
) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]))
    with trio.fail_after(20):
        async with running(tmp_path, state_dir=tmp_path / "state") as port, connected(port) as client:
            await client.subscribe(type="orders")
            cursor = (await client.hear("live"))["data"]["cursor"]
        append(path, line(8, [event(2)]) + line(9, [event(3)]))
        async with running(tmp_path, state_dir=tmp_path / "state") as port, connected(port) as client:
            await client.subscribe(type="orders", **{"from": cursor})
            assert [block for block, _, _ in await client.collect(2)] == [8, 9]
    ((_, gap),) = state_module.gaps(tmp_path / "state").read()
    assert (gap.reason, gap.from_block, gap.to_block, gap.readable) == ("not-running", 7, 9, True)


async def test_what_was_removed_while_hyperwatch_was_down_is_told_from_what_can_still_be_read(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/8"), line(7, [event(1)]))
    with trio.fail_after(20):
        async with running(tmp_path, state_dir=tmp_path / "state"):
            pass
        hour_file(tmp_path, "20260505/8").unlink()
        append(hour_file(tmp_path, "20260505/9"), line(20, [event(2)]) + line(21, [event(3)]))
        async with running(tmp_path, state_dir=tmp_path / "state"):
            pass
    gaps = [gap for _, gap in state_module.gaps(tmp_path / "state").read()]
    assert [(gap.reason, gap.from_block, gap.to_block, gap.readable) for gap in gaps] == [
        ("not-running", 7, 20, False),
        ("not-running", 20, 21, True),
    ]


async def test_a_cursor_whose_place_is_gone_is_a_gap_for_its_client_and_none_of_the_services(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(20, [event(1)]))
    sink, lines = said("DEBUG")
    gone = Cursor("node_order_statuses_streaming", (FilePosition("20260505/8", 50, 0, "abc"),), 7, "2026", 3)
    with trio.fail_after(20):
        async with running(tmp_path, state_dir=tmp_path / "state") as port, connected(port) as client:
            for start_point in (gone.encode(), {"block": 7}, {"time": 5}, *[gone.encode()] * 20):
                answer = await client.subscribe(type="orders", id="mine", **{"from": start_point})
                assert answer["channel"] == "subscriptionResponse"
                first, second = await client.hear(), await client.hear("orders")
                assert (first["channel"], first["data"]["reason"], first["data"]["seq"]) == ("gap", "place-gone", 1)
                assert first["data"]["to"]["block"] == 20
                assert second["data"]["blockNumber"] == 20
                await client.say({"method": "unsubscribe", "subscription": {"type": "orders", "id": "mine"}})
                await client.hear("subscriptionResponse")
            told = json.loads((await asked(port, b"GET /gaps HTTP/1.1\r\nHost: x\r\n\r\n"))[1])
    assert told["gaps"] == []
    assert list(state_module.gaps(tmp_path / "state").read()) == []
    assert not [text for text in lines if "gap" in text]
    logger.remove(sink)


async def test_a_format_change_stops_reading_with_the_place_kept(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]))
    good = path.stat().st_size

    config = Config(data_dir=tmp_path, state_dir=tmp_path / "state", listen=Address("127.0.0.1", 0))
    expected = pytest.RaisesExc(
        FormatChangedError, match="1000 of 1000 lines of node_order_statuses_streaming 20260505/9 cannot be read"
    )
    with trio.fail_after(20), pytest.RaisesGroup(expected, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run, config)
            append(path, b'{"v":2,"e":[]}\n' * 1_000)
    with StateDir(tmp_path / "state") as state:
        assert state.heads["node_order_statuses"].places[0].offset <= good


async def test_a_node_that_writes_nothing_is_stalled_which_is_no_gap(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]))
    sink, lines = said()
    with trio.fail_after(20):
        async with running(tmp_path, state_dir=tmp_path / "state", stall_s=1.0):
            await until(lambda: any("stalled" in line for line in lines))
            append(path, line(8, [event(2)]))
            await until(lambda: any("writes again" in line for line in lines))
    logger.remove(sink)
    assert list(state_module.gaps(tmp_path / "state").read()) == []


async def test_an_event_too_large_for_a_message_is_in_the_ledger(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]))
    with trio.fail_after(20):
        async with running(tmp_path, state_dir=tmp_path / "state") as port, connected(port) as client:
            await client.subscribe(type="orders")
            await client.hear("live")
            append(path, line(8, [event(2, cloid="0x" + "0" * MESSAGE_BYTES)]) + line(9, [event(3)]))
            assert (await client.hear("gap", "orders"))["data"]["reason"] == "event-too-large"
            assert (await client.hear("gap", "orders"))["data"]["blockNumber"] == 9
    ((_, record),) = state_module.gaps(tmp_path / "state").read()
    assert (record.reason, record.readable, record.to_block) == ("event-too-large", True, 8)


@pytest.mark.parametrize("fault", ["gone", "read-only"])
async def test_a_state_directory_that_goes_or_is_read_only_while_in_use_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """What is found meanwhile is in the log; what is found when it can be written again, in the ledger."""
    path, directory = hour_file(tmp_path, "20260505/9", Layout.BY_BLOCK), tmp_path / "state"
    append(path, line(7, [event(1)]))
    monkeypatch.setattr(ledger, "_COMPLAIN_S", 0.0)
    sink, lines = said()

    opened = Path.open

    def read_only(file: Path, mode: str = "r") -> Any:  # noqa: ANN401  stands for Path.open
        if directory in file.parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(file, mode)

    with trio.fail_after(20):
        async with running(tmp_path, state_dir=directory) as port, connected(port) as client:
            await client.subscribe(type="orders")
            await client.hear("live")
            with monkeypatch.context() as context:
                if fault == "gone":
                    directory.rename(tmp_path / "away")
                else:
                    context.setattr(Path, "open", read_only)
                append(path, line(9, [event(2)]))
                assert (await client.hear("gap"))["data"]["reason"] == "missing-blocks"
                assert (await client.hear("orders"))["data"]["blockNumber"] == 9
                await until(lambda: any("the state directory cannot be written" in line for line in lines))
            if fault == "gone":
                (tmp_path / "away").rename(directory)
            append(path, line(11, [event(3)]))
            assert (await client.hear("orders"))["data"]["blockNumber"] == 11
    logger.remove(sink)
    assert [gap.where for _, gap in state_module.gaps(directory).read()] == ["blocks 10 to 10"]
