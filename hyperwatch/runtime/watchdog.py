"""The end of a process in which a thread does not return."""

from __future__ import annotations

import faulthandler
import os
from contextlib import suppress

from loguru import logger

from hyperwatch.runtime import logs

__all__ = ["EXIT_STUCK", "end_process"]

EXIT_STUCK = 70
"""The exit code: a supervisor restarts the service, and clients resume by their cursors."""


def end_process(what: str) -> None:
    """Names what is stuck, shows where every thread stands, and ends the process at once.

    A thread cannot be stopped from outside; what it holds (a limiter's token, a batch) would be lost for good.
    """
    logger.critical("{}: ending the process with exit code {}; where its threads stand follows", what, EXIT_STUCK)
    with suppress(OSError):
        logs.say(_threads())
    logs.flush()
    os._exit(EXIT_STUCK)


def _threads() -> str:
    """Where every thread stands. By way of memory: to a pipe that nobody empties it would be written for ever. OSError."""
    with open(os.memfd_create("threads"), "w+b") as file:  # noqa: PTH123  a descriptor has no path
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace").rstrip()
