from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import trio
from loguru import logger

from hyperwatch.cli import demo
from hyperwatch.cli.terminal.board import Board
from hyperwatch.cli.terminal.live import Notices
from hyperwatch.cli.terminal.output import Output
from hyperwatch.client import Orders, connect
from hyperwatch.config import Address
from hyperwatch.errors import HyperwatchError
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.simulate.hour_files import simulate
from terminal import PROGRAM, environment, terminal


@pytest.mark.parametrize("layout", ["streaming", "by-block"])
def test_a_demo_on_a_pipe_ends_by_itself_and_lost_nothing(tmp_path: Path, layout: str) -> None:
    done = subprocess.run(
        [*PROGRAM, "demo", "--seconds", "0.5", "--rate", "1000", "--layout", layout],
        check=False, capture_output=True, text=True, env=environment(tmp_path), timeout=30,
    )  # fmt: skip
    last = re.fullmatch(
        r"done in [\d.]+ s: ([\d,]+) orders received of ([\d,]+) written, lost 0 by seq and 0 by count\n", done.stdout
    )
    assert last, done.stdout + done.stderr
    assert last[1] == last[2] != "0"
    assert re.fullmatch(r"the feed is at (ws://127.0.0.1:\d+/ws); .*: hyperwatch watch \1\n", done.stderr)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_a_second_client_sees_orders_and_one_signal_ends_all(tmp_path: Path, number: int, code: int) -> None:
    process = await trio.lowlevel.open_process(
        [*PROGRAM, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path)
    )
    assert process.stdout is not None
    assert process.stderr is not None
    told = b""
    while not told.endswith(b"\n"):
        told += await process.stderr.receive_some()
    async with connect(told.split()[-1].decode(), on_break=lambda _error: None) as feed:
        async for message in feed.orders():
            if isinstance(message, Orders):
                break
        process.send_signal(number)
        with trio.fail_after(3):
            assert await process.wait() == code
    said = b"".join([piece async for piece in process.stdout]).decode()
    assert re.search(rf"{signal.Signals(number).name} after [\d.]+ s: [\d,]+ orders received, lost 0 by seq\n$", said)
    assert b"".join([piece async for piece in process.stderr]) == b""
    assert os.listdir(tmp_path) == []  # noqa: PTH208  the rule for async functions knows no better


@pytest.mark.slow
def test_a_demo_on_a_terminal_shows_orders_within_5_s_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with terminal("demo", "--seconds", "2", temporary=tmp_path) as shown:
        assert shown.read_until(r"hyperwatch demo +ws://127.0.0.1:\d+/ws", 5)
        assert shown.read_until(r"\d\d:\d\d:\d\d +\S+ +(bid|ask) +\w+ .* 0x\w{4} +\d+ ms", 5)
        text = shown.read_to_end(10)
        assert shown.process.wait(5) == 0
    assert re.search(r"[\d,]+ orders/s   [\d,]+ orders   block [\d,]+   lag \d+\.\d+ s", text)
    back = shown.raw.rpartition("\x1b[?1049l")
    assert back[1]
    assert re.search(r"orders received of [\d,]+ written, lost 0 by seq and 0 by count", back[2])
    assert list(tmp_path.iterdir()) == []


async def test_a_lost_order_is_found_by_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted = demo._Node.stop

    async def one_more(node: demo._Node) -> int:
        return await counted(node) + 1

    monkeypatch.setattr(demo._Node, "stop", one_more)
    monkeypatch.setattr(demo, "_LAST_S", 0.5)
    monkeypatch.setattr(demo, "is_terminal", lambda: False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    board = Board()
    out = tmp_path / "out"
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT)
    play = demo._Demo(
        0.1, 1000.0, Layout.STREAMING, Address("127.0.0.1", 0), board, Output(descriptor), Notices(board, held=True)
    )
    try:
        assert await play.run() == 1
    finally:
        os.close(descriptor)
    assert "lost 0 by seq and 1 by count" in out.read_text()
    assert os.listdir(tmp_path) == [out.name]  # noqa: PTH208


async def test_a_directory_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_arguments: object, **_settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(demo, "simulate", full)
    with pytest.raises(
        HyperwatchError, match=r"cannot be written \(No space left on device\): free space, or set TMPDIR"
    ):
        await demo._Node(tmp_path, Layout.STREAMING, 1000.0).run()


def test_orders_in_blocks_are_counted_in_the_files(tmp_path: Path) -> None:
    layouts = (Layout.STREAMING, Layout.BY_BLOCK)
    done = simulate(
        tmp_path, layouts=layouts, streams=(ORDERS,), blocks=5, clock=lambda: 0.0, sleep=lambda _seconds: None
    )
    for path in (tmp_path / ORDERS.directory(Layout.STREAMING)).rglob("*"):
        if path.is_file():
            path.unlink()
    assert demo._count_orders(tmp_path) == done.lines[ORDERS.directory(Layout.STREAMING)]


def test_warnings_of_the_service_do_not_disturb_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board()
    notices = Notices(board, held=True)
    number = logger.add(lambda text: notices.say(text.rstrip()), level="WARNING", format="{level} {message}")
    try:
        logger.warning("slow")
    finally:
        logger.remove(number)
    assert "hyperwatch: " not in capsys.readouterr().err
    notices.release()
    assert capsys.readouterr().err == "hyperwatch: WARNING slow\n"
