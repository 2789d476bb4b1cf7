"""What is remembered: gaps, what could not be read, the head's place; and what happens when it cannot be."""

from __future__ import annotations

import errno
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from guarded import asked
from loguru import logger

from hyperwatch import records, service
from hyperwatch.cli.main import _exit_code
from hyperwatch.config import Address, Config
from hyperwatch.errors import FormatChangedError
from hyperwatch.feed.views import MESSAGE_BYTES
from hyperwatch.log import state as state_module
from hyperwatch.log.counters import Counters
from hyperwatch.log.cursor import Cursor, FilePlace
from hyperwatch.log.gaps import MISSING_BLOCKS, Gap
from hyperwatch.log.journal import Journal, StateError
from hyperwatch.log.state import State
from hyperwatch.node.runs import Damage
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.records import Records
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
    notes.mend()
    notes.append([Note("c")])

    assert texts(tmp_path) == [(1, "a"), (2, "c")]


@pytest.mark.parametrize("data", [b"nonsense\n", b'{"version":9,"kind":"notes","first":1}\n'])
def test_a_file_that_is_no_journal_is_an_error_that_says_how_to_go_on(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "notes.jsonl").write_bytes(data)
    with pytest.raises(StateError, match="move it away"):
        journal(tmp_path)


CURSOR = Cursor("node_order_statuses_streaming", (FilePlace("20260505/9", 5, 0, "abc"),), 7, TIME, 3)


def test_the_state_is_found_again(tmp_path: Path) -> None:
    with State(tmp_path / "new" / "state") as state:
        assert state.heads == {}
        state.save_head("node_order_statuses", CURSOR)
        state.save_head("node_fills", Cursor("node_fills"))
        state.note([Gap("s", MISSING_BLOCKS, CURSOR, CURSOR, "blocks 8 to 9")])
        state.keep("20260505/9", [Damage(5, 3, "torn", b"\x00\xff\n")])
    with State(tmp_path / "new" / "state") as state:
        assert state.heads == {"node_order_statuses": CURSOR, "node_fills": Cursor("node_fills")}
        (gap,) = state.gaps.read()
        (damage,) = state.quarantine.read()
    assert (gap[0], gap[1].reason, gap[1].from_block, gap[1].where) == (1, MISSING_BLOCKS, 7, "blocks 8 to 9")
    assert (damage[1].offset, damage[1].data) == (5, b"\x00\xff\n")


def test_two_processes_do_not_share_a_state_directory(tmp_path: Path) -> None:
    with State(tmp_path), pytest.raises(StateError, match="is another hyperwatch's: end that one"), State(tmp_path):
        pass
    with State(tmp_path):
        pass


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"version":9,"cursors":{},"saved_ms":1}', b'{"version":2,"cursors":{"a":"?"},"saved_ms":1}']
)
def test_a_corrupt_or_foreign_state_is_an_error_that_says_how_to_go_on(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "head.json").write_bytes(data)
    with pytest.raises(StateError, match="move it away"), State(tmp_path):
        pass


def test_a_directory_that_cannot_be_used_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="--state-dir"), State(tmp_path / "file"):
        pass


def said(level: str = "WARNING") -> tuple[int, list[str]]:
    lines: list[str] = []
    return logger.add(lambda message: lines.append(message.record["message"]), level=level), lines


class FullDisk:
    """A state whose disk is full."""

    def note(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save_head = note


def test_a_state_directory_that_fails_in_use_is_named_once_a_minute_and_stops_nothing() -> None:
    sink, lines = said("ERROR")
    now = [0.0]
    counters: defaultdict[str, Counters] = defaultdict(Counters)
    records = Records(FullDisk(), lambda: now[0], counters)  # type: ignore[arg-type]  # as far as it is used
    for _ in range(230):
        records.note(Gap("s", MISSING_BLOCKS, CURSOR, CURSOR))
        records.save_last(ORDERS, CURSOR)
        now[0] += 1
    logger.remove(sink)

    assert [line[:79] for line in lines] == [
        "the state directory cannot be written ([Errno 28] No space left on device): gap"
    ] * 4
    assert counters["s"].gaps == {MISSING_BLOCKS: 230}
    assert len(records.gaps) == 200, "the newest"


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
    gone = Cursor("node_order_statuses_streaming", (FilePlace("20260505/8", 50, 0, "abc"),), 7, "2026", 3)
    with trio.fail_after(20):
        async with running(tmp_path, state_dir=tmp_path / "state") as port, connected(port) as client:
            for wish in (gone.encode(), {"block": 7}, {"time": 5}, *[gone.encode()] * 20):
                answer = await client.subscribe(type="orders", id="mine", **{"from": wish})
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
    with State(tmp_path / "state") as state:
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
    monkeypatch.setattr(records, "_COMPLAIN_S", 0.0)
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
