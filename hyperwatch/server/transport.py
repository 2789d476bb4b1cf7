"""A client's TCP stream that we own: two writers take turns on it, what comes in is counted, and it ends in one place."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from hyperwatch.server.frames import CLOSE, Inbound, closing
from hyperwatch.server.refusals import ClientGoneError

__all__ = ["STALLED_S", "Transport"]

_MEDIUM = 65536  # bytes; from here on two writes cost less than putting both parts together
_APART = 3  # parts, which is one message: of more, each would be a system call
STALLED_S = 1.0  # for a closing frame to leave; a socket that takes nothing for so long is reset
_LINGER_S = 1.0  # for the other side to read why it was refused: closing on unread bytes would take that from it
_LINGER_BYTES = 1024 * 1024
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets
_TCP_INFO = struct.Struct("=120xQ16xI")  # of what Linux tells: tcpi_bytes_acked, tcpi_notsent_bytes


class Transport(trio.abc.Stream):
    """A client's TCP stream, read by trio-websocket, written to by it and by the feed.

    A send that ends early leaves half a frame on the wire: from then on nothing may be written, and every method says
    so by raising trio.BrokenResourceError. Its owner ends it by `close`.

    Raises:
        ClientGoneError: where the client has left already.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._lock = trio.Lock()
        self._rest: Sequence[memoryview] = ()  # views: a message that many clients were cut off in is there once
        self._broken = False
        self._clear = True  # to be offered something: all is written, nobody is writing, nobody has said goodbye
        self._early = b""
        self._inbound: Inbound | None = None
        self._heard = False
        self._unsent, self._acked = 0, 0
        self.parted = trio.Event()
        """A closing frame was sent: nothing follows it."""
        self.closed = trio.Event()
        """Nothing more will be read."""
        self.rest_waits: Callable[[], None] = _no_one
        """Called where part of what was offered is left to `flush`."""
        self.descriptor = stream.socket.fileno()
        try:
            self.host, port, *_ = stream.socket.getpeername()
        except OSError as error:
            raise ClientGoneError from error
        self.peer = f"{self.host}:{port}"

    def stands_for(self, host: str) -> None:
        """The other side is a proxy that is trusted: from here on the line is that of the client behind it."""
        self.host, self.peer = host, f"{host} by {self.peer}"

    @property
    def unfinished(self) -> bool:
        """Whether part of a message waits for `flush`."""
        return bool(self._rest)

    @property
    def framed(self) -> bool:
        """Whether it has become a WebSocket."""
        return self._inbound is not None

    def offer(self, parts: Sequence[bytes], size: int) -> bool:
        """Writes the parts of whole frames, so many bytes together, without waiting.

        Returns:
            False where nothing of them was taken. True else: what did not fit waits for `flush`, and `rest_waits` is called.
        """
        if not self._clear:
            return False
        try:
            sent = os.writev(self.descriptor, parts)
        except BlockingIOError:
            return False
        except OSError:
            self._broken, self._clear = True, False
            return False
        if sent < size:
            self._rest, self._clear = _behind(parts if len(parts) <= _APART else [b"".join(parts)], sent), False
            self.rest_waits()
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
                    self._clear = False
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
        self._broken, self._clear = True, False
        for part in self._rest:
            await self._stream.send_all(part)
        self._rest = ()
        await self._stream.send_all(data)
        self._broken, self._clear = False, not self.parted.is_set()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    def speak_frames(self, handshake: bytes) -> None:
        """From here on the client sends frames, which are counted. Who reads them is given a handshake first."""
        self._early = handshake
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
        refused = None if self._inbound is None else self._inbound.feed(data, trio.current_time())
        if refused is not None:
            await self.part(refused.code, refused.text)
            raise refused
        return data

    async def part(self, code: int, reason: str) -> bool:
        """Writes a closing frame behind what is being sent. False where the socket takes nothing: it is to be reset."""
        await self.say(closing(code, reason))
        return self.parted.is_set()

    async def say(self, words: bytes) -> None:
        """Writes what is said last, as far as the other side takes it within STALLED_S."""
        with trio.move_on_after(STALLED_S), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
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

    async def drain(self) -> None:
        """Lets the other side read what was said last, where all of it has been written."""
        if self._broken or self._rest:
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
        self._broken, self._clear = True, False
        self.close()

    def close(self) -> None:
        """Ends it. What was written whole still arrives."""
        self.closed.set()
        if self._broken or self._rest:
            try:
                self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            except OSError:
                return  # it is closed already
        self._clear = False
        self.descriptor = -1  # it will be another client's
        self._stream.socket.close()


def _behind(parts: Sequence[bytes], sent: int) -> Sequence[memoryview]:
    """What of some parts lies behind so many bytes."""
    rest = []
    for part in parts:
        if sent < len(part):
            rest.append(memoryview(part)[sent:])
        sent = max(0, sent - len(part))
    return rest


def _no_one() -> None:
    """Nobody flushes yet."""
