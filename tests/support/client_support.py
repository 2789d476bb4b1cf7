"""Feeds that a test plays, in memory and on real sockets."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from hyperwatch.client import Feed, FeedError, connect
from hyperwatch.client.websocket import ClosedError, RefusedError
from hyperwatch.server.refusals import ClientGoneError
from hyperwatch.server.websocket import ServerWebSocket
from support import accepted

__all__ = ["Network", "Peer", "Plain", "gap", "listener", "orders", "standing"]

URL = "ws://feed:1/ws"


def orders(name: str, seq: int, cursor: str = "", events: bytes = b"") -> bytes:
    """An `orders` message."""
    head = b'{"channel":"orders","data":{"id":"%s","seq":%d,"cursor":"%s"' % (name.encode(), seq, cursor.encode())
    return head + b',"blockNumber":7,"blockTime":1000,"index":0,"events":[%s]}}' % events


def standing(channel: str, name: str, seq: int, cursor: str) -> bytes:
    """A `live` or `cursor` message."""
    data = {
        "id": name,
        "seq": seq,
        "cursor": cursor,
        "blockNumber": 7,
        "blockTime": 1000,
        "writeTime": 1,
        "readTime": 2,
    }
    return json.dumps({"channel": channel, "data": data}).encode()


def gap(name: str, seq: int, cursor: str) -> bytes:
    """A `gap` message."""
    edges = {"from": {"block": 5, "time": None, "index": 3}, "to": {"block": None, "time": 9, "index": 0}}
    data = {"id": name, "seq": seq, "cursor": cursor, "blockNumber": 7, "blockTime": 1000, "stream": "s", **edges}
    return json.dumps({"channel": "gap", "data": {**data, "reason": "unreadable", "readable": False}}).encode()


class Peer:
    """The feed's end of a connection."""

    def __init__(self) -> None:
        self._said, self._heard = trio.open_memory_channel[bytes | ClosedError](16)  # what the wire reads ahead
        self._asked, self._asks = trio.open_memory_channel[str](math.inf)
        self.gone = trio.Event()
        self.name = ""

    async def send(self, text: str) -> None:
        """The client's half."""
        await self._asked.send(text)

    async def receive(self) -> bytes:
        """The client's half."""
        message = await self._heard.receive()
        if isinstance(message, ClosedError):
            raise message
        return message

    async def asked(self) -> Any:  # noqa: ANN401  JSON
        """What the client says next."""
        return json.loads(await self._asks.receive())

    async def begin(self, cursor: str = "begin", *warnings: str) -> dict[str, Any]:
        """Answers to the next subscription, and returns it."""
        request = await self.asked()
        assert request["method"] == "subscribe", request
        wanted: dict[str, Any] = request["subscription"]
        extras = {"cursor": cursor, "warnings": warnings} if "id" in wanted else {}
        self.name = wanted.get("id", "")
        await self.say(json.dumps({"channel": "subscriptionResponse", "data": request, **extras}).encode())
        return wanted

    async def end(self) -> dict[str, Any]:
        """Answers to the next unsubscription, and returns it."""
        request = await self.asked()
        assert request["method"] == "unsubscribe", request
        await self.say(json.dumps({"channel": "subscriptionResponse", "data": request}).encode())
        wanted: dict[str, Any] = request["subscription"]
        return wanted

    async def answer(self) -> tuple[str, str]:
        """Answers to whatever comes next; its method and id."""
        request = await self.asked()
        extras = {"cursor": "begin", "warnings": []} if request["method"] == "subscribe" else {}
        await self.say(json.dumps({"channel": "subscriptionResponse", "data": request, **extras}).encode())
        return request["method"], request["subscription"]["id"]

    async def refuse(self, reason: str) -> None:
        """Refuses what the client says next."""
        wanted = json.dumps((await self.asked())["subscription"], separators=(",", ":"))
        data = f"Invalid subscription {wanted}: {reason}"
        await self.say(json.dumps({"channel": "error", "data": data, "code": "invalid-subscription"}).encode())

    async def say(self, *messages: bytes) -> None:
        """Sends, and waits where the client takes no more."""
        for message in messages:
            await self._said.send(message)

    async def orders(self, *seqs: int) -> None:
        """Order messages of the newest subscription, with cursors like their numbers."""
        await self.say(*(orders(self.name, seq, f"c{seq}") for seq in seqs))

    async def close(self, code: int = 1006, reason: str = "") -> None:
        """Ends the connection behind what was said."""
        await self._said.send(ClosedError(code, reason))


@attrs.define
class Network:
    """Connections in memory."""

    refusals: deque[RefusedError] = attrs.field(factory=deque)
    """What the next attempts get."""
    tried_s: list[float] = attrs.field(factory=list)
    tokens: list[str | None] = attrs.field(factory=list)
    breaks: list[FeedError] = attrs.field(factory=list)
    """What the client was told."""
    _peers: tuple[trio.MemorySendChannel[Peer], trio.MemoryReceiveChannel[Peer]] = attrs.field(
        factory=lambda: trio.open_memory_channel[Peer](math.inf)
    )

    @asynccontextmanager
    async def open(self, _url: str, token: str | None) -> AsyncIterator[Peer]:
        """In place of the wire's."""
        self.tried_s.append(trio.current_time())
        self.tokens.append(token)
        await trio.lowlevel.checkpoint()
        if self.refusals:
            raise self.refusals.popleft()
        peer = Peer()
        self._peers[0].send_nowait(peer)
        try:
            yield peer
        finally:
            peer.gone.set()

    def connect(self, token: str | None = None) -> AbstractAsyncContextManager[Feed]:
        """A client of this network."""
        return connect(URL, token=token, on_break=self.breaks.append)

    async def peer(self) -> Peer:
        """The next connection."""
        return await self._peers[1].receive()


@attrs.define
class Plain:
    """A server that reads a request and answers by HTTP."""

    answer: bytes
    heads: list[bytes] = attrs.field(factory=list)

    async def handle(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        self.heads.append(head)
        await stream.send_all(self.answer)


@asynccontextmanager
async def listener(end: Callable[[ServerWebSocket], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that accepts a client and then does as it likes; its URL."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            async with accepted(stream) as peer:
                await end(peer)
        except* ClientGoneError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/ws"
        nursery.cancel_scope.cancel()
