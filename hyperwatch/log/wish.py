"""Beginning at a time or at a block, found by what the lines say. Blocking I/O.

Not by what the files are called: that is the node's wall clock, a lagging node writes an hour's blocks into the next
hour's file, and a node that restarts writes blocks again.
"""

from __future__ import annotations

import attrs

from hyperwatch.errors import CursorError
from hyperwatch.log.cursor import Cursor
from hyperwatch.log.files import Log
from hyperwatch.log.gaps import PLACE_GONE, Gap
from hyperwatch.log.repeats import Passage
from hyperwatch.log.start import Start, find
from hyperwatch.log.steps import key_of
from hyperwatch.node.runs import Run
from hyperwatch.node.streams import Layout

__all__ = ["AtBlock", "AtTime", "resolve"]


@attrs.frozen
class AtTime:
    """The first block at or behind a time."""

    time_ms: int
    """UTC."""

    def is_behind(self, run: Run) -> bool:
        """Whether a run lies before what is wished for."""
        return run.time_ms is not None and run.time_ms < self.time_ms

    def is_at(self, run: Run) -> bool:
        """Whether nothing can lie between a run and what is wished for."""
        return run.time_ms == self.time_ms

    def cursor(self, directory: str) -> Cursor:
        """The wish as a cursor without a place."""
        return Cursor(directory, time=str(self.time_ms))


@attrs.frozen
class AtBlock:
    """The first block with that number, or behind it."""

    block: int

    def is_behind(self, run: Run) -> bool:
        """Whether a run lies before what is wished for."""
        return run.block is not None and run.block < self.block

    def is_at(self, run: Run) -> bool:
        """Whether nothing can lie between a run and what is wished for."""
        return run.block == self.block

    def cursor(self, directory: str) -> Cursor:
        """The wish as a cursor without a place."""
        return Cursor(directory, block=self.block)


def resolve(log: Log, wish: AtTime | AtBlock) -> Start | None:
    """Where to read for a wish: every event at or behind it that is in the files lies behind that place.

    Returns:
        None where nothing at or behind it has been written yet.

    Raises:
        CursorError: where the log's lines do not tell.
        OSError: from the files.
        DataError: where a directory cannot be read.
    """
    names = log.names()
    if not names:
        return None
    place, run, first = find(log, names, wish.is_behind)
    if run is None:
        return None
    _check(log, wish, run)
    directory = log.stream.directory(log.layout)
    cursor = Cursor(directory, (place,), run.block, run.time)
    gap = None
    if first and not wish.is_at(run):
        gap = Gap(log.stream.name, PLACE_GONE, wish.cursor(directory), cursor)
    return Start(cursor, {place.file: Passage(key_of(run), 0, repeating=True)}, gap)


def _check(log: Log, wish: AtTime | AtBlock, run: Run) -> None:
    if isinstance(wish, AtBlock) and log.layout is Layout.PLAIN:
        what = "the node writes the plain layout, whose lines name no blocks"
        raise CursorError(what, 'begin at a time, as in "from": {"time": 1778002753024}')
    if run.time_ms is None:
        what = f"the lines of {log.stream.directory(log.layout)} tell neither block nor time"
        raise CursorError(what, 'begin at a cursor, or with "from": "earliest"')
