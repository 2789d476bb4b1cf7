"""Connections in: accepted one after another, also where the system has nothing left to accept them with."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio
from loguru import logger

__all__ = ["RETRY_S", "SPAN_S", "Bursts", "accept_all"]

RETRY_S = 0.1
SPAN_S = 60.0

_REMEDIES = {
    errno.EMFILE: "raise the limit of open files (ulimit -n, LimitNOFILE), or lower --max-connections",
    errno.ENFILE: "the whole system has no more open files: raise fs.file-max",
}

Listener = trio.abc.Listener[trio.SocketStream]
Handler = Callable[[trio.SocketStream], Awaitable[object]]


@attrs.define
class Bursts:
    """Says that no connection can be accepted: once for all failures within a span of the first of them."""

    _since_s: float = -SPAN_S
    _more: int = 0

    def failed(self, error: OSError, now_s: float) -> None:
        """Logs a line, unless there was one."""
        if now_s - self._since_s < SPAN_S:
            self._more += 1
            return
        before = f"; {self._more} more tries failed in the minute that the last such line began" if self._more else ""
        self._since_s, self._more = now_s, 0
        remedy = _REMEDIES.get(error.errno or 0, "give the system more memory")
        logger.error(
            "no connection can be accepted ({}): those that wait are when there is room; {}{}",
            error.strerror or error, remedy, before,
        )  # fmt: skip


async def accept_all(handler: Handler, listeners: Sequence[Listener], *, handlers: trio.Nursery | None = None) -> None:
    """Accepts until it is cancelled, and serves each connection in a task of its own. Closes the listeners in the end.

    Args:
        handler: serves one; what it leaves open is closed.
        listeners: open.
        handlers: who owns the tasks; None: they end with this.
    """
    bursts = Bursts()
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_accept, handler, listener, handlers or nursery, bursts)


async def _accept(handler: Handler, listener: Listener, handlers: trio.Nursery, bursts: Bursts) -> None:
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:  # a connection that was lost meanwhile is none: trio tries the next
                bursts.failed(error, trio.current_time())
                await trio.sleep(RETRY_S)
            else:
                handlers.start_soon(_serve, handler, stream)


async def _serve(handler: Handler, stream: trio.SocketStream) -> None:
    try:
        await handler(stream)
    finally:
        await trio.aclose_forcefully(stream)
