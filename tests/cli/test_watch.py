from __future__ import annotations

import io
import os
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path

import click
import msgspec
import pytest
import trio
from click.testing import CliRunner
from rich.console import Console

import client_support
from hyperwatch.cli import watch
from hyperwatch.cli.terminal import output as output_module
from hyperwatch.cli.terminal.board import Board, gap_text
from hyperwatch.cli.terminal.live import until_signal
from hyperwatch.cli.terminal.output import ClosedOutputError, Output
from hyperwatch.cli.terminal.picture import Picture
from hyperwatch.client import Message
from hyperwatch.config import Address, Config
from hyperwatch.errors import HyperwatchError, UsageError
from hyperwatch.log.positions import Cursor
from hyperwatch.node.streams import DIFFS, FILLS, ORDERS, Layout
from hyperwatch.server.websocket import ServerWebSocket
from hyperwatch.service import service
from hyperwatch.simulate.hour_files import simulate
from support import append, diff, fill, hour_file, line
from terminal import PROGRAM, environment, terminal


def write(root: Path, blocks: int = 10, rate: float = 2000) -> list[bytes]:
    """Simulates, and returns the events as the node wrote them."""
    simulate(root, streams=(ORDERS,), rate=rate, blocks=blocks, clock=lambda: 0.0, sleep=lambda _seconds: None)
    files = sorted((root / ORDERS.directory(Layout.STREAMING)).glob("hourly/*/*"))
    lines = [line for path in files for line in path.read_bytes().splitlines()]
    return [line[line.index(b'"events":[') + 10 : -2] for line in lines]


async def serve(nursery: trio.Nursery, root: Path) -> int:
    config = Config(data_dir=root, listen=Address("127.0.0.1", 0), layout=Layout.STREAMING, workers=1)
    return int(await nursery.start(partial(service.run, config, signals=False)))


# The command.


async def run(port: int, *arguments: str, tmp_path: Path) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [*PROGRAM, "watch", f"127.0.0.1:{port}", *arguments],
        check=False, capture_stdout=True, capture_stderr=True, env=environment(tmp_path),
    )  # fmt: skip


async def test_watch_prints_the_events_verbatim_and_nothing_else(tmp_path: Path, nursery: trio.Nursery) -> None:
    expected = write(tmp_path)
    port = await serve(nursery, tmp_path)
    done = await run(port, "--from", "earliest", "--count", str(len(expected)), tmp_path=tmp_path)
    assert done.stdout == b"".join(event + b"\n" for event in expected)
    assert (done.returncode, done.stderr) == (0, b"")


async def test_watch_filters_and_warns(tmp_path: Path, nursery: trio.Nursery) -> None:
    parts = [(event, msgspec.json.decode(event)) for event in write(tmp_path)]
    wanted = [event for event, part in parts if part["order"]["coin"] == "BTC" and part["order"]["side"] == "B"]
    port = await serve(nursery, tmp_path)
    words = ("--from", "earliest", "--coin", "BTC", "--side", "B", "--not-status", "opne", "--count", "5")
    done = await run(port, *words, tmp_path=tmp_path)
    assert done.stdout.splitlines() == wanted[:5]
    assert (done.returncode, done.stderr) == (0, b"hyperwatch: no status 'opne' is known; did you mean 'open'?\n")


@pytest.mark.parametrize("type_", ["fills", "bookDiffs"])
async def test_watch_shows_fills_and_book_diffs_as_the_node_wrote_them(
    tmp_path: Path, nursery: trio.Nursery, type_: str
) -> None:
    events = {"fills": fill(7), "bookDiffs": diff(7)}
    for stream, each in ((ORDERS, b""), (FILLS, events["fills"]), (DIFFS, events["bookDiffs"])):
        append(hour_file(tmp_path / "node", "20260505/9", stream=stream), line(7, [each]) if each else b"")
    port = await serve(nursery, tmp_path / "node")
    done = await run(port, "--type", type_, "--from", "earliest", "--count", "1", tmp_path=tmp_path)
    assert (done.returncode, done.stdout) == (0, events[type_] + b"\n")


def test_watch_shows_trades_each_on_a_line() -> None:
    assert watch._events(Message("trades", b'[{"tid":1},{"tid":2}]')) == [b'{"tid":1}', b'{"tid":2}']


@pytest.mark.parametrize("words", [[], ["--coin", "BTC", "--coin", "ETH"], ["--coin", "BTC", "--from", "earliest"]])
def test_what_trades_cannot_be_asked_for_is_said_before_silence(words: list[str]) -> None:
    result = CliRunner().invoke(watch.command, ["--type", "trades", *words])
    assert isinstance(result.exception, UsageError)
    assert "name one coin with --coin" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("2026-05-05T17:39:13", {"time": 1778002753000}),
        ("1778002753024", {"time": 1778002753024}),
        ("block:985148182", {"block": 985148182}),
        ("earliest", "earliest"),
        (Cursor("node_order_statuses").encode(), Cursor("node_order_statuses").encode()),
    ],
)
def test_watch_takes_times_as_replay_does(text: str, start: object) -> None:
    assert watch.command.make_context("watch", ["--from", text]).params["start"] == start


def test_watch_says_that_seconds_are_no_milliseconds() -> None:
    with pytest.raises(click.BadParameter, match="is not ms since 1970"):
        watch.command.make_context("watch", ["--from", "1778002753"])


async def test_watch_says_in_one_line_what_is_wrong_with_a_filter(tmp_path: Path, nursery: trio.Nursery) -> None:
    done = await run(await serve(nursery, tmp_path), "--user", "0x12", tmp_path=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == (
        b"hyperwatch: the feed refused the subscription: Invalid subscription: "
        b"'0x12' is no address: 0x and 40 hex digits are\n"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_watch_between_two_lines(
    tmp_path: Path, nursery: trio.Nursery, number: int, code: int
) -> None:
    expected = write(tmp_path, blocks=1)
    port = await serve(nursery, tmp_path)
    process = await trio.lowlevel.open_process(
        [*PROGRAM, "watch", f"127.0.0.1:{port}", "--from", "earliest"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    whole = b"".join(event + b"\n" for event in expected)
    found = b""
    while len(found) < len(whole):
        found += await process.stdout.receive_some()
    process.send_signal(number)
    assert await process.wait() == code
    assert found == whole
    assert b"".join([piece async for piece in process.stdout]) == b""
    assert b"".join([piece async for piece in process.stderr]) == b""


async def test_watch_ends_quietly_where_nobody_reads(tmp_path: Path, nursery: trio.Nursery) -> None:
    assert sum(map(len, write(tmp_path))) > 2 * 65536  # more than a pipe holds
    port = await serve(nursery, tmp_path)
    process = await trio.lowlevel.open_process(
        [*PROGRAM, "watch", f"127.0.0.1:{port}", "--from", "earliest"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert await process.stdout.receive_some(100)
    await process.stdout.aclose()
    assert await process.wait() == 0
    assert b"".join([piece async for piece in process.stderr]) == b""


async def test_watch_connects_again_and_goes_on_where_it_was(tmp_path: Path) -> None:
    wishes: list[dict[str, object]] = []

    async def serve(peer: ServerWebSocket) -> None:
        request = msgspec.json.decode(await peer.receive())
        start_point = request["subscription"]
        wishes.append(start_point)
        answer = {"channel": "subscriptionResponse", "data": request, "cursor": "begin", "warnings": []}
        await peer.send(msgspec.json.encode(answer))
        await peer.send(client_support.orders(start_point["id"], 1, f"c{len(wishes)}", b'{"number": %d}' % len(wishes)))
        await peer.close(*((1001, "shutting down") if len(wishes) == 1 else (1000, "that was all")))

    async with client_support.listener(serve) as url:
        done = await run(int(url.split(":")[2].removesuffix("/ws")), "--coin", "BTC", tmp_path=tmp_path)
    assert wishes == [
        {"type": "orders", "coins": ["BTC"], "id": "1"},
        {"type": "orders", "coins": ["BTC"], "id": "2", "from": "c1"},
    ]
    assert done.stdout == b'{"number": 1}\n{"number": 2}\n'
    what = f"the connection to {url} was closed by the service (code 1001: shutting down)"
    assert (done.returncode, done.stderr.decode()) == (0, f"hyperwatch: {what}; connecting again\n")


async def test_watch_gives_the_token_of_the_environment_and_names_the_variable_where_it_is_wrong(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    server = client_support.Plain(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
    listeners = await nursery.start(partial(trio.serve_tcp, server.handle, 0, host="127.0.0.1"))
    url = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    done = await trio.run_process(
        [*PROGRAM, "watch", url], check=False, capture_stdout=True, capture_stderr=True,
        env=environment(tmp_path) | {"HYPERWATCH_TOKEN": "t0ken"},
    )  # fmt: skip
    assert b"bearer t0ken" in server.heads[0].lower()
    assert (done.returncode, done.stdout) == (1, b"")
    assert (
        b"(HTTP 401, no): give a token of that service: hyperwatch watch takes it from HYPERWATCH_TOKEN" in done.stderr
    )
    nursery.cancel_scope.cancel()


async def test_watch_draws_a_table_on_a_terminal_and_restores_it(tmp_path: Path, nursery: trio.Nursery) -> None:
    write(tmp_path)
    port = await serve(nursery, tmp_path)

    def use() -> None:
        with terminal("watch", f"127.0.0.1:{port}", "--from", "earliest", "--not-status", "opne", "--coin", "BTC",
                      temporary=tmp_path) as shown:  # fmt: skip
            assert shown.read_until(r"BTC +(bid|ask) +\w+", 10)
            assert shown.read_until("no status 'opne' is known", 10)
            shown.process.send_signal(signal.SIGINT)
            shown.read_to_end(5)
            assert shown.process.wait(5) == 130
            after = shown.raw.rpartition("\x1b[?1049l")  # back from the second screen
            assert after[1]
            assert "\x1b[?25h" in shown.raw  # the cursor is seen again
            assert "hyperwatch: no status 'opne' is known" in after[2]

    await trio.to_thread.run_sync(use)


# What it writes to.


async def test_a_pipe_that_nobody_reads_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    whole = output_module._write_all

    def write_all(descriptor: int, data: bytes) -> None:
        try:
            whole(descriptor, data)
        finally:
            ended.set()

    monkeypatch.setattr("hyperwatch.cli.terminal.output._write_all", write_all)
    reader, writer = os.pipe()
    output = Output(writer)
    with trio.move_on_after(0.01) as scope:
        await output.write(b"x" * 1_000_000)
    assert scope.cancelled_caught
    assert not ended.is_set()
    with pytest.raises(ClosedOutputError):
        await output.write(b"never after half a line")
    os.close(reader)  # the thread ends with EPIPE
    assert await trio.to_thread.run_sync(ended.wait, 5)
    os.close(writer)  # not before: another test's file may get its number


async def test_a_line_is_written_to_its_end_though_cancelled() -> None:
    reader, writer = os.pipe()
    data = b"x" * 200_000
    found = bytearray()

    def read() -> None:
        while len(found) < len(data):
            found.extend(os.read(reader, 65536))

    async def write_cancelled() -> None:
        with trio.CancelScope() as scope:
            trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
            await Output(writer).write(data)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, read)
            nursery.start_soon(write_cancelled)
        assert bytes(found) == data
    finally:
        os.close(reader)
        os.close(writer)


async def test_a_full_disk_is_an_error_that_says_so() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(HyperwatchError, match=r"standard output cannot be written \(No space left on device\)"):
            await Output(descriptor).write(b"x")
    finally:
        os.close(descriptor)


# The table's state.


def event(coin: str = "BTC", status: str = "open", side: str = "B", **more: object) -> dict[str, object]:
    order = {"coin": coin, "side": side, "limitPx": "81300.0", "sz": "0.5", "origSz": "1.0"} | more
    return {"time": "2026-05-05T17:39:13.024123456", "user": "0x" + "ab" * 20, "status": status, "order": order}


def orders(*events: dict[str, object], block: int | None = 7, block_ms: int | None = 1000) -> bytes:
    return msgspec.json.encode({"id": "1", "seq": 1, "blockNumber": block, "blockTime": block_ms, "events": events})


def test_the_newest_order_stands_first() -> None:
    board = Board()
    board.take("orders", orders(event("BTC"), event("ETH", side="A")), 1250)
    board.take("orders", orders(event("SOL", "filled"), block=8), 1350)
    assert [(row.coin, row.side, row.status, row.latency_ms) for row in board.rows] == [
        ("SOL", "bid", "filled", 350),
        ("ETH", "ask", "open", 250),
        ("BTC", "bid", "open", 250),
    ]
    assert (board.rows[0].time, board.rows[0].price, board.rows[0].size) == ("17:39:13.024", "81300.0", "0.5/1.0")
    assert (board.orders, board.block, dict(board.statuses)) == (3, 8, {"open": 2, "filled": 1})


def test_an_event_of_unknown_kind_is_an_order_of_which_nothing_is_known() -> None:
    board = Board()
    board.take("orders", orders(event("BTC"), {"account": "0x"}), 1250)

    assert [(row.coin, row.status) for row in board.rows] == [("?", "?"), ("BTC", "open")]
    assert board.orders == 2


def test_a_limit_cuts_the_message_that_reaches_it() -> None:
    board = Board(limit=3)
    board.take("orders", orders(event("BTC"), event("ETH")), 0)
    full = [board.full]
    board.take("orders", orders(event("SOL"), event("XRP")), 0)
    full.append(board.full)
    assert full == [False, True]
    assert [row.coin for row in board.rows] == ["SOL", "ETH", "BTC"]


def test_what_a_busy_feed_sends_does_not_grow_the_board() -> None:
    board = Board()
    for _ in range(3):
        board.take("orders", orders(*[event()] * 1000), 0)
    assert board.orders == 3000
    assert len(board.rows) == 200


def test_the_plain_layout_has_no_block_and_no_write_time() -> None:
    board = Board()
    board.take("orders", orders(event(), block=None, block_ms=None), 0)
    board.take("cursor", b'{"id":"1","seq":2,"cursor":"c","blockNumber":null,"writeTime":null}', 5000)
    assert (board.block, board.lag_ms, board.rows[0].latency_ms) == (None, None, None)


def test_lag_is_now_minus_the_nodes_write_time() -> None:
    board = Board()
    board.take("cursor", b'{"id":"1","seq":2,"cursor":"c","blockNumber":9,"writeTime":4900,"readTime":4910}', 5000)
    assert (board.block, board.lag_ms) == (9, 100)


def test_the_rate_is_taken_over_three_seconds() -> None:
    board = Board()
    assert board.tick(0.0) == 0.0
    for second in range(1, 6):
        board.take("orders", orders(*[event()] * 100 * second), 0)
        rate = board.tick(float(second))
    assert rate == (300 + 400 + 500) / 3
    assert board.tick(8.0) == 0.0


def test_numbers_and_names_of_any_kind_are_shown_and_move_no_cursor() -> None:
    board = Board()
    board.take("orders", orders(event("\x1b[2J", limitPx=5, sz=None)), 0)
    row = board.rows[0]
    assert (row.coin, row.price, row.size) == ("?[2J", "5", "null/1.0")


def test_a_gap_is_counted_and_said_in_words() -> None:
    edge = {"block": 5, "time": None, "index": 3}
    gap = {"stream": "node_order_statuses", "reason": "unreadable", "from": edge, "to": {"block": None, "time": 9}}
    data = msgspec.json.encode({"id": "1", "seq": 1, "cursor": "c", **gap, "readable": False})
    board = Board()
    board.take("gap", data, 0)
    assert board.gaps == 1
    assert gap_text(data) == (
        "gap: node_order_statuses from event 3 of block 5 to event 0 of time 9 ms was not delivered (unreadable); "
        "it cannot be read any more"
    )


@pytest.mark.parametrize(("columns", "user"), [(80, "0xabab "), (120, "0xabab…abab")])
def test_the_table_fits_the_terminal(columns: int, user: str) -> None:
    board = Board()
    board.take("orders", orders(*[event("xyz:SP500", "positionIncreaseAtOpenInterestCapRejected")] * 100), 1350)
    board.notices.append("n" * 200)
    file = io.StringIO()
    console = Console(file=file, width=columns, height=24)
    console.print(Picture(board, "hyperwatch watch ws://127.0.0.1:8000/ws", 1998.4), height=24)
    lines = file.getvalue().splitlines()
    assert len(lines) == 24
    assert max(map(len, lines)) <= columns
    assert lines[1].rstrip() == "1,998 orders/s   100 orders   block 7   lag -"
    assert "xyz:SP500" in lines[-1]
    assert "0.5/1.0" in lines[-1]
    assert user in lines[-1]
    assert lines[-1].rstrip().endswith("350 ms")


@pytest.mark.parametrize("columns", [20, 30, 40, 60, 79, 80, 104, 200])
@pytest.mark.parametrize("price", ["0.5", "0.000012345678", "1234567890.12345678"])
def test_a_narrow_terminal_drops_columns_and_never_cuts_a_number(columns: int, price: str) -> None:
    board = Board()
    board.take("orders", orders(event("xyz:SP500", limitPx=price, sz="1234567.12345", origSz="12345678.12345")), 1350)
    file = io.StringIO()
    console = Console(file=file, width=columns, height=24)
    console.print(Picture(board, "hyperwatch watch", 1.0), height=24)
    head, row = file.getvalue().splitlines()[-2:]
    assert max(map(len, (head, row))) <= columns
    assert price in row.split()
    assert ("size/original" in head) == ("1234567.12345/12345678.12345" in row)
    assert ("latency" in head) == ("350 ms" in row)


# The end.


async def test_an_interrupt_from_before_the_receiver_is_an_end_like_any_other() -> None:
    async def work() -> int:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    assert await until_signal(work) == 130
