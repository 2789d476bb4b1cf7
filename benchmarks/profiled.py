"""hyperwatch under cProfile, every thread: `python -m benchmarks.profiled REPORT run ...`.

The report names what took the most processor time, callees included, of hyperwatch and of what it calls; the machinery
that runs tasks and threads is left out, for all of the time passes through it. Waiting is not in it, nor what was before
the last SIGUSR1. A profile slows the program two to four times, functions written in Python the most: read what is large
against what, not how large it is.
"""

from __future__ import annotations

import cProfile
import re
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

from hyperwatch.cli.main import main

__all__ = ["Profiles"]

_LINES = 15
_MACHINERY = re.compile(
    r"^(trio|_core|outcome|click|cli|benchmarks)/|/(contextlib|threading|runpy)\.py|lock|select\.epoll|<string>|<module>"
    r"|_contextvars|of 'generator'|exec|importlib|_lsprof"
)

_Times = Counter[str]


class Profiles:
    """A profile for each thread, as they come."""

    def __init__(self) -> None:
        self._profiles: list[cProfile.Profile] = []
        self._before = _Times(), _Times(), _Times()

    def begin(self, _frame: FrameType | None = None, _event: str = "", _argument: object = None) -> cProfile.Profile:
        """The first thing that a new thread calls: from here on a profile of its own takes the place of this function."""
        profile = cProfile.Profile(time.thread_time)
        self._profiles.append(profile)
        profile.enable()
        return profile

    def forget(self, *_signal: object) -> None:
        """What has been so far is not reported."""
        self._before = self._sums()

    def report(self) -> str:
        """The _LINES functions with the most cumulative time since `forget`."""
        for now, before in zip(sums := self._sums(), self._before, strict=True):
            now.subtract(before)
        cumulative_s, own_s, calls = sums
        lines = [" cumulative s       own s       calls  function"]
        for name, seconds in cumulative_s.most_common(_LINES):
            lines.append(f"{seconds:13.3f}{own_s[name]:12.3f}{calls[name]:12,.0f}  {name}")
        return "\n".join(lines) + "\n"

    def _sums(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """Cumulative seconds, own seconds and calls by function."""
        sums = _Times(), _Times(), _Times()
        for profile in self._profiles:
            for entry in profile.getstats():
                name = _name(entry.code)
                if not _MACHINERY.search(name):
                    for each, value in zip(sums, (entry.totaltime, entry.inlinetime, entry.callcount), strict=True):
                        each[name] += value  # type: ignore[assignment]  # seconds are counted too
        return sums


def _name(code: str | CodeType) -> str:
    if isinstance(code, str):
        return code
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno} {code.co_name}"


if __name__ == "__main__":
    path, sys.argv = Path(sys.argv[1]), ["hyperwatch", *sys.argv[2:]]
    profiles = Profiles()
    signal.signal(signal.SIGUSR1, profiles.forget)
    threading.setprofile(profiles.begin)
    profiles.begin()
    try:
        main()
    finally:
        threading.setprofile(None)
        path.write_text(profiles.report())
