"""Counting what has been delivered, when nobody waits for anything else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from hyperwatch.log.batch import Batch
from hyperwatch.log.counters import Counters
from hyperwatch.log.judge import Judge

__all__ = ["Books"]

_OPEN_BYTES = 8 * 1024 * 1024  # of batches that wait to be counted: beyond it they are, whoever waits


class Books:
    """Batches that were delivered and have not been counted.

    Args:
        counters: are kept.
        judge: is shown the events.
        busy: whether anyone waits.
    """

    def __init__(self, counters: Counters, judge: Judge, busy: Callable[[], bool]) -> None:
        self._counters = counters
        self._judge = judge
        self._busy = busy
        self._open: deque[tuple[Batch, int]] = deque()
        self._open_bytes = 0

    def add(self, batch: Batch, size_bytes: int) -> None:
        """It has been delivered."""
        self._open.append((batch, size_bytes))
        self._open_bytes += size_bytes

    async def keep(self, *, close: bool = False) -> None:
        """Counts as long as nobody waits, or more than _OPEN_BYTES are open; all of them before the end.

        Raises:
            FormatChangedError: where half of the events are of an unknown kind.
        """
        while self._open and (close or not self._must_wait()):
            batch, size_bytes = self._open[0]
            for entry in batch.entries:
                for _ in entry.run.read_keys():
                    await trio.lowlevel.checkpoint()
                    if not close and self._must_wait():
                        return
            self._open.popleft()
            self._open_bytes -= size_bytes
            self._counters.read(batch, size_bytes)
            self._counters.unrouted += self._judge.weigh_events(batch)

    def _must_wait(self) -> bool:
        return self._busy() and self._open_bytes <= _OPEN_BYTES
