"""`hyperwatch watch`: a client of the feed, a live table on a terminal and JSON lines elsewhere."""

from __future__ import annotations

import os
from functools import partial

import attrs
import click
import trio

from hyperwatch.cli.live import Notices, now_ms, refresh, until_signal
from hyperwatch.cli.options import DETAILS, detail_options, option
from hyperwatch.cli.screen import Output, is_terminal
from hyperwatch.cli.table import Board
from hyperwatch.cli.variables import TOKEN
from hyperwatch.client import Message, Orders, Subscription, complete, connect

__all__ = ["command"]

_URL = "ws://127.0.0.1:8000/ws"


@click.command("watch", short_help="Watch a feed: a live table, or JSON lines.")
@click.argument("url", default=_URL)
@option("--coin", "coins", multiple=True, help='A coin, as in BTC; "xyz:*" is every coin of a dex. Repeatable.')
@option("--user", "users", multiple=True, help="An account's address. Repeatable.")
@option("--status", "statuses", multiple=True,
        help="A status, or one of the classes live, removed, rejected, unknown. Repeatable.")  # fmt: skip
@option("--not-status", "not_statuses", multiple=True, help="A status or a class to leave out. Repeatable.")
@option("--side", "sides", type=click.Choice(["B", "A"]), multiple=True, help="B is bid, A is ask. Repeatable.")
@detail_options
@option("--from", "start", metavar="CURSOR|earliest", help="Where to begin.", show_default="the newest complete line")
@option("--count", type=click.IntRange(1), help="End after so many events.", show_default="no end")
def command(
    url: str,
    coins: tuple[str, ...],
    users: tuple[str, ...],
    statuses: tuple[str, ...],
    not_statuses: tuple[str, ...],
    sides: tuple[str, ...],
    start: str | None,
    count: int | None,
    **details: object,
) -> int:
    """Watch the feed at URL, ws://127.0.0.1:8000/ws unless you say otherwise; HOST:PORT is enough.

    On a terminal: a table of the newest orders. Elsewhere: the node's events, one JSON a line, as the node wrote them.
    Gaps, warnings and broken connections go to standard error; a connection that broke is made again, and goes on where
    it was. A service that asks for a token is given the one in HYPERWATCH_TOKEN. Ends on SIGINT or SIGTERM.
    """
    filters: dict[str, object] = {
        "coins": coins,
        "users": users,
        "statuses": statuses,
        "notStatuses": not_statuses,
        "sides": sides,
    }
    filters |= {key: details[name] for name, key in DETAILS.items()}
    wanted = {key: words for key, words in filters.items() if words not in (None, ())}
    if start is not None:
        wanted["from"] = start
    board = Board(count)
    watcher = _Watcher(complete(url), {"type": "orders", **wanted}, board, Output(), Notices(board))
    try:
        return trio.run(until_signal, watcher.watch)
    finally:
        watcher.notices.release()


@attrs.frozen
class _Watcher:
    url: str
    subscription: dict[str, object]
    board: Board
    output: Output
    notices: Notices

    async def watch(self) -> int:
        """Until --count, or until the feed says goodbye."""
        token = os.environ.get(TOKEN) or None
        async with connect(self.url, token=token, on_break=self.notices.note_break) as feed:
            orders = feed.subscribe(self.subscription)
            for warning in (await orders.begin()).warnings:
                self.notices.say(warning)
            await (self._table(orders) if is_terminal() else self._lines(orders))
        return 0

    async def _table(self, orders: Subscription[Message]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(refresh, self.board, f"hyperwatch watch {self.url}", self.output))
            async for message in orders:
                self.board.take(message.channel, message.data, now_ms())
                self.notices.note(message)
                if self.board.full:
                    break
            nursery.cancel_scope.cancel("the last message")

    async def _lines(self, orders: Subscription[Message]) -> None:
        left = self.board.limit
        async for message in orders:
            self.notices.note(message)
            if not isinstance(message, Orders):
                continue
            events = message.raws[:left]
            await self.output.write(b"".join(b"%s\n" % event for event in events))
            if left is not None:
                left -= len(events)
                if not left:
                    break
