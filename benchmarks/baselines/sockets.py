"""As much of a WebSocket server as a baseline needs."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

__all__ = ["ACCEPTED", "LIVE", "accept", "frame", "listen", "request", "subscribed"]

ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n"
)
LIVE = '{"channel":"live","data":{"id":%s,"seq":1}}'


def listen() -> socket.socket:
    """Listens on a free port of loopback and says which on standard error."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"ws://127.0.0.1:{listener.getsockname()[1]}/ws", file=sys.stderr, flush=True)
    return listener


def frame(length: int) -> bytes:
    """The header of a text frame."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65536:
        return bytes((0x81, 126)) + length.to_bytes(2, "big")
    return bytes((0x81, 127)) + length.to_bytes(8, "big")


def request(head: bytes, rest: bytes) -> dict[str, Any]:
    """The subscription in a client's frame, whose first two bytes are the head; its mask is zero."""
    start = 6 if head[1] & 0x7F == 126 else 4
    subscription: dict[str, Any] = json.loads(rest[start:])["subscription"]
    return subscription


def accept(listener: socket.socket) -> socket.socket:
    """The next client, after its handshake."""
    client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client.makefile("rb", buffering=0) as file:
        while file.readline().strip():
            pass
    client.sendall(ACCEPTED)
    return client


def subscribed(client: socket.socket) -> None:
    """Waits until a client has subscribed, and tells it that it is live."""
    text = (LIVE % json.dumps(request(client.recv(2), client.recv(1 << 16))["id"])).encode()
    client.sendall(frame(len(text)) + text)
