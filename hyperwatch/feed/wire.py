"""The wire: WebSocket connections on streams that we own. Of the feed, the only file that imports trio_websocket.

trio-websocket reads what clients send: it parses frames and answers pings. It never sees a client's HTTP, which has been
read before: its handshake is a fixed text. Data frames to a client do not pass through it: it would copy and encode each
for every client. Server frames are unmasked, so a frame is a header of our own and bytes that many clients share; a lock
on the line keeps the two writers apart. The closing frame is ours too: trio-websocket cannot take back a promise to
answer a ping once it has said goodbye.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
import trio_websocket

from hyperwatch.feed.ends import NO_ANSWER, GoneError, RefusedError, Why
from hyperwatch.feed.frames import CLOSE, INBOUND_BYTES, PING, Inbound, closing, text_head

__all__ = ["BEAT_S", "SILENT_BEATS", "GoneError", "Line", "Socket", "accept"]

BEAT_S = 10.0  # between pings
SILENT_BEATS = 4  # without a word: gone 40 to 50 s after the last one, within a minute

_MEDIUM = 65536
_STALLED_S = 1.0  # for a closing frame to leave; a socket that takes nothing for so long is reset
_LINGER_S = 1.0  # for the other side to read why it was refused: closing on unread bytes would take that from it
_LINGER_BYTES = 1024 * 1024
_HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: hyperwatch\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
)
_WRONG = (1002, 1007)  # what trio-websocket calls frames that are none, and text that is no UTF-8
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets
_TCP_INFO = struct.Struct("=120xQ16xI")  # of what Linux tells: tcpi_bytes_acked, tcpi_notsent_bytes


class Line(trio.abc.Stream):
    """A client's TCP stream, read by trio-websocket, written to by it and by the feed.

    A send that ends early leaves half a frame on the wire: from then on nothing may be written, and every method says
    so by raising trio.BrokenResourceError. Its owner ends it by `close`.

    Raises:
        GoneError: where the client has left already.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._lock = trio.Lock()
        self._rest: memoryview | None = None
        self._broken = False
        self._early = b""
        self._inbound: Inbound | None = None
        self._heard = False
        self._unsent, self._acked = 0, 0
        self.parted = trio.Event()
        """A closing frame was sent: nothing follows it."""
        self.closed = trio.Event()
        """Nothing more will be read."""
        self.descriptor = stream.socket.fileno()
        try:
            self.host, port, *_ = stream.socket.getpeername()
        except OSError as error:
            raise GoneError from error
        self.peer = f"{self.host}:{port}"

    @property
    def unfinished(self) -> bool:
        """Whether part of a message waits for `flush`."""
        return self._rest is not None

    @property
    def framed(self) -> bool:
        """Whether it has become a WebSocket."""
        return self._inbound is not None

    def offer(self, frame: bytes, tail: bytes) -> bool:
        """Writes a frame without waiting. False where nothing of it was taken; its end may be left to `flush`."""
        if self._broken or self._rest is not None or self._lock.locked() or self.parted.is_set():
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
        """Writes what trio-websocket has to say; what comes behind a closing frame is swallowed."""
        async with self._lock:
            if not self.parted.is_set():
                await self._guarded(data)
                if self.framed and data[0] == CLOSE:
                    self.parted.set()

    async def send_frame(self, frame: bytes, tail: bytes) -> None:
        """Writes a frame, waiting as long as it takes."""
        async with self._lock:
            if self.parted.is_set():
                msg = "a closing frame was sent on this connection"
                raise trio.BrokenResourceError(msg)
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

    def speak_frames(self, key: bytes) -> None:
        """From here on the client sends frames, which are counted, behind a handshake that trio-websocket is given."""
        self._early = _HEAD % key
        self._inbound = Inbound()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What the client sends. Raises RefusedError for too much of it."""
        if self._early:
            early, self._early = self._early, b""
            await trio.lowlevel.checkpoint()
            return early
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.closed.set()
            raise
        if not data:
            self.closed.set()
        self._heard = True
        if self._inbound is not None:
            try:
                self._inbound.feed(data, trio.current_time())
            except RefusedError as error:
                await self.part(error.code, error.text)
                raise
        return data

    async def part(self, code: int, reason: str) -> bool:
        """Writes a closing frame behind what is being sent. False where the socket takes nothing: it is to be reset."""
        await self.say(closing(code, reason))
        return self.parted.is_set()

    async def say(self, words: bytes) -> None:
        """Writes what is said last, as far as the other side takes it within _STALLED_S."""
        with trio.move_on_after(_STALLED_S), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.send_all(words)

    def alive(self) -> bool:
        """Whether since the last look the client said anything, or took some of what waits for it to read."""
        heard, self._heard = self._heard, False
        try:
            told = self._stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:
            return heard
        acked, unsent = _TCP_INFO.unpack(told)
        taking = self._unsent > 0 and unsent > 0 and acked != self._acked
        self._unsent, self._acked = unsent, acked
        return heard or taking

    async def linger(self) -> None:
        """Lets the other side read what was said last, where all of it has been written."""
        if self._broken or self._rest is not None:
            return
        with trio.move_on_after(_LINGER_S):
            try:
                await self._stream.send_eof()
                size = 0
                while (data := await self._stream.receive_some()) and size < _LINGER_BYTES:
                    size += len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def aclose(self) -> None:
        """trio-websocket has done with it; the owner has not."""
        self.closed.set()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Ends it at once: what was not delivered is thrown away, here and in the system."""
        self._broken = True
        self.close()

    def close(self) -> None:
        """Ends it. What was written whole still arrives."""
        self.closed.set()
        if self._broken or self._rest is not None:
            try:
                self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            except OSError:
                return  # it is closed already
        self._stream.socket.close()


class Socket:
    """One WebSocket connection, the server's side.

    Made by `accept`.
    """

    def __init__(self, line: Line, websocket: trio_websocket.WebSocketConnection) -> None:
        self._line = line
        self._websocket = websocket
        self.peer = line.peer

    @property
    def unfinished(self) -> bool:
        """Whether part of a message that was offered waits for `flush`."""
        return self._line.unfinished

    def offer(self, head: bytes, tail: bytes) -> bool:
        """Sends a text message without waiting.

        Returns:
            False where the socket has no room: nothing of the message was taken. True else; what of it did not fit is
            sent by `flush` or before the next message.
        """
        return self._line.offer(text_head(len(head) + len(tail)) + head, tail)

    async def send(self, head: bytes, tail: bytes = b"") -> None:
        """Sends a text message, waiting as long as the client takes. Raises GoneError."""
        try:
            await self._line.send_frame(text_head(len(head) + len(tail)) + head, tail)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await self._closed()
            raise GoneError from error

    async def flush(self) -> None:
        """Sends what was left of an offered message. Raises GoneError."""
        try:
            await self._line.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise GoneError from error

    async def receive(self) -> str | bytes:
        """The client's next message.

        Raises:
            GoneError: where none will come.
            RefusedError: where what came was no WebSocket frame, or no UTF-8.
        """
        try:
            return await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as error:
            closed = error
        reason, parted = closed.reason, self._line.parted.is_set()
        if reason is not None and reason.code in _WRONG and not parted:
            await self.refuse(RefusedError(Why.PROTOCOL, reason.code, f"no WebSocket frames came: {reason.reason}"))
        raise GoneError from closed

    async def refuse(self, error: RefusedError) -> None:
        """Says goodbye with a reason, and raises it."""
        await self._line.part(error.code, error.text)
        raise error

    async def close(self, code: int, reason: str) -> bool:
        """The closing handshake. Waits for the client's part of it: the caller's deadline bounds that.

        Returns:
            False where the client's socket took nothing for _STALLED_S: it was reset.
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
async def accept(line: Line, key: bytes) -> AsyncIterator[Socket]:
    """Answers a handshake and yields the connection.

    Args:
        line: whose request has been read. Its owner closes it.
        key: the client's Sec-WebSocket-Key.

    Raises:
        GoneError: where the client left before the answer.
        RefusedError: where it sent too much, or nothing for too long.
    """
    line.speak_frames(key)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_beat, line)
        try:
            request = await trio_websocket.wrap_server_stream(nursery, line, max_message_size=INBOUND_BYTES + 1)
            websocket = await request.accept()
        except trio_websocket.ConnectionClosed as error:
            raise GoneError from error
        yield Socket(line, websocket)
        nursery.cancel_scope.cancel("the connection is over")


async def _beat(line: Line) -> None:
    """Pings, and raises RefusedError where the client has been silent for too long.

    Pings are offered, never waited for: a client whose socket is full is seen by what it takes.
    """
    silent = 0
    while silent < SILENT_BEATS:
        await trio.sleep(BEAT_S)
        silent = 0 if line.alive() else silent + 1
        line.offer(PING, b"")
    raise RefusedError(Why.SILENT, NO_ANSWER, f"no pong, nor any other byte, for {BEAT_S * SILENT_BEATS:g} s")
