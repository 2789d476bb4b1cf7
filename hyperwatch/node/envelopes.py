"""What a node puts around events in the by-block and streaming layouts."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["ENVELOPES", "OPENING", "Envelope", "one_block"]

OPENING = b'{"local_time":'


class Envelope(msgspec.Struct, gc=False):
    """A line."""

    local_time: str
    block_time: str
    block_number: int
    events: list[msgspec.Raw]


ENVELOPES = msgspec.json.Decoder(list[Envelope | Literal["\x7f"]])


def one_block(envelopes: list[Envelope]) -> bool:
    """Whether they are all of the first one's block."""
    number, time = envelopes[0].block_number, envelopes[0].block_time
    return [each.block_number for each in envelopes].count(number) == len(envelopes) and [
        each.block_time for each in envelopes
    ].count(time) == len(envelopes)
