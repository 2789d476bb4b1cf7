"""Counting what has been delivered, when nobody waits for anything else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import trio

from hyperwatch.ingest.counters import Counters
from hyperwatch.ingest.format_check import FormatCheck
from hyperwatch.log.batches import Batch

__all__ = ["DeferredCounts"]


class _Delivered(NamedTuple):
    """A batch that has been."""

    batch: Batch
    size_bytes: int
    needs_keys: bool


class DeferredCounts:
    """Batches that were delivered and have not been counted.

    Args:
        counters: are kept.
        judge: is shown the events.
        open_bytes: of batches that wait to be counted: beyond it the first one is, whoever waits.
        busy: whether anyone does.
    """

    def __init__(
        self, counters: Counters, format_check: FormatCheck, open_bytes: int, busy: Callable[[], bool]
    ) -> None:
        self._counters = counters
        self._format_check = format_check
        self._bound_bytes = open_bytes
        self._busy = busy
        self._open: deque[_Delivered] = deque()
        self._open_bytes = 0

    def add(self, batch: Batch, size_bytes: int, *, needs_keys: bool) -> None:
        """Counts a batch that was delivered, later.

        Args:
            batch: the batch.
            size_bytes: what it took of the files.
            needs_keys: whether a live subscriber needed what events are routed by.
        """
        self._open.append(_Delivered(batch, size_bytes, needs_keys))
        self._open_bytes += size_bytes

    async def keep(self, *, close: bool = False) -> None:
        """Counts as long as nobody waits, or more is open than may be; all of them before the end.

        Raises:
            FormatChangedError: where half of the events are of an unknown kind.
        """
        while self._open and (close or not self._must_wait()):
            batch, size_bytes, needs_keys = self._open[0]
            for entry in batch.entries:
                for _ in entry.slice.read_keys():
                    await trio.lowlevel.checkpoint()
                    if not close and self._must_wait():
                        return
            self._open.popleft()
            self._open_bytes -= size_bytes
            self._counters.read(batch, size_bytes)
            self._counters.unkeyed += self._format_check.weigh_events(batch)
            for entry in batch.entries:
                entry.slice.settle(needs_keys=needs_keys)

    def _must_wait(self) -> bool:
        return self._busy() and self._open_bytes <= self._bound_bytes
