"""What a node puts around events in the by-block and streaming layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

import msgspec

__all__ = ["ENVELOPES", "OPENING", "Envelope", "one_block"]

OPENING = b'{"local_time":'


_T = TypeVar("_T")


class Envelope(msgspec.Struct, Generic[_T], gc=False):
    """A line."""

    local_time: str
    block_time: str
    block_number: int
    events: list[_T]


ENVELOPES = msgspec.json.Decoder(list[Envelope[msgspec.Raw] | Literal["\x7f"]])


def one_block(envelopes: Sequence[Envelope[Any]]) -> bool:
    """Whether they are all of the first one's block."""
    number, time = envelopes[0].block_number, envelopes[0].block_time
    return [each.block_number for each in envelopes].count(number) == len(envelopes) and [
        each.block_time for each in envelopes
    ].count(time) == len(envelopes)
