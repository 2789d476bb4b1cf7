"""Clients, as many as wanted, in one process: raw sockets that check framing and `seq`, and note when what arrived.

They parse no JSON: what a client does with an event is not the server's cost, but it would take the server's processor.
Standard input: one line with what to connect, then one line a turn. Standard output: one line when all is ready, then one
line a turn. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Clients", "Connection"]

_HEAD_BYTES = 1024  # of a message: channel, id, seq, cursor and block number are in it
_BUFFER_BYTES = 1 << 20
_MEDIUM, _LONG = 126, 127
_TEXT, _CLOSE, _PING = 0x81, 0x88, 0x89
_PONG = b"\x8a\x80\0\0\0\0"
_OURS = re.compile(rb'\{"channel":"(\w+)","data":\{"id":"([^"]*)","seq":(\d+)')
_BLOCK = re.compile(rb'"blockNumber":(\d+)')
_PER_ADDRESS = 100  # a server may limit clients of one address; loopback has many
_WAIT_S = 30.0  # for a handshake


class FeedError(Exception):
    """What came is not what a feed may send."""


class Connection:
    """One connection: bytes in; messages counted, their `seq` checked, the newest receipt of each block kept. Pure.

    Args:
        say: sends bytes.
        subscriptions: how many it will have.
        raw: whether what comes is not WebSocket but any bytes; then just they are counted.
    """

    def __init__(self, say: Callable[[bytes], object], subscriptions: int = 1, *, raw: bool = False) -> None:
        self._say = say
        self.raw = raw
        self._subscriptions = subscriptions
        self._stash = b""
        self._left = 0  # bytes of the message that are still to come
        self._now: tuple[bytes, bytes, int | None] = b"", b"", None  # its channel, id and block
        self.size = self.messages = 0
        self.events = 0  # messages of `orders`
        self.seqs: dict[bytes, int] = {}
        self.at: dict[bytes, int] = {}  # the block that each subscription has reached
        self.live: set[bytes] = set()
        self.receipts: dict[int, int] = {}  # ns
        self.arrivals: list[tuple[int, int]] = []  # of raw bytes: ns, how many so far

    def feed(self, data: memoryview, now_ns: int) -> None:
        """Bytes have come. Raises FeedError."""
        self.size += len(data)
        if self.raw:
            self.arrivals.append((now_ns, self.size))
            return
        if self._stash:
            data = memoryview(self._stash + data)
            self._stash = b""
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                start = self._open(data, at, end)
                if start is None:
                    self._stash = bytes(data[at:])
                    return
                at = start
            step = min(self._left, end - at)
            self._left -= step
            at += step
            if not self._left:
                self._finish(now_ns)

    def _open(self, data: memoryview, at: int, end: int) -> int | None:
        """Reads a frame's header and its message's head; returns where the message starts, None: too few bytes yet."""
        if end - at < 2:  # opcode and length
            return None
        kind, length, start = data[at], data[at + 1], at + 2
        if length in (_MEDIUM, _LONG):
            start += 2 if length == _MEDIUM else 8
            length = int.from_bytes(data[at + 2 : start], "big")
        if end < start + min(length, _HEAD_BYTES):
            return None
        head = bytes(data[start : start + min(length, _HEAD_BYTES)])
        self._left = length
        self._now = b"", b"", None
        if kind == _TEXT:
            self._read(head)
        elif kind == _PING:
            self._say(_PONG)
        elif kind == _CLOSE:
            msg = f"the server closed: {head!r}"
            raise FeedError(msg)
        return start

    def _read(self, head: bytes) -> None:
        ours = _OURS.match(head)
        if ours is None:
            if head.startswith(b'{"channel":"error"'):
                raise FeedError(head.decode(errors="replace"))
            return
        channel, name, seq = ours.groups()
        if channel == b"gap" or int(seq) != self.seqs.get(name, 0) + 1:
            msg = f"not message {self.seqs.get(name, 0) + 1} of {name!r}: {head[:200]!r}"
            raise FeedError(msg)
        self.seqs[name] = int(seq)
        block = _BLOCK.search(head, ours.end())
        self._now = channel, name, int(block[1]) if block else None

    def _finish(self, now_ns: int) -> None:
        channel, name, block = self._now
        self.messages += 1
        if channel == b"live":
            self.live.add(name)
        if channel == b"orders":
            self.events += 1
        if block is not None:
            self.at[name] = block
            if channel == b"orders":
                self.receipts[block] = now_ns

    def reached(self, turn: dict[str, Any]) -> bool:
        """Whether a turn is over."""
        if "until_bytes" in turn:
            return self.size >= int(turn["until_bytes"])
        if "until_messages" in turn:
            return self.events >= int(turn["until_messages"])
        until = int(turn["until_block"])
        return len(self.at) == self._subscriptions and all(block >= until for block in self.at.values())


class Clients:
    """Connections, and the coordinator on standard input and output.

    Args:
        wanted: `port`; `raw`; `connections`, for each its subscriptions; `turn`, the first, which begins with subscribing.
    """

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._poll = select.epoll()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._inbox = b""
        self._turn: dict[str, Any] | None = None
        self._waiting: set[int] = set()
        self._until_s, self._began_ns = 0.0, 0
        self._sockets: dict[int, socket.socket] = {}
        self._connections: dict[int, Connection] = {}
        raw = wanted.get("raw", False)
        for number, subscriptions in enumerate(wanted["connections"]):
            sock = _connect(wanted["port"], number, raw=raw)
            self._connections[sock.fileno()] = Connection(sock.send, len(subscriptions), raw=raw)
            self._sockets[sock.fileno()] = sock
            self._poll.register(sock.fileno(), select.EPOLLIN)
        if "turn" in wanted:
            self._begin(wanted["turn"])
        for sock, subscriptions in zip(self._sockets.values(), wanted["connections"], strict=True):
            for subscription in subscriptions:
                self._say(sock, {"method": "subscribe", "subscription": subscription})
        self._subscriptions = sum(map(len, wanted["connections"]))

    def run(self) -> None:
        """Until standard input ends. Raises FeedError."""
        if self._turn is None:
            self._become_live()
        print(json.dumps({"ready": True}), flush=True)
        stdin = sys.stdin.fileno()
        self._poll.register(stdin, select.EPOLLIN)
        while True:
            timeout_s = max(0.0, self._until_s - time.monotonic()) if self._turn else -1
            ready = self._poll.poll(timeout_s)
            for descriptor, _ in ready:
                if descriptor == stdin:
                    if not self._hear():
                        return
                    continue
                self._receive(descriptor)
            if self._turn and (not self._waiting or time.monotonic() >= self._until_s):
                self._end()

    def _become_live(self) -> None:
        until_s = time.monotonic() + _WAIT_S + self._subscriptions / 100
        while sum(len(one.live) for one in self._connections.values()) < self._subscriptions:
            if time.monotonic() > until_s:
                msg = "not every subscription became live"
                raise FeedError(msg)
            for descriptor, _ in self._poll.poll(1):
                self._receive(descriptor)

    def _receive(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        size = self._sockets[descriptor].recv_into(self._buffer)
        if not size:
            msg = "the server ended the connection"
            raise FeedError(msg)
        connection.feed(self._buffer[:size], time.monotonic_ns())
        if self._turn and descriptor in self._waiting and connection.reached(self._turn):
            self._waiting.discard(descriptor)

    def _hear(self) -> bool:
        more = os.read(sys.stdin.fileno(), 1 << 16)
        *lines, self._inbox = (self._inbox + more).split(b"\n")
        for line in lines:
            self._begin(json.loads(line))
            print(json.dumps({"began": True}), flush=True)
        return bool(more)

    def _begin(self, turn: dict[str, Any]) -> None:
        self._began_ns = time.monotonic_ns()
        self._turn = turn
        self._waiting = set(self._connections)
        self._until_s = time.monotonic() + turn["within_s"]
        for connection in self._connections.values():
            if not connection.raw:
                connection.size = 0
            connection.events = connection.messages = 0
            connection.receipts, connection.arrivals = {}, []

    def _end(self) -> None:
        everyone = self._connections.values()
        answer = {
            "done": not self._waiting,
            "began_ns": self._began_ns,
            "ended_ns": time.monotonic_ns(),
            "messages": sum(one.messages for one in everyone),
            "bytes": sum(one.size for one in everyone),
            "receipts": [list(one.receipts.items()) for one in everyone] if self._turn.get("receipts") else [],  # type: ignore[union-attr]  # there is one
            "arrivals": [one.arrivals for one in everyone if one.raw],
        }
        self._turn = None
        print(json.dumps(answer), flush=True)

    def _say(self, sock: socket.socket, message: object) -> None:
        """Sends a message, reading meanwhile: a server need not take more than it can answer."""
        rest = _frame(json.dumps(message).encode())
        while rest:
            for descriptor, _ in self._poll.poll(0):
                self._receive(descriptor)
            with contextlib.suppress(BlockingIOError):
                rest = rest[sock.send(rest, socket.MSG_DONTWAIT) :]


def _frame(text: bytes) -> bytes:
    """A masked text frame; the mask is zero, which masks nothing."""
    if len(text) < _MEDIUM:
        return bytes((_TEXT, 0x80 | len(text))) + bytes(4) + text
    return bytes((_TEXT, 0x80 | _MEDIUM)) + len(text).to_bytes(2, "big") + bytes(4) + text


def _connect(port: int, number: int, *, raw: bool) -> socket.socket:
    source = (f"127.0.1.{1 + number // _PER_ADDRESS}", 0)
    sock = socket.create_connection(("127.0.0.1", port), _WAIT_S, source)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not raw:
        sock.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            byte = sock.recv(1)  # a server sends nothing before it is asked: what follows is frames
            answer += byte
            if not byte:
                break
        if not answer.startswith(b"HTTP/1.1 101"):
            msg = f"no handshake: {answer[:200]!r}"
            raise FeedError(msg)
    sock.settimeout(None)
    return sock


def main() -> None:
    """The process."""
    try:
        Clients(json.loads(sys.stdin.readline())).run()
    except (FeedError, OSError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
