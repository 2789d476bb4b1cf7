"""Beginning at a time or at a block, found by what the lines say. Blocking I/O.

Not by what the files are called: that is the node's wall clock, a lagging node writes an hour's blocks into the next
hour's file, and a node that restarts writes blocks again.
"""

from __future__ import annotations

import attrs

from hyperwatch.errors import CursorError
from hyperwatch.log.block_steps import key_of
from hyperwatch.log.dedupe import FileProgress
from hyperwatch.log.gaps import PLACE_GONE, Gap
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.resume import ResumePoint, find
from hyperwatch.log.tree import Log
from hyperwatch.node.slices import BlockSlice
from hyperwatch.node.streams import Layout

__all__ = ["AtBlock", "AtTime", "resolve"]


@attrs.frozen
class AtTime:
    """The first block at or behind a time."""

    time_ms: int
    """UTC."""

    def is_behind(self, slice_: BlockSlice) -> bool:
        """Whether a run lies before what is wished for."""
        return slice_.time_ms is not None and slice_.time_ms < self.time_ms

    def is_at(self, slice_: BlockSlice) -> bool:
        """Whether nothing can lie between a run and what is wished for."""
        return slice_.time_ms == self.time_ms

    def cursor(self, directory: str) -> Cursor:
        """The start point as a cursor without a place."""
        return Cursor(directory, time=str(self.time_ms))


@attrs.frozen
class AtBlock:
    """The first block with that number, or behind it."""

    block: int

    def is_behind(self, slice_: BlockSlice) -> bool:
        """Whether a run lies before what is wished for."""
        return slice_.block is not None and slice_.block < self.block

    def is_at(self, slice_: BlockSlice) -> bool:
        """Whether nothing can lie between a run and what is wished for."""
        return slice_.block == self.block

    def cursor(self, directory: str) -> Cursor:
        """The start point as a cursor without a place."""
        return Cursor(directory, block=self.block)


def resolve(log: Log, start_point: AtTime | AtBlock) -> ResumePoint | None:
    """Where to read for a start point: every event at or behind it that is in the files lies behind that place.

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
    place, slice_, first = find(log, names, start_point.is_behind)
    if slice_ is None:
        return None
    _check(log, start_point, slice_)
    directory = log.stream.directory(log.layout)
    cursor = Cursor(directory, (place,), slice_.block, slice_.time)
    gap = None
    if first and not start_point.is_at(slice_):
        gap = Gap(log.stream.name, PLACE_GONE, start_point.cursor(directory), cursor)
    return ResumePoint(cursor, {place.file: FileProgress(key_of(slice_), 0, repeating=True)}, gap)


def _check(log: Log, start_point: AtTime | AtBlock, slice_: BlockSlice) -> None:
    if isinstance(start_point, AtBlock) and log.layout is Layout.PLAIN:
        what = "the node writes the plain layout, whose lines name no blocks"
        raise CursorError(what, 'begin at a time, as in "from": {"time": 1778002753024}')
    if slice_.time_ms is None:
        what = f"the lines of {log.stream.directory(log.layout)} tell neither block nor time"
        raise CursorError(what, 'begin at a cursor, or with "from": "earliest"')
