"""Messages compressed once for all who want them so. Pure.

Level 1 by measurement on real recordings: more gains nothing with zstd, and a sixth with gzip at twice the cost. The
largest message then takes 0.3 ms or 1 ms, so it is done where messages are built, on the event loop: handing it to a
thread would cost as much as it takes for most.
"""

from __future__ import annotations

import gzip
from typing import Literal, get_args

import attrs

from hyperwatch.log.packed_file import zstd

__all__ = ["ENCODINGS", "Encoding", "Message", "compressed"]

Encoding = Literal["zstd", "gzip"]

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

_LEVEL = 1


@attrs.frozen
class Message:
    """A message but for what differs between subscribers."""

    channel: bytes
    """Of our own types: the channel whose `id` and `seq` go before the tail. Official messages: b""."""
    tail: bytes
    packing: Encoding | None = None
    """How the tail is compressed."""
    raw_bytes: int = 0
    """Of a compressed tail: how long it was before."""

    @property
    def binary(self) -> bool:
        """Whether the tail is compressed."""
        return self.packing is not None

    @property
    def form(self) -> bytes:
        """What stands before the tail, for `id` and `seq` to be put in."""
        if self.binary:
            return b'{"channel":"%b","id":%%b,"seq":%%d}\n' % self.channel  # the body begins right behind the newline
        return b'{"channel":"%b","data":{"id":%%b,"seq":%%d,' % self.channel


def compressed(message: Message, encoding: Encoding | None) -> Message:
    """The message with its tail compressed: as one document, the rest of `data` behind `id` and `seq`."""
    if encoding is None:
        return message
    document = b"{" + message.tail[:-1]  # its last brace closes the envelope
    # Either body stands alone: a zstd frame that names its length, a gzip member without a date.
    body = zstd.compress(document, _LEVEL) if encoding == "zstd" else gzip.compress(document, _LEVEL, mtime=0)
    return Message(message.channel, body, encoding, len(document))
