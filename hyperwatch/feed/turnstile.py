"""Where clients that are behind are served: what they ask for comes after the head's work.

Who is over budget has a turn when all such clients before it have had theirs, one at a time, and together they have a part
of the time.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

__all__ = ["SHARE", "Turnstile"]

SHARE = 0.05  # of the event loop's time, for all who are over budget together
_LEAST_S = 0.001  # the event loop sleeps no shorter: what is less is put off until there is more
_GIVE_WAY_US = 200  # of work, between two looks at whether the head has any
_WAIT_S = 0.02  # for the head: at a peak it is always at work
_REST_S = 2.0  # however much was done
_TURN_US = 30.0  # what a turn takes beside the work


class Turnstile:
    """Lets those who are over budget work one at a time."""

    def __init__(self) -> None:
        self.busy: Callable[[], bool] = lambda: False
        """Whether the head is at work: whoever runs heads sets it."""
        self._lines: dict[str, trio.Lock] = {}  # of one client's connections: that it has many gives it no more turns
        self._gate = trio.Lock()  # trio's locks are fair: first come, first served
        self._free_s = -math.inf
        self._since_us = 0.0  # work since way was given
        self._impatient_s = -math.inf  # until then the head is not waited for
        self.worked_us = 0.0
        """What was done in all turns of those who were over budget."""

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """A turn of a client that is over budget. In it nobody is waited for."""
        line = self._lines.setdefault(client, trio.Lock())
        try:
            async with line, self._gate:
                if self._free_s - trio.current_time() >= _LEAST_S:
                    await trio.sleep_until(self._free_s)
                await self.pause()
                self.work(_TURN_US, over=True)
                yield
        finally:
            if not line.statistics().locked:  # it is handed over to who waits
                self._lines.pop(client, None)

    @asynccontextmanager
    async def short_cut(self) -> AsyncIterator[None]:
        """The same for a client that has time left: it waits for nobody but the head."""
        if self._since_us >= _GIVE_WAY_US:
            await self.pause()
        yield

    def work(self, work_us: float, *, over: bool) -> None:
        """So much was done. Because of who is over budget? Then the next such turn may begin that much later."""
        self._since_us += work_us
        if over:
            self.worked_us += work_us
            rest_s = work_us * 1e-6 / SHARE
            now_s = trio.current_time()
            self._free_s = min(max(self._free_s, now_s) + rest_s, now_s + _REST_S)

    async def pause(self) -> None:
        """Lets the others run, and the head until it has done its work: for _WAIT_S at most, and not again for as long."""
        self._since_us = 0.0
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self._impatient_s:
            return
        with trio.move_on_after(_WAIT_S) as waiting:
            while self.busy():  # noqa: ASYNC110  nobody tells when it is done: that would be one more thing for the head to do
                await trio.sleep(_LEAST_S)
        if waiting.cancelled_caught:
            self._impatient_s = trio.current_time() + _WAIT_S
