"""The node's times: ISO 8601 without an offset, UTC, with 0, 3, 6 or 9 digits of a second.

What others re-wrote may have the offset that says the same: Z or +00:00.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime

__all__ = ["iso_of", "ms_of", "text_of"]


_LONGEST = 40  # what a cursor carries
_LATEST_MS = 10**14 - 1  # before the year 5138: with more digits it is no time in milliseconds


# All events of a block carry the same text. What raises is not kept: so no text of any length is.
@functools.lru_cache(maxsize=1024)
def ms_of(text: str) -> int | None:
    """UTC milliseconds since 1970 of one of the node's times, cut, not rounded; None for "" (a stream without times).

    Fills of the plain layout carry the milliseconds themselves.

    Raises:
        ValueError: where the text is no time, or none between 1970 and 5138: what comes out of a line may be of any length.
    """
    if not text:
        return None
    # Looked at first, for whole numbers of thousands of digits are no clock's.
    if not text.isascii() or len(text) > _LONGEST or (time_ms := _ms_of(text)) > _LATEST_MS or time_ms < 0:
        msg = f"no time of a node: {text[:_LONGEST]!r}"
        raise ValueError(msg)
    return time_ms


def _ms_of(text: str) -> int:
    if text.isdigit():
        return int(text)
    whole = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    text = text.removesuffix("+00:00").removesuffix("Z")
    digits = text[20:]
    if text[19:20] not in ("", ".") or (digits and not digits.isdigit()):
        msg = f"no time of a node: {text!r}"
        raise ValueError(msg)
    return int(whole.timestamp()) * 1000 + int(digits.ljust(3, "0")[:3])


def text_of(time_ms: int) -> str:
    """UTC milliseconds as a node writes them, as far as it goes: every finer time within them begins like this."""
    return iso_of(time_ms).replace(" ", "T")


def iso_of(time_ms: int) -> str:
    """UTC milliseconds as people read them, `2026-05-05 17:39:13.024`."""
    seconds, ms = divmod(time_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{ms:03}"
