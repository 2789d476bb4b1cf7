"""What cannot be used is moved aside: out of the way, and kept for whoever wants to look. Blocking I/O."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["KEPT", "move_aside", "set_aside"]

KEPT = 8
"""So many files of a name are kept; the oldest go. A directory is never removed."""

_MARK = ".aside-"


def set_aside(path: Path, now_ns: Callable[[], int] = time.time_ns) -> Path:
    """Renames a file, a directory or whatever is there, and returns its new name. Raises OSError."""
    aside = path.with_name(f"{path.name}{_MARK}{now_ns()}")
    path.rename(aside)
    # By their names, which end in when they were moved: 19 digits until the year 2286.
    older = sorted(each.name for each in path.parent.iterdir() if each.name.startswith(path.name + _MARK))
    for name in older[:-KEPT]:
        with suppress(OSError):
            os.unlink(path.with_name(name))  # noqa: PTH108  a directory is an error here, and stays
    return aside


def move_aside(path: Path, why: str) -> str:
    """The same, and returns a sentence on it; also where it could not be moved."""
    try:
        return f"{path} cannot be used ({why}): it is {set_aside(path).name} now"
    except OSError as error:
        return f"{path} cannot be used ({why}), nor moved aside ({error.strerror or error})"
