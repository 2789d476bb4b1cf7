"""What a node puts around events in the by-block and streaming layouts, and what others made of it.

Recordings in the wild were re-written by tools: a local time is missing, times are numbers, numbers stand in quotes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from hyperwatch.node.json_lines import again
from hyperwatch.node.lenient_keys import int_of, text_of_json
from hyperwatch.node.times import ms_of, text_of

__all__ = ["BOM", "ENVELOPES", "OPENING", "Envelope", "bare", "envelope_of", "number_of", "one_block", "rewritten"]

BOM = b"\xef\xbb\xbf"
"""What some editors and tools put before a file's first line."""

_HIGHEST = 2**53 - 1  # of block numbers: every language's clients can hold it

OPENING = b'{"local_time":'


_T = TypeVar("_T")


class Envelope(msgspec.Struct, Generic[_T], gc=False):
    """A line. The local time is "" where it says none."""

    local_time: str
    block_time: str
    block_number: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    events: list[_T]


ENVELOPES = msgspec.json.Decoder(list[Envelope[msgspec.Raw] | Literal["\x7f"]])


def one_block(envelopes: Sequence[Envelope[Any]]) -> bool:
    """Whether they are all of the first one's block."""
    number, time = envelopes[0].block_number, envelopes[0].block_time
    return [each.block_number for each in envelopes].count(number) == len(envelopes) and [
        each.block_time for each in envelopes
    ].count(time) == len(envelopes)


class _Rewritten(msgspec.Struct, gc=False):
    block_time: msgspec.Raw
    block_number: msgspec.Raw
    events: list[msgspec.Raw]
    local_time: msgspec.Raw = msgspec.Raw()


_REWRITTEN = msgspec.json.Decoder(_Rewritten)


def rewritten(line: bytes) -> Envelope[msgspec.Raw]:
    """The envelope of a line that is not as a node writes it; raises one of UNREADABLE where it cannot be read."""
    return _read(_REWRITTEN.decode(line))


def envelope_of(line: bytes) -> Envelope[msgspec.Raw]:
    """The envelope of a line that has been read before."""
    return _read(again(_REWRITTEN, bare(line)))


def bare(line: bytes) -> bytes:
    """A line without a BOM, its end and what is blank around it; b"" for a blank line."""
    return line.removeprefix(BOM).strip(b" \t\r\n")


def number_of(value: msgspec.Raw) -> int | None:
    """A block's number, which may stand in quotes; None where it is none."""
    text = text_of_json(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS else int_of(value)
    return number if number is not None and 0 <= number <= _HIGHEST else None


_NUMBER_DIGITS = 20


def _read(found: _Rewritten) -> Envelope[msgspec.Raw]:
    number, time = number_of(found.block_number), _time_of(found.block_time)
    if number is None or not time:
        what = "block_number" if number is None else "block_time"
        msg = f"its {what} cannot be read"
        raise ValueError(msg)
    return Envelope(_time_of(found.local_time), time, number, found.events)


def _time_of(value: msgspec.Raw) -> str:
    """A time as a node writes it; "" where there is none, or it cannot be read."""
    text, number = text_of_json(value), int_of(value)
    if text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS:
        number = int(text)
    if number is not None:
        return _text_of_number(number)
    try:
        ms_of(text)
    except ValueError:
        return ""
    return text


# Seconds, ms, us and ns since 1970 differ by a thousand: between 2001 and 2286 the digits tell which it is.
_PER_MS = {13: 1, 16: 1_000, 19: 1_000_000}
_SECONDS_DIGITS = 10


def _text_of_number(number: int) -> str:
    digits = len(str(number)) if number > 0 else 0
    if digits == _SECONDS_DIGITS:
        return text_of(number * 1000)
    return text_of(number // _PER_MS[digits]) if digits in _PER_MS else ""
