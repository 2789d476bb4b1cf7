"""A server behind a guard, without a head, and clients that say what no library would."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from hyperwatch.feed.catch_up import CatchUp
from hyperwatch.feed.hub import Hub
from hyperwatch.feed.registry import StreamSource
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.seek.resume import at_head
from hyperwatch.log.tree import Tree
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.server.admission import Admission
from hyperwatch.server.framing import FrameCache
from hyperwatch.server.http import Routes
from hyperwatch.server.refusals import Reason
from hyperwatch.server.server import Server
from support import append, event, hour_file, line, until

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
LEFT, RESET = 0, -1
KEY = base64.b64encode(bytes(16))


@attrs.frozen
class Serving:
    """A server, and where it is."""

    server: Server
    port: int

    async def counted(self, refusals: dict[Reason, int]) -> None:
        """These were counted, and no other; where a client was told why, it is counted a moment later."""
        with trio.move_on_after(2):
            await until(lambda: dict(self.server.admission.refusals) == refusals)
        assert dict(self.server.admission.refusals) == refusals


@asynccontextmanager
async def serving(
    root: Path, admission: Admission | None = None, routes: Routes | None = None
) -> AsyncIterator[Serving]:
    """A server of one line, on any free port. A fault of ours that it survived is an error here."""
    append(hour_file(root, "20260505/9"), line(7, [event(1)]))
    log = Tree(root, ORDERS, Layout.STREAMING)
    ring = Ring(at_head(log), 2**20)
    server = Server({ORDERS.name: StreamSource(Hub(ring, FrameCache), CatchUp(log, ring))}, admission, routes)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            handle = partial(trio.serve_tcp, server.handle, 0, host="127.0.0.1")
            listeners = await nursery.start(handle)
            yield Serving(server, listeners[0].socket.getsockname()[1])
            nursery.cancel_scope.cancel("the test is over")


def handshake(*headers: str, path: str = "/ws", key: bytes = KEY) -> bytes:
    """A handshake with some headers more."""
    lines = [f"GET {path} HTTP/1.1", "Host: here:8000", "Upgrade: websocket", "Connection: keep-alive, Upgrade",
             f"Sec-WebSocket-Key: {key.decode()}", "Sec-WebSocket-Version: 13", *headers, "", ""]  # fmt: skip
    return "\r\n".join(lines).encode("latin-1")


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, length: int | None = None) -> bytes:
    """A client's frame, masked by zeros; `length` is what it says of itself."""
    size = len(payload) if length is None else length
    word = bytes((0x80 | size,)) if size < 126 else struct.pack("!BH" if size < 65536 else "!BQ", *(
        (0x80 | 126, size) if size < 65536 else (0x80 | 127, size)
    ))  # fmt: skip
    return bytes((0x80 * final | opcode,)) + word + bytes(4) + payload


@attrs.define
class Raw:
    """A client that writes bytes."""

    stream: trio.SocketStream
    _data: bytearray = attrs.Factory(bytearray)

    async def say(self, data: bytes) -> None:
        """Raises BrokenResourceError where the server has reset the connection."""
        await self.stream.send_all(data)

    async def tell(self, message: object) -> None:
        await self.say(frame(TEXT, json.dumps(message).encode()))

    async def hear(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next frame."""
        first, length = await self._take(2)
        if length >= 126:
            length = int.from_bytes(await self._take(2 if length == 126 else 8), "big")
        return first & 15, await self._take(length)

    async def answer(self) -> Any:  # noqa: ANN401  JSON
        """The next text."""
        while True:
            opcode, payload = await self.hear()
            if opcode == TEXT:
                return json.loads(payload)

    async def ending(self) -> tuple[int, str]:
        """(closing code, reason), LEFT where there is none, RESET where the connection was reset."""
        try:
            while True:
                opcode, payload = await self.hear()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big"), payload[2:].decode()
        except EOFError:
            return LEFT, ""
        except trio.BrokenResourceError:
            return RESET, ""

    async def _take(self, count: int) -> bytes:
        while len(self._data) < count:
            self._data += await self._more()
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken

    async def _more(self) -> bytes:
        if not (more := await self.stream.receive_some(65536)):
            raise EOFError
        return bytes(more)

    async def head(self) -> str:
        """What HTTP answers, as far as the blank line."""
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            self._data += await self._more()
        head = await self._take(end + 4)
        return head.decode()


@asynccontextmanager
async def raw(port: int, *headers: str, shake: bool = True) -> AsyncIterator[Raw]:
    """A connection to a server on this machine, with a handshake unless `shake` is false."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = Raw(stream)
        if shake:
            await client.say(handshake(*headers))
            head = await client.head()
            assert head.startswith("HTTP/1.1 101 "), head
        yield client


async def asked(port: int, request: bytes) -> tuple[int, str]:
    """(status, body) of what HTTP answers before it closes the connection."""
    status, _, body = await asked_with_head(port, request)
    return status, body


async def asked_with_head(port: int, request: bytes) -> tuple[int, str, str]:
    """(status, head, body)."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        head, _, body = b"".join([bytes(data) async for data in stream]).decode().partition("\r\n\r\n")
    return int(head.split()[1]), head, body


async def responsive(client: Raw) -> None:
    """It still gets an answer."""
    await client.tell({"method": "ping"})
    assert await client.answer() == {"channel": "pong"}
