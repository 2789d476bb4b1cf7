from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from hyperwatch.cli.simulate import command
from hyperwatch.errors import UsageError
from hyperwatch.node.streams import FILLS, ORDERS, STREAMS, Layout, Stream, sniff
from hyperwatch.simulate import hour_files as writer_module
from hyperwatch.simulate.claim import MARKER, Claim
from hyperwatch.simulate.hour_files import simulate
from hyperwatch.simulate.market import MAX_RESTING, Market
from hyperwatch.simulate.model import BLOCK_GAP_NS, NO_FAULTS, Block, Faults, Summary, decimal, stamp

NOON = int(datetime(2026, 5, 5, 12, 30, tzinfo=UTC).timestamp()) * 10**9
BEFORE_MIDNIGHT = int(datetime(2026, 5, 5, 23, 59, 58, tzinfo=UTC).timestamp()) * 10**9
BEFORE_NINE = int(datetime(2026, 5, 5, 8, 59, 58, tzinfo=UTC).timestamp()) * 10**9
ALL = tuple(Layout)
ORDER_KEYS = [
    *("coin", "side", "limitPx", "sz", "oid", "timestamp", "triggerCondition", "isTrigger", "triggerPx", "children"),
    *("isPositionTpsl", "reduceOnly", "orderType", "origSz", "tif", "cloid"),
]
ENDS = {"filled", "canceled", "siblingFilledCanceled", "scheduledCancel"}


def run(
    root: Path,
    *,
    layouts: Sequence[Layout] = (Layout.STREAMING,),
    blocks: int = 60,
    start_ns: int = NOON,
    rate: float = 600,
    faults: Faults = NO_FAULTS,
    per_line: bool = False,
    seed: int = 1,
    sleep: Callable[[float], object] = lambda _seconds: None,
) -> Summary:
    return simulate(
        root,
        layouts=layouts,
        rate=rate,
        blocks=blocks,
        seed=seed,
        start_ns=start_ns,
        faults=faults,
        per_line=per_line,
        clock=lambda: 0.0,
        sleep=sleep,
    )


def hours(root: Path, stream: Stream, layout: Layout = Layout.STREAMING) -> dict[str, list[dict[str, Any]]]:
    """Parsed lines by day/hour."""
    files = sorted((root / stream.directory(layout) / "hourly").glob("*/*"), key=lambda p: (p.parent.name, int(p.name)))
    return {f"{p.parent.name}/{p.name}": [msgspec.json.decode(x) for x in p.read_bytes().splitlines()] for p in files}


def lines(root: Path, stream: Stream, layout: Layout = Layout.STREAMING) -> list[dict[str, Any]]:
    return list(itertools.chain.from_iterable(hours(root, stream, layout).values()))


def market_blocks(seed: int = 1, mean: float = 100, n: int = 300) -> Iterator[Block]:
    market = Market(seed, mean, NOON)
    return (market.next_block() for _ in range(n))


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != MARKER}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=lambda stream: stream.name)
def test_the_three_layouts_hold_the_same_events_in_the_same_order(tmp_path: Path, stream: Stream) -> None:
    run(tmp_path, layouts=ALL)
    by_block = lines(tmp_path, stream, Layout.BY_BLOCK)
    streaming = lines(tmp_path, stream)
    events = [event for line in by_block for event in line["events"]]
    assert events == [event for line in streaming for event in line["events"]] == lines(tmp_path, stream, Layout.PLAIN)
    assert [line["block_number"] for line in by_block for _ in line["events"]] == [
        line["block_number"] for line in streaming
    ]
    assert len(events) > 10


def test_by_block_writes_every_block_and_streaming_none_that_is_empty(tmp_path: Path) -> None:
    run(tmp_path, layouts=ALL)
    by_block = lines(tmp_path, FILLS, Layout.BY_BLOCK)
    assert len(by_block) == 60
    assert any(line["events"] == [] for line in by_block)
    assert all(len(line["events"]) == 1 for line in lines(tmp_path, FILLS))
    numbers = [line["block_number"] for line in by_block]
    assert numbers == list(range(numbers[0], numbers[0] + 60))


def test_every_layout_is_told_by_its_lines(tmp_path: Path) -> None:
    run(tmp_path, layouts=ALL)
    for stream, layout in itertools.product(STREAMS.values(), ALL):
        file = next((tmp_path / stream.directory(layout) / "hourly").glob("*/*"))
        assert sniff(file.read_bytes().splitlines()) == (stream, layout)


@pytest.mark.parametrize(
    ("start_ns", "names"),
    [(BEFORE_MIDNIGHT, ["20260505/23", "20260506/0"]), (BEFORE_NINE, ["20260505/8", "20260505/9"])],
)
def test_local_time_chooses_the_hour_and_hours_have_no_padding(tmp_path: Path, start_ns: int, names: list[str]) -> None:
    run(tmp_path, layouts=ALL, start_ns=start_ns)
    for stream, layout in itertools.product(STREAMS.values(), ALL):
        assert list(hours(tmp_path, stream, layout)) == names
    for name, found in hours(tmp_path, ORDERS).items():
        assert {int(line["local_time"][11:13]) for line in found} == {int(name.partition("/")[2])}
    assert hours(tmp_path, ORDERS)[names[1]][0]["block_time"] < hours(tmp_path, ORDERS)[names[1]][0]["local_time"]


def test_local_time_grows_by_line_and_trails_the_block_by_a_third_of_a_second(tmp_path: Path) -> None:
    run(tmp_path, rate=90_000, blocks=10)
    found = lines(tmp_path, ORDERS)
    times = [line["local_time"].ljust(29, "0") for line in found]
    assert times == sorted(set(times))
    for line in found:
        delay = datetime.fromisoformat(line["local_time"]) - datetime.fromisoformat(line["block_time"])
        assert 0.28 < delay.total_seconds() < 0.35


@pytest.mark.parametrize("stream", STREAMS.values(), ids=lambda stream: stream.name)
def test_every_event_decodes_with_its_streams_keys(stream: Stream) -> None:
    for block in market_blocks():
        for event in block.events(stream):
            keys = stream.keys.decode(event)
            assert len(keys.user) == 42
            assert keys.coin


def test_orders_have_the_nodes_keys_in_the_nodes_order_and_compact() -> None:
    for event in itertools.chain.from_iterable(block.orders for block in market_blocks()):
        found = msgspec.json.decode(event)
        assert list(found) == ["time", "user", "hash", "builder", "status", "order"]
        assert list(found["order"]) == ORDER_KEYS
        assert all(list(child) == ORDER_KEYS for child in found["order"]["children"])
        assert msgspec.json.encode(found) == event
        for key in ("limitPx", "sz", "triggerPx", "origSz"):
            assert "." in found["order"][key]


def test_only_opens_have_a_hash_and_it_carries_the_blocks_number() -> None:
    for block in market_blocks():
        for event in map(msgspec.json.decode, block.orders):
            assert (event["hash"] is not None) == (event["status"] == "open")
            if event["hash"]:
                digest = bytes.fromhex(event["hash"][2:])
                assert (len(digest), digest[10], int.from_bytes(digest[11:15], "big")) == (32, 4, block.number)


def test_the_mix_is_mainnets() -> None:
    counts = Counter(
        msgspec.json.decode(event)["status"] for block in market_blocks(mean=200) for event in block.orders
    )
    total = counts.total()
    assert 0.9 < total / (300 * 200) < 1.1
    assert 0.6 < counts["badAloPxRejected"] / total < 0.95
    assert 0.7 < counts["canceled"] / counts["open"] < 1
    for status in ("perpMarginRejected", "iocCancelRejected", "filled", "triggered", "minTradeNtlRejected"):
        assert counts[status] > 5
    assert counts["siblingFilledCanceled"]
    assert len(counts) > 15


def test_orders_live_coherently() -> None:
    live: dict[int, dict[str, Any]] = {}
    seen = Counter[str]()
    for block in market_blocks(n=600):
        for event in map(msgspec.json.decode, block.orders):
            status, order = event["status"], event["order"]
            assert event["time"] == stamp(block.time_ns)
            if status == "open":
                assert order["oid"] not in live
                assert order["timestamp"] == block.time_ns // 1_000_000
                live[order["oid"]] = {"user": event["user"], **order}
            elif order["oid"] in live:
                opened = live[order["oid"]]
                for key in ("coin", "side", "limitPx", "origSz", "timestamp", "cloid", "orderType"):
                    assert order[key] == opened[key]
                assert event["user"] == opened["user"]
                assert float(order["sz"]) <= float(opened["sz"])
                if status == "filled":
                    assert order["sz"] == "0.0"
                if status != "triggered":
                    del live[order["oid"]]
                seen[status] += 1
            else:
                assert status.endswith("Rejected")
    assert set(seen) >= ENDS


def test_the_book_of_the_diffs_is_coherent_with_fills() -> None:
    book: dict[int, str] = {}
    fills = 0
    for block in market_blocks(n=600):
        for diff in map(msgspec.json.decode, block.diffs):
            change, oid = diff["raw_book_diff"], diff["oid"]
            if change == "remove":
                del book[oid]
            elif "new" in change:
                assert oid not in book
                book[oid] = change["new"]["sz"]
            else:
                assert book[oid] == change["update"]["origSz"]
                book[oid] = change["update"]["newSz"]
        pairs = [msgspec.json.decode(fill) for fill in block.fills]
        for (first, one), (second, two) in zip(pairs[::2], pairs[1::2], strict=True):
            assert first != second
            assert {one["side"], two["side"]} == {"A", "B"}
            assert {one["crossed"], two["crossed"]} == {True, False}
            assert [one[key] == two[key] for key in ("coin", "px", "sz", "tid", "hash")] == [True] * 5
            fills += 1
    assert fills > 100


def test_the_same_seed_and_start_give_the_same_bytes(tmp_path: Path) -> None:
    faults = Faults(torn=True, late_file=True, late_lines=True, restart_every=20)
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        run(tmp_path / name, layouts=ALL, start_ns=BEFORE_MIDNIGHT, faults=faults, seed=seed)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert tree(tmp_path / "one") != tree(tmp_path / "other")


def test_a_later_run_goes_on_with_higher_blocks_and_orders(tmp_path: Path) -> None:
    run(tmp_path, blocks=30)
    first = lines(tmp_path, ORDERS)
    run(tmp_path, blocks=30, start_ns=NOON + 30 * BLOCK_GAP_NS)
    second = lines(tmp_path, ORDERS)[len(first) :]
    assert second[0]["block_number"] > first[-1]["block_number"]
    assert second[0]["events"][0]["order"]["oid"] > first[-1]["events"][0]["order"]["oid"]


def writes_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What is written from now on, with the files' paths."""
    made: list[tuple[str, bytes]] = []

    write = writer_module._write

    def spy(file: FileIO, data: bytes) -> None:
        made.append((str(file.name), data))
        write(file, data)

    monkeypatch.setattr(writer_module, "_write", spy)
    return made


def test_a_write_holds_a_block_or_a_line_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = writes_of(monkeypatch)
    run(tmp_path / "blocks", layouts=[Layout.BY_BLOCK], blocks=20)
    assert len(made) == 20 * 3
    made.clear()
    done = run(tmp_path / "lines", blocks=20, per_line=True)
    assert len(made) == sum(done.lines.values())
    assert all(data.endswith(b"]}\n") and data.count(b"\n") == 1 for _, data in made)


@pytest.mark.parametrize("per_line", [False, True])
def test_torn_writes_cut_lines_and_end_with_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_line: bool
) -> None:
    run(tmp_path / "whole", layouts=ALL, start_ns=BEFORE_MIDNIGHT, per_line=per_line)
    made = writes_of(monkeypatch)
    run(tmp_path / "torn", layouts=ALL, start_ns=BEFORE_MIDNIGHT, faults=Faults(torn=True), per_line=per_line)
    assert sum(not data.endswith(b"\n") for _, data in made) > 60 * 3
    assert tree(tmp_path / "torn") == tree(tmp_path / "whole")


def test_a_late_file_appears_blocks_after_the_hour_began_and_loses_nothing(tmp_path: Path) -> None:
    file = "node_order_statuses_streaming/hourly/20260506/0"
    absent: dict[str, int] = {}
    for name, faults in (("calm", NO_FAULTS), ("late", Faults(late_file=True))):
        looks: list[bool] = []
        path = tmp_path / name / file
        run(
            tmp_path / name,
            blocks=80,
            start_ns=BEFORE_MIDNIGHT,
            faults=faults,
            sleep=lambda _seconds, path=path, looks=looks: looks.append(path.exists()),  # type: ignore[misc]
        )
        absent[name] = looks.count(False)
    assert 4 <= absent["late"] - absent["calm"] <= 26
    assert tree(tmp_path / "late") == tree(tmp_path / "calm")


def test_late_lines_reach_the_old_hours_file_after_the_new_one_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writes_of(monkeypatch)
    run(tmp_path / "late", layouts=[Layout.BY_BLOCK], start_ns=BEFORE_MIDNIGHT, faults=Faults(late_lines=True))
    order = [path.rpartition("/")[2] for path, _ in made if "node_order_statuses" in path]
    switch = order.index("0")
    assert order[switch:].count("23") == 1
    assert order.index("23", switch) - switch == 5
    run(tmp_path / "calm", layouts=[Layout.BY_BLOCK], start_ns=BEFORE_MIDNIGHT)
    assert tree(tmp_path / "late") == tree(tmp_path / "calm")


def test_a_restart_appends_the_same_events_again_with_new_local_times(tmp_path: Path) -> None:
    done = run(tmp_path, layouts=ALL, faults=Faults(restart_every=25))
    assert done.restarts == 2
    found = lines(tmp_path, ORDERS, Layout.BY_BLOCK)
    assert len(found) == 60 + done.repeated
    numbers = [line["block_number"] for line in found]
    assert sum(later <= earlier for earlier, later in itertools.pairwise(numbers)) == 2
    local = [line["local_time"].ljust(29, "0") for line in found]
    assert local == sorted(set(local))
    first: dict[int, Any] = {}
    for line in found:
        envelope = (line["block_time"], line["events"])
        assert first.setdefault(line["block_number"], envelope) == envelope
    run(tmp_path / "calm", layouts=ALL)
    assert {line["block_number"]: line["events"] for line in lines(tmp_path / "calm", ORDERS, Layout.BY_BLOCK)} == {
        number: events for number, (_, events) in first.items()
    }


def test_open_orders_are_bounded_however_long_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    market = Market(3, 400, NOON)
    market.next_block()
    monkeypatch.setattr(market._dice, "chance", lambda _share: False)  # now nobody cancels of his own accord
    for what, pool in (("quote", market.resting), ("wait", market.waiting)):
        for _ in range(MAX_RESTING + 500):
            market._act(what)
            assert len(pool) <= MAX_RESTING
        assert len(pool) > MAX_RESTING - 3


class Clock:
    """Virtual seconds: sleeping and working move it, nothing else does."""

    def __init__(self, work: float = 0.0) -> None:
        self.now = 1000.0
        self.work = work
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def stop(self) -> bool:
        self.now += self.work
        return False


def paced(root: Path, clock: Clock, rate: float = 1000, blocks: int = 5) -> Summary:
    return simulate(root, rate=rate, blocks=blocks, start_ns=NOON, clock=clock, sleep=clock.sleep, stop=clock.stop)


def test_blocks_are_due_67_ms_apart_from_the_first(tmp_path: Path) -> None:
    clock = Clock()
    paced(tmp_path, clock)
    assert clock.sleeps == pytest.approx([0.067] * 4)


def test_pacing_does_not_drift_and_catches_up_without_sleeping(tmp_path: Path) -> None:
    clock = Clock(work=0.02)
    paced(tmp_path, clock, blocks=100)
    assert clock.now == pytest.approx(1000 + 99 * 0.067)
    slow = Clock(work=0.1)
    paced(tmp_path, slow, blocks=10)
    assert slow.sleeps == []


def test_the_rate_is_in_statuses_a_second(tmp_path: Path) -> None:
    for rate in (20, 800):
        done = paced(tmp_path / str(rate), Clock(), rate=rate, blocks=600)
        assert done.lines["node_order_statuses_streaming"] == pytest.approx(rate * 600 * 0.067, rel=0.1)


def test_without_a_rate_it_never_sleeps(tmp_path: Path) -> None:
    clock = Clock()
    done = paced(tmp_path, clock, rate=0, blocks=3)
    assert (clock.sleeps, done.blocks) == ([], 3)


def test_a_real_nodes_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "node_fills_streaming" / "hourly" / "20260505" / "12"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"theirs\n")
    with pytest.raises(UsageError, match="no simulator wrote"):
        run(tmp_path)
    assert tree(tmp_path) == {"node_fills_streaming/hourly/20260505/12": b"theirs\n"}


@pytest.mark.parametrize(
    "theirs",
    [
        "replica_cmds/2026-05-05T00:00:00Z/20260505/1",
        "node_trades/hourly/20260505/12",
        "node_order_statuses/hourly/20260505/12",
        "gaps.jsonl",
    ],
)
def test_a_directory_that_holds_anything_else_is_refused_and_left_alone_whichever_stream_is_asked_for(
    tmp_path: Path, theirs: str
) -> None:
    (tmp_path / theirs).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / theirs).write_bytes(b"theirs\n")
    with pytest.raises(UsageError, match="which no simulator wrote there: give an empty directory"):
        simulate(tmp_path, streams=[FILLS], rate=0, blocks=2, start_ns=NOON)
    assert tree(tmp_path) == {theirs: b"theirs\n"}
    assert not (tmp_path / MARKER).exists()


def test_a_marker_that_was_copied_makes_a_nodes_directory_no_simulators(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    run(ours, blocks=2)
    [name] = [name for name in tree(ours) if "order" in name]
    (theirs / name).parent.mkdir(parents=True)
    (theirs / name).write_bytes(b"theirs\n")
    (theirs / MARKER).write_bytes((ours / MARKER).read_bytes())
    with pytest.raises(UsageError, match="no simulator wrote"):
        run(theirs)
    assert tree(theirs) == {name: b"theirs\n"}


def test_what_a_node_wrote_after_a_simulator_is_not_appended_to(tmp_path: Path) -> None:
    run(tmp_path, blocks=2)
    later = tmp_path / ORDERS.directory(Layout.STREAMING) / "hourly" / "20260505" / "13"
    later.write_bytes(b"theirs\n")
    with pytest.raises(UsageError, match=r"20260505/13, which no simulator wrote"):
        run(tmp_path, start_ns=NOON + 3_600_000_000_000)
    assert later.read_bytes() == b"theirs\n"


def test_a_node_that_begins_while_a_simulator_writes_keeps_its_file(tmp_path: Path) -> None:
    with Claim(tmp_path) as claim:
        (tmp_path / "13").write_bytes(b"theirs\n")
        with pytest.raises(UsageError, match="holds 13, which no simulator wrote"):
            claim.open("13")
    assert (tmp_path / "13").read_bytes() == b"theirs\n"


def test_a_link_into_a_nodes_directory_leads_a_simulator_nowhere(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    run(ours, blocks=2)
    (theirs / "hourly").mkdir(parents=True)
    (ours / FILLS.directory(Layout.PLAIN)).symlink_to(theirs)
    with pytest.raises(UsageError, match="holds node_fills, which no simulator wrote"):
        run(ours, layouts=[Layout.PLAIN], start_ns=NOON + 3_600_000_000_000)
    (tmp_path / "link").symlink_to(theirs)
    with pytest.raises(UsageError, match="holds hourly, which no simulator wrote"):
        run(tmp_path / "link")
    assert tree(theirs) == {}


def test_two_simulators_do_not_write_to_one_directory(tmp_path: Path) -> None:
    with Claim(tmp_path), pytest.raises(UsageError, match="another simulator writes to"):
        run(tmp_path)
    assert tree(tmp_path) == {}
    run(tmp_path, blocks=2)
    assert tree(tmp_path)


def test_the_root_of_a_file_system_is_as_good_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir(mode=0)
    run(tmp_path, blocks=2)
    run(tmp_path, blocks=2)
    assert tree(tmp_path)


@pytest.mark.parametrize(
    ("units", "places", "text"),
    [(25700, 2, "257.0"), (5, 0, "5.0"), (-3, 6, "-0.000003"), (0, 4, "0.0"), (123456, 4, "12.3456")],
)
def test_decimals_are_exact_strings(units: int, places: int, text: str) -> None:
    assert decimal(units, places) == text


def test_times_print_as_many_digits_as_they_need() -> None:
    assert [stamp(NOON + ns)[19:] for ns in (0, 5_000_000, 5_000, 5)] == ["", ".005", ".000005", ".000000005"]


def test_the_command_writes_and_sums_up_on_standard_error(tmp_path: Path) -> None:
    options = ["--blocks", "3", "--rate", "0", "--layout", "plain,by-block", "--stream", "node_fills"]
    result = CliRunner().invoke(command, [str(tmp_path), *options, "--start", "2026-05-05T12:30:00Z"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("wrote 3 blocks: ")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["node_fills", "node_fills_by_block"]
    assert lines(tmp_path, FILLS, Layout.BY_BLOCK)[0]["block_time"] == "2026-05-05T12:30:00"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layout", "weekly"], "'weekly' is none of plain, by-block, streaming"),
        (["--stream", "orders"], "'orders' is none of node_order_statuses"),
        (["--start", "soon"], "'soon' is no time; write it like"),
        (["--start", "1969-01-01"], "before 1970"),
        (["--rate", "0"], "add --blocks"),
        (["--rate", "-1"], "--rate"),
    ],
)
def test_bad_options_name_the_value_and_the_remedy(tmp_path: Path, options: list[str], said: str) -> None:
    result = CliRunner().invoke(command, [str(tmp_path), *options])
    assert result.exit_code == 2
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(command, [str(tmp_path / "file" / "data"), "--blocks", "1"])
    assert isinstance(result.exception, UsageError)
    assert "cannot be written" in str(result.exception)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_with_whole_lines(tmp_path: Path, number: signal.Signals) -> None:
    file_made = "node_order_statuses_streaming/hourly"

    def interrupt() -> None:
        while not (tmp_path / file_made).exists():
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    before = signal.getsignal(number)
    result = CliRunner().invoke(command, [str(tmp_path), "--torn", "--rate", "2000"])
    thread.join()
    assert (result.exit_code, signal.getsignal(number)) == (0, before)
    assert result.stderr.startswith("wrote ")
    assert all(data.endswith(b"\n") for name, data in tree(tmp_path).items() if "hourly" in name)
