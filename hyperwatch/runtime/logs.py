"""Logs: loguru, on standard error, plain text or JSON lines. Nobody who logs waits for whoever reads it.

Standard error may be a pipe that nobody empties. A thread of its own writes there; what it has no room for is dropped and
counted, and said when it flows again.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from functools import partial
from io import TextIOWrapper
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TextIO

from loguru import logger

from hyperwatch.runtime.log_writer import Drain, write_all

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["FLUSH_S", "LEVELS", "dropped", "flush", "own_process", "say", "to_stderr"]

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FLUSH_S = 1.0
"""How long the end of the process waits for what is still to be written: within the 8 s that a stop may take."""

_STDERR = 2
_TEXT = "{time:YYYY-MM-DD HH:mm:ss.SSS!UTC}Z {level: <7} {message}\n{exception}"


def to_stderr(level: str, style: Literal["text", "json"]) -> None:
    """Sends the log to what standard error is at this moment, from `level` on.

    loguru's own `enqueue` has an unbounded queue. `json` costs 40 us a line, which no line per event pays.
    """
    logger.remove()
    # Not `diagnose`: it shows the values of variables beside a traceback, and one of them may be a client's token.
    sink = partial(_put, sys.stderr)
    if style == "json":
        logger.add(sink, level=level, serialize=True, diagnose=False)
    else:
        logger.add(sink, level=level, format=lambda _: _TEXT, colorize=False, diagnose=False)


def say(text: str) -> None:
    """Says a line to people on standard error, in its turn with the log."""
    _put(sys.stderr, f"{text}\n")


def flush(seconds: float = FLUSH_S) -> bool:
    """Waits until all is written, for so long at most. False where it is not."""
    return _drain.flush(seconds)


def dropped() -> int:
    """How many lines had to go since the process began."""
    return _drain.dropped


def own_process() -> None:
    """Makes ready a process that is hyperwatch's alone: whatever else would write to standard error goes the same way.

    Those are warnings, the standard library's loggers, and the tracebacks of a crash. And the descriptors that every
    program takes for the standard ones are taken: one that was closed would be a file's or a client's.
    """
    for descriptor in range(_STDERR + 1):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal has no letters for is no error
    logging.captureWarnings(capture=True)
    logging.getLogger().addHandler(_Forward(logging.WARNING))
    sys.excepthook = _on_crash
    threading.excepthook = lambda fault: _on_crash(fault.exc_type, fault.exc_value, fault.exc_traceback)
    sys.unraisablehook = _on_unraisable


class _Forward(logging.Handler):
    """What others log by the standard library, as a line of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        text = " ".join(f"{record.name}: {record.getMessage()}{f' ({error!r})' if error else ''}".split())
        logger.log(record.levelname if record.levelname in LEVELS else "ERROR", "{}", text)


def _on_crash(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None, head: str = ""
) -> None:
    _put(sys.stderr, head + "".join(traceback.format_exception(kind, error, trace)))
    flush()


def _on_unraisable(fault: UnraisableHookArgs) -> None:
    head = f"{fault.err_msg or 'Exception ignored in'}: {fault.object!r}\n"
    _on_crash(fault.exc_type, fault.exc_value, fault.exc_traceback, head)


def _put(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return  # it was closed before we began
    own, encoding = stream is sys.__stderr__, getattr(stream, "encoding", None) or "utf-8"
    data = text.encode(encoding, "backslashreplace")
    if own:
        _drain.put(data)
    else:  # somebody's in this process, who knows what they do
        stream.write(data.decode(encoding))
        stream.flush()


def _tell(lost: int) -> None:
    logger.error("{} lines of this log are missing here: standard error was not read, or could not be written", lost)


_drain = Drain(partial(write_all, _STDERR), _tell)
