"""The instrument: what it would not notice, it would not measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.baselines.sockets import frame
from benchmarks.book import OURS, Book, percentile
from benchmarks.client import Connection, FeedError
from benchmarks.node import Node, simulated
from benchmarks.table import rows
from hyperwatch.node.streams import Layout

ROOT = Path(__file__).resolve().parents[2]


def message(seq: int, channel: str = "orders", block: int = 7, padding: int = 0) -> bytes:
    text = b'{"channel":"%s","data":{"id":"x","seq":%d,"blockNumber":%d,"events":["%s"]}}'
    text %= channel.encode(), seq, block, b"x" * padding
    return frame(len(text)) + text


def connection(subscriptions: int = 1) -> Connection:
    return Connection(lambda _: None, subscriptions)


@given(
    cuts=st.lists(st.integers(1, 100), min_size=1),
    paddings=st.lists(st.sampled_from([0, 30, 2000, 70_000]), max_size=5),
)
def test_a_client_counts_the_same_messages_however_they_are_cut(cuts: list[int], paddings: list[int]) -> None:
    data = b"".join(message(seq, block=seq, padding=padding) for seq, padding in enumerate(paddings, 1))
    client = connection()
    now_ns = at = 0
    while at < len(data):
        step = cuts[now_ns % len(cuts)] * (1 if at < 300 else 500)
        client.feed(memoryview(data[at : at + step]), now_ns)
        at += step
        now_ns += 1

    assert (client.messages, client.events, client.size) == (len(paddings), len(paddings), len(data))
    assert set(client.receipts) == set(range(1, len(paddings) + 1))


def test_a_message_is_received_when_its_last_byte_is() -> None:
    client, data = connection(), message(1, padding=3000)
    client.feed(memoryview(data[:-1]), 5)
    assert client.receipts == {}
    client.feed(memoryview(data[-1:]), 9)
    assert client.receipts == {7: 9}


@pytest.mark.parametrize("damaged", [message(2), message(1) + message(1), message(1, "gap"), b"\x88\x02\x03\xe9"])
def test_a_hole_a_gap_and_a_goodbye_end_the_benchmark(damaged: bytes) -> None:
    with pytest.raises(FeedError):
        connection().feed(memoryview(damaged), 0)


def test_a_refusal_ends_the_benchmark() -> None:
    text = b'{"channel":"error","data":"Invalid subscription"}'
    with pytest.raises(FeedError, match="Invalid subscription"):
        connection().feed(memoryview(frame(len(text)) + text), 0)


def test_a_ping_is_answered() -> None:
    said: list[bytes] = []
    client = Connection(said.append)
    client.feed(memoryview(b"\x89\x00" + message(1)), 0)
    assert said == [b"\x8a\x80\0\0\0\0"]
    assert client.events == 1


def test_a_turn_is_over_when_every_subscription_has_got_there() -> None:
    client = connection(2)
    client.feed(memoryview(message(1, block=8)), 0)
    assert not client.reached({"until_block": 8})
    client.feed(memoryview(message(1, "cursor", block=8).replace(b'"x"', b'"y"')), 0)
    assert client.reached({"until_block": 8})
    assert not client.reached({"until_block": 9})


def test_ratios_are_taken_within_a_round_and_the_middle_one_counts() -> None:
    book = Book()
    for ours, theirs in ((10, 5), (100, 1), (30, 10)):
        book.add("case", OURS, speed=ours)
        book.add("case", "theirs", speed=theirs)

    assert book.ratio("case", OURS, "speed", "theirs") == 3
    assert book.above("case", OURS, "speed", "theirs") == 20


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert [percentile(list(range(1, 101)), share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert percentile([3.0], 0.99) == 3.0


@pytest.mark.parametrize(("speed", "done", "met"), [(3.1, 1, True), (2.9, 1, False), (3.1, 0, False)])
def test_what_was_asked_is_met_or_not(speed: float, done: float, met: bool) -> None:
    book = Book()
    case = "catch-up/streaming/everything/reader/judged"
    book.add(case, OURS, events_per_s=speed, events_per_cpu_s=speed, done=done)
    book.add(case, "json.loads", events_per_s=1, events_per_cpu_s=1)

    (row,) = rows(book)

    assert (row.asked, row.met) == ("3 x json.loads", met)


def test_a_backlog_is_numbered_on_so_that_nothing_is_a_repeat(tmp_path: Path) -> None:
    backlog = simulated(4_000)
    with Node(tmp_path, Layout.BY_BLOCK) as node:
        last = node.put_backlog(backlog, 2)
        node.put_backlog(backlog, 1)
        lines = [json.loads(line) for line in node.path.read_bytes().splitlines()]

    numbers = [line["block_number"] for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert last == numbers[0] + 2 * backlog.blocks + 1
    assert sum(len(line["events"]) for line in lines) == 3 * backlog.events[Layout.BY_BLOCK] + 3


def test_a_node_says_when_the_last_write_of_a_block_began(tmp_path: Path) -> None:
    with Node(tmp_path) as node:
        sheet = node.prepare([[b"{}", b"{}"]], per_line=True)
        at_ns = node.pace(sheet)
        size = node.path.stat().st_size

    assert [len(each) for each in sheet.writes] == [2, 1]
    assert (list(at_ns), max(sheet.ends.values())) == ([sheet.last - 1], size)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_of_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=290)

    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert result["book"]["failures"] == {}
    assert len([row for row in result["table"] if row["met"] is not None]) >= 11
    assert "resident memory" in done.stdout
