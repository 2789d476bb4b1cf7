"""What clients make the log say: bounded for each address, so that none of them can fill a disk or hide what matters."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import attrs
from loguru import logger

__all__ = ["ADDRESSES", "FEW", "SPAN_S", "ClientLog", "Level"]

SPAN_S = 60.0
FEW = 5  # lines alike of an address in a span; more are counted
ADDRESSES = 256  # with lines alike in a span; those of all others count together

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

_OTHERS = "other addresses"


@attrs.define
class _Span:
    """The lines alike of one address since the first of them."""

    address: str
    since_s: float
    lines: int = 0
    level: Level = "DEBUG"
    last: str = ""
    """What was counted and not said last."""


class ClientLog:
    """Lets the first lines of a kind from an address through, and says in the end how many more there were.

    Args:
        now_s: the clock that spans are measured by.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._spans: dict[tuple[str, str], _Span] = {}  # by address and kind; in the order in which they began

    def say(self, level: Level, address: str, words: str, *details: object, fault: BaseException | None = None) -> None:
        """Logs a line that a client has caused, unless there were enough of these.

        Args:
            level: of the log.
            address: whose line it is.
            words: the line, with braces for the details. Lines of the same words are alike.
            details: what stands in them.
            fault: whose traceback belongs to it.
        """
        self.settle()
        span = self._span(address, words)
        span.lines += 1
        line = words.format(*details)
        if span.lines <= FEW:
            logger.opt(exception=fault, depth=1).log(level, "{}", line)
        else:
            span.level, span.last = level, line

    def settle(self) -> None:
        """Says of every span that is over how many lines were not said."""
        now_s = self._now_s()
        while self._spans and now_s - next(iter(self._spans.values())).since_s >= SPAN_S:
            span = self._spans.pop(next(iter(self._spans)))
            if span.lines > FEW:
                more, seconds = span.lines - FEW, now_s - span.since_s
                text = "{} more of these from {} in the last {:.0f} s, the last one: {}"
                logger.log(span.level, text, more, span.address, seconds, span.last)

    def _span(self, address: str, words: str) -> _Span:
        if (address, words) not in self._spans and len(self._spans) >= ADDRESSES:
            address = _OTHERS
        return self._spans.setdefault((address, words), _Span(address, self._now_s()))
