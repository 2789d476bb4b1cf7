"""The server: connections in, each with an owner and an end."""

from __future__ import annotations

import trio
from loguru import logger

from hyperwatch.feed.connection import Connection
from hyperwatch.feed.streams import Streams
from hyperwatch.feed.wire import GoneError, RefusedError, accept

__all__ = ["Server"]

_HANDSHAKE_S = 5.0
_PATH = "/ws"


class Server:
    """Accepts clients and serves each in a task of its own.

    Args:
        streams: what clients can subscribe to; more may be added to it.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._closing = False
        self._gone = trio.Event()
        self.connections: set[Connection] = set()

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serves one client until it is gone. Nothing that goes wrong with it leaves this function."""
        try:
            async with accept(stream, _HANDSHAKE_S, self._answer) as socket:
                await self._serve(Connection(socket, self._streams), socket.peer)
        except* (GoneError, RefusedError) as group:
            logger.debug("a connection ended: {}", _first(group))
        except* Exception as group:  # noqa: BLE001  one connection: a boundary named in the design
            logger.opt(exception=group).error("a connection was ended by a fault of ours; the others go on")

    def refuse(self) -> None:
        """New clients are answered 503 from now on."""
        self._closing = True

    async def close(self, code: int, reason: str) -> None:
        """Says goodbye to every client and waits until all are gone; the caller bounds it."""
        self.refuse()
        async with trio.open_nursery() as nursery:
            for connection in self.connections:
                nursery.start_soon(connection.close, code, reason)
        while self.connections:
            self._gone = trio.Event()
            await self._gone.wait()

    async def _serve(self, connection: Connection, peer: str) -> None:
        self.connections.add(connection)
        logger.info("client {} connected, {} now", peer, len(self.connections))
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)
            self._gone.set()
            logger.info("client {} left, {} now", peer, len(self.connections))

    def _answer(self, path: str) -> int:
        if self._closing:
            return 503
        return 101 if path.partition("?")[0] == _PATH else 404


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
