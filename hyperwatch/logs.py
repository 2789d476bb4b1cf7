"""Logs: loguru, on standard error, plain text or JSON lines."""

from __future__ import annotations

import sys
from typing import Literal

from loguru import logger

__all__ = ["LEVELS", "to_stderr"]

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_TEXT = "{time:YYYY-MM-DD HH:mm:ss.SSS!UTC}Z {level: <7} {message}\n{exception}"


def to_stderr(level: str, style: Literal["text", "json"]) -> None:
    """Sends the log to standard error from `level` on.

    A plain sink: loguru's `enqueue` has an unbounded queue. `json` costs 40 us a line, which no line per event pays.
    """
    logger.remove()
    if style == "json":
        logger.add(sys.stderr, level=level, serialize=True)
    else:
        logger.add(sys.stderr, level=level, format=lambda _: _TEXT, colorize=False)
