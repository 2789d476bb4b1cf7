"""What is to be played, and what came of it."""

from __future__ import annotations

import time

import attrs
from loguru import logger

from hyperwatch.errors import DataError
from hyperwatch.log.batches import Batch
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Tree
from hyperwatch.replay.formats import Selection
from hyperwatch.replay.pacing import Pace
from hyperwatch.replay.playback import TolerantRecording

__all__ = ["Job", "Report"]

_DAMAGE_LOGGED = 5  # a damaged file must not fill the screen


@attrs.define
class Report:
    """Counts, kept while it is played."""

    files: set[str] = attrs.Factory(set)
    lines: int = 0
    events: int = 0
    written: int = 0
    unreadable: int = 0
    unkeyed: int = 0
    """Events that lack an account, coin or status that a filter may ask for; counted where there is a filter."""
    undated: int = 0
    """Events whose envelopes do not say when the node wrote them."""
    begun_s: float = attrs.Factory(time.monotonic)
    interrupted: bool = False
    """By a signal."""
    cut: bool = False
    """Whether nobody reads the output any more."""
    fault: DataError | None = None
    """Why it ended early."""
    _undated_files: set[str] = attrs.field(factory=set, init=False)

    def count(self, batch: Batch, *, log: bool = True) -> None:
        """Adds what was read; says in the log which lines could not be, the first few of them."""
        self.files.add(batch.file)
        self.lines += batch.lines
        self.events += batch.events
        undated = sum(entry.slice.count for entry in batch.entries if entry.slice.lacks_local_time)
        if undated and log and batch.file not in self._undated_files:
            self._undated_files.add(batch.file)
            logger.warning("{} has lines without a local_time that can be read: it is null in flat output", batch.file)
        self.undated += undated
        for unreadable in batch.unreadable if log else ():
            self.unreadable += 1
            if self.unreadable <= _DAMAGE_LOGGED:
                logger.error(
                    "unreadable: {} bytes of {} at offset {}: {}",
                    unreadable.length_bytes, batch.file, unreadable.offset, unreadable.reason,
                )  # fmt: skip
            if self.unreadable == _DAMAGE_LOGGED:
                logger.error("further unreadable lines are only counted")

    def count_unkeyed(self, batch: Batch) -> None:
        """Adds the events of which a filter cannot judge everything."""
        self.unkeyed += sum(len(entry.slice.unkeyed) for entry in batch.entries)

    @property
    def mostly_unreadable(self) -> bool:
        """Whether half of the lines or more could not be read: then it was no recording of a node, or another format."""
        return self.unreadable > 0 and 2 * self.unreadable >= self.lines

    def text(self) -> str:
        """The summary, one line."""
        files = len(self.files)
        unkeyed = f", {self.unkeyed:,} of an unknown kind" if self.unkeyed else ""
        undated = f", {self.undated:,} without a local time" if self.undated else ""
        return (
            f"replayed {files:,} file{'' if files == 1 else 's'}: {self.lines:,} lines, {self.events:,} events read{unkeyed}{undated}, "
            f"{self.written:,} written, {self.unreadable:,} unreadable lines in {time.monotonic() - self.begun_s:.1f} s"
        )


@attrs.frozen
class Job:
    """A log, where to begin, what of it is wanted, and how fast."""

    log: TolerantRecording | Tree
    start: Cursor
    wanted: Selection
    pace: Pace | None = None
    """None is as fast as it goes."""
