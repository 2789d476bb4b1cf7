"""Which place in its block an event has. Pure.

By-block lines say it themselves: every line is a whole block. In the streaming and plain layouts the places are counted,
over lines, batches and files.
"""

from __future__ import annotations

from collections import OrderedDict

from hyperwatch.log.cursor import Cursor
from hyperwatch.node.events import Run

__all__ = ["BLOCKS", "Places"]

BLOCKS = 20_000  # a restarting node goes back up to 10,000 blocks; late lines stay within seconds


class Places:
    """Counts the events read of each of the last BLOCKS blocks (in the plain layout: of event times).

    Args:
        start: where reading begins; its block and count carry on.
    """

    def __init__(self, start: Cursor) -> None:
        self._counts: OrderedDict[int | str, int] = OrderedDict()
        self.block: int | str | None = start.block
        if start.block is not None:
            self._counts[start.block] = start.count

    @property
    def count(self) -> int:
        """How many events of the last block have been read."""
        return 0 if self.block is None else self._counts.get(self.block, 0)

    def place(self, run: Run) -> int:
        """The place of the run's first event in its block."""
        block = run.time if run.block is None else run.block
        first = run.skipped if run.fresh else self._counts.get(block, 0)
        self._counts[block] = first + len(run.events)
        self.block = block
        if len(self._counts) > BLOCKS:
            self._counts.popitem(last=False)
        return first
