"""The end of a process in which a thread does not return."""

from __future__ import annotations

import faulthandler
import os
import sys

from loguru import logger

__all__ = ["EXIT_STUCK", "end_process"]

EXIT_STUCK = 70
"""The exit code: a supervisor restarts the service, and clients resume by their cursors."""


def end_process(what: str) -> None:
    """Names what is stuck, shows where every thread stands, and ends the process at once.

    A thread cannot be stopped from outside; what it holds (a limiter's token, a batch) would be lost for good.
    """
    logger.critical("{}: ending the process with exit code {}; where its threads stand follows", what, EXIT_STUCK)
    faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
    os._exit(EXIT_STUCK)
