"""Standard output, in ways that never hold up the event loop: lines, and a screen of a terminal.

A pipe that nobody reads and a terminal stopped by Ctrl-S block whoever writes to them. So a thread writes, and a
command that ends leaves it behind after a moment.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TextIO

import trio
from rich.console import Console, RenderableType
from rich.live import Live

from hyperwatch.errors import HyperwatchError

__all__ = ["ClosedOutputError", "Output", "is_terminal", "is_tty", "screen"]

_GRACE_S = 0.5  # for what is being written when the command ends


class ClosedOutputError(Exception):
    """Nobody reads standard output any more."""


class Output:
    """A descriptor to write to. One task at a time.

    Args:
        descriptor: by default standard output's.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._left = False  # a thread is still in a write that was given up: nobody else may write

    async def write(self, data: bytes) -> None:
        """Writes all of it; cancelled, it goes on for at most _GRACE_S, so that no line is cut if it can be helped.

        Raises:
            ClosedOutputError: where the reader of a pipe, or the terminal, is gone, or a write was given up.
            HyperwatchError: where it cannot be written, on a full disk for example.
        """
        if self._left:
            raise ClosedOutputError
        await (
            trio.lowlevel.checkpoint_if_cancelled()
        )  # from here on the thread starts, and there is a `done` to wait for
        token = trio.lowlevel.current_trio_token()
        done = trio.Event()

        def job() -> None:
            try:
                _write_all(self._descriptor, data)
            finally:
                with contextlib.suppress(trio.RunFinishedError):  # left behind, and the program went on
                    token.run_sync_soon(done.set)

        try:
            await trio.to_thread.run_sync(job, abandon_on_cancel=True)
        except trio.Cancelled:
            self._left = True
            with trio.move_on_after(_GRACE_S, shield=True):
                await done.wait()
                self._left = False
            raise
        except OSError as error:
            if error.errno in {errno.EPIPE, errno.EIO if os.isatty(self._descriptor) else errno.EPIPE}:
                raise ClosedOutputError from error
            what = f"standard output cannot be written ({error.strerror or error})"
            raise HyperwatchError(what, "free space, or send it elsewhere") from error


def is_tty(stream: TextIO | None) -> bool:
    """Whether a person sees what is written there. A stream that was closed before we began is None."""
    return stream is not None and stream.isatty()


def is_terminal(descriptor: int = 1) -> bool:
    """Whether a table can be drawn there."""
    return os.isatty(descriptor) and os.environ.get("TERM", "") not in ("", "dumb")


@contextlib.asynccontextmanager
async def screen(output: Output) -> AsyncIterator[Callable[[RenderableType], Awaitable[None]]]:
    """The terminal's second screen; in the end the first one is back as it was.

    Yields:
        What shows a picture in place of the one before.
    """
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=True)
    live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    async def flush() -> None:
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        await output.write(text.encode())

    async def show(picture: RenderableType) -> None:
        live.update(picture, refresh=True)
        await flush()

    live.start()
    try:
        yield show
    finally:
        live.stop()
        with trio.move_on_after(_GRACE_S, shield=True), contextlib.suppress(ClosedOutputError):
            await flush()


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
