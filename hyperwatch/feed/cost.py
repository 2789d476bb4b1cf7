"""What work at the head takes, in microseconds. Pure.

It is counted, not measured: a clock would tell how busy the machine is, and the same load would be judged differently from
one minute to the next. The numbers are those of one core of 2024, rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyperwatch.feed.messages import Message

__all__ = [
    "ASK_US",
    "AT_ONCE_US",
    "BRIEF_US",
    "BYTES_PER_US",
    "DETAIL_US",
    "DOUBT_US",
    "EVENT_US",
    "READ_US",
    "made_us",
    "request_us",
]

AT_ONCE_US = 1000  # between checkpoints: what another client may have to wait

BRIEF_US = 200  # a look: what takes longer has pauses

ASK_US = 5.0  # a filter about an entry
EVENT_US = 0.1  # of an event, whether its side or status is wanted
DETAIL_US = 1.5  # of an event, what is looked up in its bytes
BYTES_PER_US = 4096  # of messages, as they are made and as they are pushed
READ_US = 1000.0  # a read of the files, by a thread that takes the time from the event loop
DOUBT_US = 500.0  # to find what a word may have been meant for
_REQUEST_US = 20.0  # what a client says, but for its filters
_FILTER_US = 30.0
_HEARD_PER_US = 20  # bytes of it
_PACKED_PER_US = {"zstd": 600, "gzip": 250}  # bytes of the node's events, as they compress


def made_us(messages: Sequence[Message]) -> float:
    """What it took to make messages: to copy their events together, and to compress them."""
    took_us = 0.0
    for message in messages:
        if message.packing is None:
            took_us += len(message.tail) / BYTES_PER_US
        else:
            took_us += message.raw_bytes / _PACKED_PER_US[message.packing]
    return took_us


def request_us(text: str | bytes) -> float:
    """What it takes to obey a request: its filters are objects, and lists of words are long."""
    objects = text.count("{") if isinstance(text, str) else 0
    return _REQUEST_US + _FILTER_US * objects + len(text) / _HEARD_PER_US
