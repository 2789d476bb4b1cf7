"""`hyperwatch demo`: a simulator, the sidecar and a live view on a temporary directory. No node needed."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import click
import trio
from loguru import logger

from hyperwatch.cli.options import LAYOUT, NumberRange, option
from hyperwatch.cli.terminal.board import Board
from hyperwatch.cli.terminal.live import Notices, now_ms, refresh, until_signal
from hyperwatch.cli.terminal.output import ClosedOutputError, Output, is_terminal
from hyperwatch.client import Message, Subscription, connect
from hyperwatch.config import Address, Config
from hyperwatch.errors import HyperwatchError
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.runtime import logs
from hyperwatch.service import service
from hyperwatch.simulate.hour_files import simulate
from hyperwatch.simulate.model import Summary

__all__ = ["command"]

_LINE_S = 1.0
_LAST_S = 5.0  # for what was written last to arrive


@click.command("demo", short_help="Show it at work, no node needed.")
@option("--seconds", type=NumberRange(0.1), help="End after so long, and check that nothing was lost.",
        show_default="no end")  # fmt: skip
@option("--rate", metavar="LINES/S", type=NumberRange(1, 200_000), default=2000.0, help="Orders to simulate.")
@option("--layout", type=LAYOUT, default=Layout.STREAMING.label, help="Which files to write.")
@option("--listen", metavar="HOST:PORT", default="127.0.0.1:0", help="Where clients connect. Port 0: any free one.")
def command(seconds: float | None, rate: float, layout: str, listen: str) -> int:
    """Run a simulated node, the sidecar and a live view of its feed, all on a temporary directory.

    On a terminal: a table of the newest orders. Elsewhere: a line every second. Other clients can connect meanwhile, and
    have fills, trades and book diffs too.
    Ends on SIGINT or SIGTERM and leaves nothing behind. The directory grows by 5 GB an hour at the default rate.
    """
    board = Board()
    demo = _Demo(seconds, rate, Layout.of_label(layout), Address.parse(listen), board, Output(), Notices(board))
    logger.remove()
    logger.add(lambda text: demo.notices.say(text.rstrip()), level="WARNING", format="{level} {message}")
    try:
        return trio.run(demo.run)
    finally:
        demo.notices.release()


class _Node:
    """The simulated node: a thread that writes until it is told to stop, or cancelled, then at most one block more."""

    def __init__(self, root: Path, layout: Layout, rate: float) -> None:
        self._root = root
        self._layout = layout
        self._rate = rate
        self._stopped = False
        self._done = trio.Event()
        self._summary: Summary | None = None

    async def run(self) -> None:
        """Writes. Raises HyperwatchError where the disk does not take it."""
        write = partial(simulate, layouts=(self._layout,), rate=self._rate, stop=self._asked)
        try:
            self._summary = await trio.to_thread.run_sync(write, self._root)
        except OSError as error:
            what = f"{self._root} cannot be written ({error.strerror or error})"
            raise HyperwatchError(what, "free space, or set TMPDIR to a directory that has some") from error
        self._done.set()

    async def stop(self) -> int:
        """Ends it, and says how many orders it wrote."""
        self._stopped = True
        await self._done.wait()
        assert self._summary is not None  # noqa: S101  done was set after it
        if self._layout is Layout.BY_BLOCK:  # a line is a block there
            return await trio.to_thread.run_sync(_count_orders, self._root)
        return self._summary.lines[ORDERS.directory(self._layout)]

    def _asked(self) -> bool:
        trio.from_thread.check_cancelled()
        return self._stopped


@attrs.define
class _Demo:
    seconds: float | None
    rate: float
    layout: Layout
    listen: Address
    board: Board
    output: Output
    notices: Notices
    began_s: float = 0.0
    _written: int | None = None
    _arrived: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> int:
        """Returns the exit code."""
        self.began_s = trio.current_time()
        code = await until_signal(self._in_directory)
        lost = 0 if self._written is None else self._written - self.board.orders
        with trio.move_on_after(_LINE_S):
            try:
                await self.output.write(f"{self._summary(code, lost)}\n".encode())
            except ClosedOutputError:
                return code
        return code or int(lost != 0 or self.board.gaps != 0)

    async def _in_directory(self) -> int:
        with TemporaryDirectory(prefix="hyperwatch-demo-") as folder:
            data = Path(folder) / "data"
            data.mkdir()
            config = Config(data_dir=data, listen=self.listen, layout=self.layout)
            async with trio.open_nursery() as nursery:
                port = await nursery.start(partial(service.run, config, signals=False))
                address = Address(self.listen.host, port)
                url = f"ws://{address}/ws"
                page = f"a page for browsers at http://{address}/"
                logs.say(f"the feed is at {url}; {page}; to connect another client: hyperwatch watch {url}")
                await self._play(url, _Node(data, self.layout, self.rate))
                nursery.cancel_scope.cancel("the demo is over")
        return 0

    async def _play(self, url: str, node: _Node) -> None:
        page = url.replace("ws://", "http://").removesuffix("ws")
        async with connect(url, on_break=self.notices.note_break) as feed:
            orders = feed.orders()
            await orders.begin()
            self.began_s = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.run)
                nursery.start_soon(self._receive, orders)
                if is_terminal():
                    nursery.start_soon(refresh, self.board, f"hyperwatch demo  {url}  {page}", self.output)
                else:
                    nursery.start_soon(self._lines)
                await trio.sleep(float("inf") if self.seconds is None else self.seconds)
                written = await node.stop()
                with trio.move_on_after(_LAST_S):
                    await self._until(written)
                self._written = written
                nursery.cancel_scope.cancel("the demo is over")

    async def _receive(self, orders: Subscription[Message]) -> None:
        async for message in orders:
            self.board.take(message.channel, message.data, now_ms())
            self.notices.note(message)
            self._arrived.set()
            self._arrived = trio.Event()

    async def _until(self, written: int) -> None:
        while self.board.orders < written:
            await self._arrived.wait()

    async def _lines(self) -> None:
        """A line every second, for those who have no terminal."""
        number = 0
        self.board.tick(self.began_s)
        while True:
            number += 1
            await trio.sleep_until(self.began_s + number * _LINE_S)
            await self.output.write(f"{self._line(number)}\n".encode())

    def _line(self, number: int) -> str:
        board = self.board
        rate = board.tick(trio.current_time())
        behind = "-" if board.lag_ms is None else f"{board.lag_ms / 1000:.3f} s"
        block = "-" if board.block is None else str(board.block)
        return f"t={number} s {board.orders:,} orders, {rate:,.0f}/s, block {block}, behind {behind}"

    def _summary(self, code: int, lost: int) -> str:
        board = self.board
        how = f"{signal.Signals(code - 128).name} after" if code > 128 else "done in"  # noqa: PLR2004  as shells have it
        text = f"{how} {trio.current_time() - self.began_s:.1f} s: {board.orders:,} orders received"
        if self._written is None:
            return f"{text}, lost 0 by seq"
        return f"{text} of {self._written:,} written, lost 0 by seq and {lost:,} by count"


def _count_orders(root: Path) -> int:
    """How many orders the files hold. Blocking."""
    total = 0
    for path in root.glob(f"{ORDERS.name}*/hourly/*/*"):
        with path.open("rb") as file:
            total += sum(line.count(b'"status":"') for line in file)
    return total
