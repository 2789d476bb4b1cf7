"""hyperwatch under cProfile, every thread: `python -m benchmarks.profiled REPORT run ...`.

The report names what took the most processor time, callees included, of hyperwatch and of what it calls; the machinery
that runs tasks and threads is left out, for all of the time passes through it. Waiting is not in it. A profile slows the
program two to four times, functions written in Python the most: read what is large against what, not how large it is.
"""

from __future__ import annotations

import cProfile
import pstats
import re
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from hyperwatch.cli.main import main

__all__ = ["report"]

_LINES = 15
_MACHINERY = re.compile(
    r"/trio/|/outcome/|/contextlib\.py|/threading\.py|/click/|lock|select\.epoll|/cli/|<string>|_contextvars|of 'generator'|exec|importlib|<module>"
)

_threads: list[cProfile.Profile] = []


def _profile_thread(_frame: FrameType, _event: str, _argument: object) -> None:
    """The first thing that a new thread calls: from here on a profile of its own takes the place of this function."""
    profile = cProfile.Profile(time.thread_time)
    _threads.append(profile)
    profile.enable()


def report(profiles: list[cProfile.Profile]) -> str:
    """The _LINES functions with the most cumulative time."""
    stats = pstats.Stats(profiles[0])
    for profile in profiles[1:]:
        stats.add(profile)
    rows = [
        (cumulative_s, own_s, calls, _name(*where))
        for where, (_, calls, own_s, cumulative_s, _) in stats.stats.items()  # type: ignore[attr-defined]  # not in the stubs
        if not _MACHINERY.search(where[0] + where[2])
    ]
    lines = [" cumulative s       own s       calls  function"]
    for cumulative_s, own_s, calls, name in sorted(rows, reverse=True)[:_LINES]:
        lines.append(f"{cumulative_s:13.3f}{own_s:12.3f}{calls:12,}  {name}")
    return "\n".join(lines) + "\n"


def _name(file: str, line: int, function: str) -> str:
    if file == "~":
        return function
    return f"{'/'.join(Path(file).parts[-2:])}:{line} {function}"


if __name__ == "__main__":
    path, sys.argv = Path(sys.argv[1]), ["hyperwatch", *sys.argv[2:]]
    threading.setprofile(_profile_thread)
    whole = cProfile.Profile(time.thread_time)
    try:
        whole.runcall(main)
    finally:
        threading.setprofile(None)
        path.write_text(report([whole, *_threads]))
