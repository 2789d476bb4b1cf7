"""The wire: WebSocket connections on streams that we own. Of the feed, the only file that imports trio_websocket.

trio-websocket reads what clients send: it parses frames and answers pings. It never sees a client's HTTP, which has been
read before: its handshake is a fixed text. Data frames to a client do not pass through it: it would copy and encode each
for every client. Server frames are unmasked, so a frame is a header of our own and bytes that many clients share; a lock
on the line keeps the two writers apart. The closing frame is ours too: trio-websocket cannot take back a promise to
answer a ping once it has said goodbye.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import trio
import trio_websocket

from hyperwatch.server.frames import INBOUND_BYTES, PING, head_of
from hyperwatch.server.limits import address_group
from hyperwatch.server.refusals import NO_ANSWER, ClientGoneError, Reason, RefusedError
from hyperwatch.server.transport import Transport

__all__ = ["BEAT_S", "SILENT_BEATS", "ClientGoneError", "ServerWebSocket", "accept"]

BEAT_S = 10.0  # between pings
SILENT_BEATS = 4  # without a word: gone 40 to 50 s after the last one, within a minute

_HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: hyperwatch\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
)
_WRONG = (1002, 1007)  # what trio-websocket calls frames that are none, and text that is no UTF-8


class ServerWebSocket:
    """One WebSocket connection, the server's side.

    Made by `accept`.
    """

    def __init__(self, line: Transport, websocket: trio_websocket.WebSocketConnection) -> None:
        self._line = line
        self._websocket = websocket
        self.peer = line.peer
        self.address = address_group(line.host)

    @property
    def unfinished(self) -> bool:
        """Whether part of a message that was offered waits for `flush`."""
        return self._line.unfinished

    @property
    def offer(self) -> Callable[[Sequence[bytes], int], bool]:
        """Sends whole frames without waiting; see `Transport.offer`."""
        return self._line.offer

    def when_rest_waits(self, call: Callable[[], None]) -> None:
        """Has `call` called whenever part of what was offered is left to `flush`."""
        self._line.rest_waits = call

    async def send(self, head: bytes, tail: bytes = b"", *, binary: bool = False) -> None:
        """Sends a message, waiting as long as the client takes. Raises ClientGoneError."""
        try:
            await self._line.send_frame(head_of(len(head) + len(tail), binary=binary) + head, tail)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            gone = error
        else:
            return
        await self._closed()
        raise ClientGoneError from gone

    async def flush(self) -> None:
        """Sends what was left of an offered message. Raises ClientGoneError."""
        try:
            await self._line.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGoneError from error

    async def receive(self) -> str | bytes:
        """The client's next message.

        Raises:
            ClientGoneError: where none will come.
            RefusedError: where what came was no WebSocket frame, or no UTF-8.
        """
        try:
            return await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as error:
            closed = error
        reason, parted = closed.reason, self._line.parted.is_set()
        if reason is not None and reason.code in _WRONG and not parted:
            await self.refuse(RefusedError(Reason.PROTOCOL, reason.code, f"no WebSocket frames came: {reason.reason}"))
        raise ClientGoneError from closed

    async def refuse(self, error: RefusedError) -> NoReturn:
        """Says goodbye with a reason, and raises it."""
        await self._line.part(error.code, error.text)
        raise error

    async def close(self, code: int, reason: str) -> bool:
        """The closing handshake. Waits for the client's part of it: the caller's deadline bounds that.

        Returns:
            False where the client's socket took nothing for STALLED_S: it was reset.
        """
        if not await self._line.part(code, reason):
            self._line.reset()
            return False
        await self._line.closed.wait()
        return True

    async def _closed(self) -> None:
        """Waits for the client's part of a goodbye of ours: ending the connection earlier would take that from it."""
        with suppress(trio_websocket.ConnectionClosed):
            while self._line.parted.is_set():
                await self._websocket.get_message()  # unread, it would block what follows it


@asynccontextmanager
async def accept(line: Transport, key: bytes) -> AsyncIterator[ServerWebSocket]:
    """Answers a handshake and yields the connection.

    Args:
        line: whose request has been read. Its owner closes it.
        key: the client's Sec-WebSocket-Key.

    Raises:
        ClientGoneError: where the client left before the answer.
        RefusedError: where it sent too much, or nothing for too long.
    """
    line.speak_frames(_HEAD % key)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_beat, line)
        try:
            request = await trio_websocket.wrap_server_stream(nursery, line, max_message_size=INBOUND_BYTES + 1)
            websocket = await request.accept()
        except trio_websocket.ConnectionClosed as error:
            raise ClientGoneError from error
        yield ServerWebSocket(line, websocket)
        nursery.cancel_scope.cancel("the connection is over")


async def _beat(line: Transport) -> None:
    """Pings, and raises RefusedError where the client has been silent for too long.

    Pings are offered, never waited for: a client whose socket is full is seen by what it takes.
    """
    silent = 0
    while silent < SILENT_BEATS:
        await trio.sleep(BEAT_S)
        silent = 0 if line.alive() else silent + 1
        line.offer((PING,), len(PING))
    raise RefusedError(Reason.SILENT, NO_ANSWER, f"no pong, nor any other byte, for {BEAT_S * SILENT_BEATS:g} s")
