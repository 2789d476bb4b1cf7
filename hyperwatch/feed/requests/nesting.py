"""How deep a client's JSON is nested, told before anything parses it. Pure.

Parsers recurse, and what is left of the stack depends on who calls them: a depth that one parser bears ends the next.
"""

from __future__ import annotations

from itertools import accumulate

__all__ = ["DEPTH", "too_deep"]

DEPTH = 64  # our deepest request has 5 levels; the rest is for what clients add and nobody looks at

_STEPS = bytes(1 if byte in b"[{" else 255 for byte in range(256))  # 255 is -1 as a signed byte
_BETWEEN = bytes(set(range(256)) - set(b"[]{}"))


def too_deep(text: bytes) -> bool:
    """Whether lists and objects stand in each other more than DEPTH deep.

    What is no JSON may be told either way: no parser comes deeper into it than DEPTH where this is false.
    """
    if text.count(b"[") + text.count(b"{") <= DEPTH:
        return False
    # Without what is escaped, every other part between quotes stands outside of strings.
    outside = b"".join(text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = outside.translate(_STEPS, _BETWEEN)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > DEPTH
