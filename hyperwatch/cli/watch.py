"""`hyperwatch watch`: a client of the feed, a live table on a terminal and JSON lines elsewhere."""

from __future__ import annotations

import os
from functools import partial

import attrs
import click
import msgspec
import trio

from hyperwatch.cli.environment import TOKEN
from hyperwatch.cli.options import DETAILS, detail_options, option
from hyperwatch.cli.terminal.board import Board
from hyperwatch.cli.terminal.live import Notices, now_ms, refresh, until_signal
from hyperwatch.cli.terminal.output import Output, is_terminal
from hyperwatch.client import BookDiffs, Fills, Message, Orders, Subscription, connect, normalize_url
from hyperwatch.errors import UsageError
from hyperwatch.replay.range import Bound

__all__ = ["command"]

_TRADES = msgspec.json.Decoder(list[msgspec.Raw])
_URL = "ws://127.0.0.1:8000/ws"


def _start(_context: click.Context, parameter: click.Parameter, text: str | None) -> str | dict[str, int] | None:
    """What the feed takes as `from`; a cursor is for the service to judge."""
    if text is None or not text.startswith((*"0123456789", "block:")):
        return text
    try:
        bound = Bound.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None
    return {"block": bound.block} if bound.block is not None else {"time": bound.time_ms or 0}


@click.command("watch", short_help="Watch a feed: a live table, or JSON lines.")
@click.argument("url", default=_URL)
@option("--coin", "coins", multiple=True, help='A coin, as in BTC; "xyz:*" is every coin of a dex. Repeatable.')
@option("--user", "users", multiple=True, help="An account's address. Repeatable.")
@option("--status", "statuses", multiple=True,
        help="A status, or one of the classes live, removed, rejected, unknown. Repeatable.")  # fmt: skip
@option("--not-status", "not_statuses", multiple=True, help="A status or a class to leave out. Repeatable.")
@option("--side", "sides", type=click.Choice(["B", "A"]), multiple=True, help="B is bid, A is ask. Repeatable.")
@detail_options
@option("--type", "type_", type=click.Choice(["orders", "fills", "trades", "bookDiffs"]), default="orders",
        help="What to watch; of fills, trades and book diffs a table has no picture, so they come as lines.")  # fmt: skip
@option("--from", "start", metavar="CURSOR|earliest|WHEN", callback=_start,
        help="Where to begin: a cursor, earliest, block time as 2026-05-05T17:39:13 (UTC) or in ms since 1970, or block:N.",
        show_default="the newest complete line")  # fmt: skip
@option("--count", type=click.IntRange(1), help="End after so many events.", show_default="no end")
def command(
    url: str,
    type_: str,
    coins: tuple[str, ...],
    users: tuple[str, ...],
    statuses: tuple[str, ...],
    not_statuses: tuple[str, ...],
    sides: tuple[str, ...],
    start: str | dict[str, int] | None,
    count: int | None,
    **details: object,
) -> int:
    """Watch the feed at URL, ws://127.0.0.1:8000/ws unless you say otherwise; HOST:PORT is enough.

    On a terminal: a table of the newest orders. Elsewhere, and of other types: the node's events, one JSON a line, as the node wrote them.
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
    if type_ == "trades":
        wanted = _trades(wanted)
    _refuse_bytes(wanted)
    board = Board(count)
    watcher = _Watcher(normalize_url(url), {"type": type_, **wanted}, board, Output(), Notices(board))
    try:
        return trio.run(until_signal, watcher.watch)
    finally:
        watcher.notices.release()


def _refuse_bytes(wanted: dict[str, object]) -> None:
    """Raises UsageError for words that are no text: a shell may pass on any bytes."""
    try:
        msgspec.json.encode(wanted)
    except UnicodeEncodeError as error:
        what = f"the option's value {error.object!r} is no text"
        raise UsageError(what, "write it in UTF-8") from error


def _trades(wanted: dict[str, object]) -> dict[str, object]:
    """The official subscription. Raises UsageError for what it does not know: the service would let that pass unheard."""
    match wanted:
        case {"coins": (str(coin),), **rest} if not rest:
            return {"coin": coin}
        case _:
            what = "--type trades is of one coin, without other filters and without --from"
            raise UsageError(what, "name one coin with --coin, or watch --type fills")


def _events(message: Message) -> list[bytes]:
    """The node's events in a message, and trades, each as JSON."""
    match message:
        case Orders() | Fills() | BookDiffs():
            return message.raws
        case Message(channel="trades"):
            return [bytes(trade) for trade in _TRADES.decode(message.data)]
        case _:
            return []


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
            tabled = self.subscription["type"] == "orders" and is_terminal()
            await (self._table(orders) if tabled else self._lines(orders))
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
            events = _events(message)[:left]
            if not events:
                continue
            await self.output.write(b"".join(b"%s\n" % event for event in events))
            if left is not None:
                left -= len(events)
                if not left:
                    break
