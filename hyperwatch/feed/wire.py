"""The wire: WebSocket connections on streams that we own. Of the feed, the only file that imports trio_websocket.

trio-websocket does handshake, pings and the closing handshake. Data frames to a client do not pass through it: it would
copy and encode each for every client. Server frames are unmasked, so a frame is a header of our own and bytes that many
clients share; a lock on the stream keeps the two writers apart.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import trio
import trio_websocket

__all__ = ["GoneError", "RefusedError", "Socket", "accept"]

_INBOUND_BYTES = 1020 * 1024  # a filter of 20,000 users fits, and its acknowledgement in a client's 1 MiB
_TEXT = 0x81  # FIN and opcode 1
_SHORT, _MEDIUM = 126, 65536
_SWITCHING = 101
_LEFT = "the client left during the handshake"
_REFUSALS: dict[int, bytes] = {404: b"the feed is at /ws\n", 503: b"shutting down\n"}


class GoneError(Exception):
    """The other side is gone, or the connection can only be ended."""


class RefusedError(Exception):
    """A handshake that was answered with an HTTP status, or broke off."""


class _OwnedStream(trio.abc.Stream):
    """A client's TCP stream, written to by trio-websocket and by the feed.

    A send that ends early leaves half a frame on the wire: from then on nothing may be written, and every method says
    so by raising trio.BrokenResourceError.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._lock = trio.Lock()
        self._rest: memoryview | None = None
        self._broken = False
        self.peer = _peer(stream)
        self.closed = trio.Event()

    @property
    def unfinished(self) -> bool:
        """Whether part of a message waits for `flush`."""
        return self._rest is not None

    def offer(self, frame: bytes, tail: bytes) -> bool:
        """Writes a frame without waiting. False where nothing of it was taken; its end may be left to `flush`."""
        if self._broken or self._rest is not None or self._lock.locked():
            return False
        try:
            sent = os.writev(self._stream.socket.fileno(), (frame, tail))
        except BlockingIOError:
            return False
        except OSError:
            self._broken = True
            return False
        if sent < len(frame) + len(tail):
            self._rest = memoryview(frame + tail)[sent:]
        return True

    async def flush(self) -> None:
        """Writes what a frame was left of."""
        async with self._lock:
            await self._guarded(b"")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._lock:
            await self._guarded(data)

    async def send_frame(self, frame: bytes, tail: bytes) -> None:
        """Writes a frame, waiting as long as it takes."""
        async with self._lock:
            await self._guarded(frame + tail if len(tail) < _MEDIUM else frame)
            if len(tail) >= _MEDIUM:
                await self._guarded(tail)

    async def _guarded(self, data: bytes | bytearray | memoryview) -> None:
        if self._broken:
            msg = "half a frame was sent on this connection"
            raise trio.BrokenResourceError(msg)
        self._broken = True
        if self._rest is not None:
            await self._stream.send_all(self._rest)
            self._rest = None
        await self._stream.send_all(data)
        self._broken = False

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        self._broken = True
        self.closed.set()
        await self._stream.aclose()


class Socket:
    """One WebSocket connection, the server's side.

    Made by `accept`.
    """

    def __init__(self, stream: _OwnedStream, websocket: trio_websocket.WebSocketConnection) -> None:
        self._stream = stream
        self._websocket = websocket
        self._closing: trio.Event | None = None
        self.peer = stream.peer

    @property
    def unfinished(self) -> bool:
        """Whether part of a message that was offered waits for `flush`."""
        return self._stream.unfinished

    def offer(self, head: bytes, tail: bytes) -> bool:
        """Sends a text message without waiting.

        Returns:
            False where the socket has no room: nothing of the message was taken. True else; what of it did not fit is
            sent by `flush` or before the next message.
        """
        if self._websocket.closed is not None:
            return False
        return self._stream.offer(_frame_head(len(head) + len(tail)) + head, tail)

    async def send(self, head: bytes, tail: bytes = b"") -> None:
        """Sends a text message, waiting as long as the client takes. Raises GoneError."""
        if self._websocket.closed is not None:
            await self._closed()
            raise GoneError
        try:
            await self._stream.send_frame(_frame_head(len(head) + len(tail)) + head, tail)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise GoneError from error

    async def flush(self) -> None:
        """Sends what was left of an offered message. Raises GoneError."""
        try:
            await self._stream.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise GoneError from error

    async def receive(self) -> str | bytes:
        """The client's next message. Raises GoneError."""
        try:
            return await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as error:
            closed = error
        await self._closed()
        raise GoneError from closed

    async def close(self, code: int, reason: str) -> None:
        """The closing handshake. Waits for the client's part of it: the caller's deadline bounds that."""
        self._closing = trio.Event()
        try:
            await self._websocket.aclose(code, reason)
        finally:
            self._closing.set()

    async def _closed(self) -> None:
        """Waits for a closing handshake of ours: ending the connection earlier would take the client's part from it."""
        if self._closing is not None:
            await self._closing.wait()


@asynccontextmanager
async def accept(stream: trio.SocketStream, handshake_s: float, answer: Callable[[str], int]) -> AsyncIterator[Socket]:
    """Does the handshake and yields the connection; in the end the stream is closed, by force if need be.

    Args:
        stream: just accepted.
        handshake_s: after that long without a complete handshake the client is let go.
        answer: the HTTP status for a path: 101 accepts, 404 and 503 refuse.

    Raises:
        RefusedError: where there was no handshake.
    """
    owned = _OwnedStream(stream)
    try:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(handshake_s) as scope:
                websocket = await _handshake(nursery, owned, answer)
            if scope.cancelled_caught:
                msg = f"no handshake within {handshake_s} s"
                raise RefusedError(msg)
            yield Socket(owned, websocket)
            nursery.cancel_scope.cancel("the connection is over")
    finally:
        await trio.aclose_forcefully(owned)


async def _handshake(
    nursery: trio.Nursery, stream: _OwnedStream, answer: Callable[[str], int]
) -> trio_websocket.WebSocketConnection:
    # trio-websocket answers what is no handshake by 400 and a close, but then waits on; so watch for the close.
    async with trio.open_nursery() as waiting:
        waiting.start_soon(_refuse_when_closed, stream)
        request = await trio_websocket.wrap_server_stream(nursery, stream, max_message_size=_INBOUND_BYTES)
        status = answer(request.path)
        if status != _SWITCHING:
            with suppress(trio_websocket.ConnectionClosed):  # it did not wait for the answer
                await request.reject(status, body=_REFUSALS[status])
            msg = f"answered {status} to {request.path!r}"
            raise RefusedError(msg)
        try:
            websocket = await request.accept()
        except trio_websocket.ConnectionClosed as error:
            raise RefusedError(_LEFT) from error
        waiting.cancel_scope.cancel("the handshake is done")
    return websocket


async def _refuse_when_closed(stream: _OwnedStream) -> None:
    await stream.closed.wait()
    msg = "the stream was closed before a handshake"
    raise RefusedError(msg)


def _peer(stream: trio.SocketStream) -> str:
    try:
        host, port, *_ = stream.socket.getpeername()
    except OSError:
        return "a client that has left"
    return f"{host}:{port}"


def _frame_head(length: int) -> bytes:
    """The header of an unmasked, final text frame (RFC 6455, 5.2)."""
    if length < _SHORT:
        return bytes((_TEXT, length))
    if length < _MEDIUM:
        return bytes((_TEXT, 126)) + length.to_bytes(2, "big")
    return bytes((_TEXT, 127)) + length.to_bytes(8, "big")
