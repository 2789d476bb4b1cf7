"""What `watch` and `demo` share: a table that lives, and an end by signals."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import trio

from hyperwatch.cli.terminal.board import Board, gap_text
from hyperwatch.cli.terminal.output import ClosedOutputError, Output, is_terminal, is_tty, screen
from hyperwatch.cli.terminal.picture import Picture
from hyperwatch.client import FeedError, Gap, Message
from hyperwatch.runtime import logs

__all__ = ["Notices", "now_ms", "refresh", "until_signal"]

_REFRESH_S = 0.25


@attrs.frozen
class Notices:
    """Where gaps and warnings go: to standard error, but below a table to the table, and on after its end."""

    board: Board
    held: bool = attrs.field(factory=lambda: is_terminal() and is_tty(sys.stderr))
    """Whether a line on standard error would spoil the table."""

    def say(self, text: str) -> None:
        if self.held:
            self.board.notices.append(text)
        else:
            logs.say(f"hyperwatch: {text}")

    def note(self, message: Message) -> None:
        """Says what of a message is a gap."""
        if isinstance(message, Gap):
            self.say(gap_text(message.data))

    def note_break(self, error: FeedError) -> None:
        """Says why a connection ended that is made again."""
        self.say(f"{error.what}; connecting again")

    def release(self) -> None:
        """The table is gone: what it showed goes to standard error."""
        if self.held:
            for text in self.board.notices:
                logs.say(f"hyperwatch: {text}")


def now_ms() -> int:
    """UTC ms since 1970."""
    return time.time_ns() // 1_000_000


async def refresh(board: Board, title: str, output: Output) -> None:
    """Shows a board on the terminal's second screen until it is cancelled."""
    async with screen(output) as show:
        while True:
            await show(Picture(board, title, board.tick(trio.current_time())))
            await trio.sleep(_REFRESH_S)


async def until_signal(work: Callable[[], Awaitable[int]]) -> int:
    """Does some work; SIGINT, SIGTERM or the end of the terminal (SIGHUP, unless under nohup) cancels it.

    Returns:
        The exit code: the work's own, 128 and the signal's number, or 0 where nobody reads the output any more.

    Raises:
        BaseExceptionGroup: of what the work raises.
    """
    code = 0
    hung_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *hung_up) as signals:

        async def wait() -> None:
            nonlocal code
            code = 128 + await _first(signals)
            nursery.cancel_scope.cancel("a signal")

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                code = await work()
                nursery.cancel_scope.cancel("the work is done")
        except* ClosedOutputError:
            code = 0
        except* KeyboardInterrupt:
            code = 128 + signal.SIGINT  # it came before the receiver was there
    return code


async def _first(signals: AsyncIterator[int]) -> int:
    async for number in signals:
        return number
    raise AssertionError  # pragma: no cover  the receiver does not end
