"""WebSocket frames (RFC 6455, 5.2), as far as the feed builds and watches them itself. Pure.

A client's frames are counted before trio-websocket sees them: it answers every ping, and it would collect the empty parts
of an endless message without end.
"""

from __future__ import annotations

from hyperwatch.server.limits import TokenBucket
from hyperwatch.server.refusals import Reason, RefusedError

__all__ = [
    "BYTES_BURST",
    "BYTES_PER_S",
    "CLOSE",
    "FRAMES_BURST",
    "FRAMES_PER_S",
    "INBOUND_BYTES",
    "INBOUND_FRAMES",
    "PING",
    "Inbound",
    "closing",
    "head_of",
]

PING = b"\x89\x00"
CLOSE = 0x88

INBOUND_BYTES = 1020 * 1024  # a filter of 20,000 users fits, and its acknowledgement in a client's 1 MiB
INBOUND_FRAMES = 1024  # of one message: 1 KiB each where it is the longest
FRAMES_PER_S, FRAMES_BURST = (
    100,
    2000,
)  # a thousand subscriptions at once, and again; the official API takes 33 a second
BYTES_PER_S, BYTES_BURST = 256 * 1024, 4 * 1024 * 1024  # four of the longest messages at once

_TEXT, _BINARY = 0x81, 0x82  # FIN and opcodes 1 and 2
_SHORT, _MEDIUM = 126, 65536
_REASON_BYTES = 123  # of a control frame's 125; two are the code
_FIN, _CONTROL, _MASKED, _LENGTH = 0x80, 0x08, 0x80, 0x7F
_LONGER = {126: 2, 127: 8}
_TOO_BIG, _POLICY = 1009, 1008


def head_of(length: int, *, binary: bool) -> bytes:
    """The header of an unmasked, final frame."""
    kind = _BINARY if binary else _TEXT
    if length < _SHORT:
        return bytes((kind, length))
    if length < _MEDIUM:
        return bytes((kind, 126)) + length.to_bytes(2, "big")
    return bytes((kind, 127)) + length.to_bytes(8, "big")


def closing(code: int, reason: str) -> bytes:
    """A whole closing frame; a reason that is too long is cut."""
    text = reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode()
    return bytes((CLOSE, 2 + len(text))) + code.to_bytes(2, "big") + text


class Inbound:
    """Watches a client's frames go by: how many and how much in a second, and in one message."""

    def __init__(self) -> None:
        self._frames = TokenBucket(FRAMES_PER_S, FRAMES_BURST)
        self._bytes = TokenBucket(BYTES_PER_S, BYTES_BURST)
        self._head = bytearray()  # of a frame that has just begun: at most 14 bytes
        self._payload = 0  # what of a frame's payload is still to come
        self._message_bytes = 0
        self._message_frames = 0

    def feed(self, data: bytes | bytearray, now_s: float) -> RefusedError | None:
        """Counts what came. Returns why it is too much, 1008 or 1009."""
        if not self._bytes.take(len(data), now_s):
            text = f"too much at once: {BYTES_PER_S // 1024} KiB a second, {BYTES_BURST // 2**20} MiB in a burst, are taken"
            return RefusedError(Reason.RATE, _POLICY, text)
        at = 0
        while at < len(data):
            if self._payload:
                step = min(self._payload, len(data) - at)
                self._payload -= step
                at += step
                continue
            self._head.append(data[at])
            at += 1
            if len(self._head) == _head_length(self._head) and (refused := self._begin(now_s)):
                return refused
        return None

    def _begin(self, now_s: float) -> RefusedError | None:
        """A frame's header is complete."""
        if not self._frames.take(1, now_s):
            text = f"too many messages: {FRAMES_PER_S} a second, {FRAMES_BURST} in a burst, are taken"
            return RefusedError(Reason.RATE, _POLICY, text)
        first, length = self._head[0], self._head[1] & _LENGTH
        if length in _LONGER:
            length = int.from_bytes(self._head[2 : 2 + _LONGER[length]], "big")
        if not first & _CONTROL:
            self._message_bytes += length
            self._message_frames += 1
            if self._message_bytes > INBOUND_BYTES or self._message_frames > INBOUND_FRAMES:
                text = f"a message is at most {INBOUND_BYTES // 1024} KiB long and has at most {INBOUND_FRAMES} frames"
                return RefusedError(Reason.SIZE, _TOO_BIG, text)
            if first & _FIN:
                self._message_bytes = self._message_frames = 0
        self._payload = length
        self._head.clear()
        return None


def _head_length(head: bytearray) -> int:
    if len(head) < 2:  # noqa: PLR2004  the second byte says how long it is
        return 2
    return 2 + _LONGER.get(head[1] & _LENGTH, 0) + (4 if head[1] & _MASKED else 0)
