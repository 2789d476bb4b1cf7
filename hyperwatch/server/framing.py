"""Messages into WebSocket frames. Pure."""

from __future__ import annotations

from hyperwatch.feed.messages import Message
from hyperwatch.server.frames import head_of

__all__ = ["FrameCache"]


class FrameCache:
    """A message as WebSocket frames, for one subscription after the other: what they share is made once."""

    def __init__(self, message: Message) -> None:
        self._binary, self._tail = message.binary, message.tail
        self._form = message.form if message.channel else None
        self._headers: dict[int, tuple[bytes, int]] = {}  # by the length of what stands before the tail; frames' sizes

    def next(self, name: bytes, seq: int) -> tuple[tuple[bytes, bytes, bytes], int]:
        """(the parts of a frame for a subscription of that name, their size)."""
        head = b"" if self._form is None else self._form % (name, seq)
        known = self._headers.get(len(head))
        header, size = known or self._header(len(head))
        return (header, head, self._tail), size

    def _header(self, length: int) -> tuple[bytes, int]:
        length_bytes = length + len(self._tail)
        header = head_of(length_bytes, binary=self._binary)
        self._headers[length] = header, len(header) + length_bytes
        return self._headers[length]
