"""Which step from one block to the next a node can have made. Pure.

Everything that reading remembers is measured by the highest block that was read. One damaged digit in a block number would move that mark
by years: what the node then writes would count as written a second time, and be left out without a word, by
everybody who resumes. So a step is bounded by what a node can do in the time that has passed between the two blocks by their own times. What lies
outside is suspect: it is set aside and named, and moves nothing.

A real step of that kind (another chain in the same directory, say) is confirmed by what follows: three runs in a row that go on from each
other are believed, whatever came before them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable

import attrs

from hyperwatch.log.positions import Block
from hyperwatch.node.slices import BlockSlice
from hyperwatch.node.streams import hour_end_ms

__all__ = ["Steps", "Suspicion", "is_far_above", "key_of", "trusted"]

# Blocks come 14 to 16 a second. A chain seven times as fast is still believed.
_BLOCKS_PER_S = 100
_SLACK_BLOCKS = 1_000

# A restarting node goes back 10,000 blocks at most. Ten times as many are believed.
_BACK_BLOCKS = 100_000

# The plain layout has times alone. A node that pauses for longer than this goes on in a later hour's file, whose name says so; one that catches up
# writes old times into new files.
_AHEAD_MS = 3_600_000
_BACK_MS = 7 * 24 * 3_600_000

_CONFIRMED = 2  # runs that must go on from a suspect one


@attrs.frozen
class _Mark:
    """The highest block of a chain."""

    key: Block
    time_ms: int | None


@attrs.frozen
class Suspicion:
    """Why a run is not believed."""

    reason: str


@attrs.frozen
class _Doubted:
    """A chain that is not believed yet."""

    mark: _Mark
    slices: int = 0
    """How many have gone on from its first one."""


class Steps:
    """Follows the blocks of one log.

    Args:
        key: the highest block that was read before, if any.
        time_ms: its time, UTC.

    Attributes:
        turned: whether the last run that was judged began another chain, which was confirmed.
    """

    def __init__(self, key: Block | None, time_ms: int | None) -> None:
        self._mark = None if key is None else _Mark(key, time_ms)
        self._block = key if isinstance(key, int) else None  # of the mark, at hand: all of this is asked of every run
        self._doubted: _Doubted | None = None
        self.turned = False

    def prime(self, slices: Iterable[BlockSlice]) -> None:
        """Chooses where to begin among the first runs of a log, where nothing was read before: the one in the middle of them."""
        if self._mark is None:
            marks = [_Mark(key_of(slice_), slice_.time_ms) for slice_ in slices]
            marks = [mark for mark in marks if mark.key != ""]
            if marks:
                middle = statistics.median_low([mark.key for mark in marks])  # of one log: all numbers, or all text
                self._believe(next(mark for mark in marks if mark.key == middle))

    def place(self, file: str, slice_: BlockSlice) -> Suspicion | None:
        """Says why the next run cannot follow those before it; None where it can.

        Args:
            file: the name of its file.
            slice_: the next that was read.
        """
        self.turned = False
        if self._block is not None and slice_.block is not None and 0 <= slice_.block - self._block <= _SLACK_BLOCKS:
            if slice_.block > self._block:  # nearly always
                self._mark, self._block = _Mark(slice_.block, slice_.time_ms), slice_.block
            self._doubted = None
            return None
        mark = _Mark(key_of(slice_), slice_.time_ms)
        if mark.key == "":
            return None
        if self._mark is None or _can_follow(self._mark, mark, file):
            # A restarted node goes back and comes up again: what follows is measured by the highest block.
            if self._mark is None or not _is_below(mark.key, self._mark.key):
                self._believe(mark)
            self._doubted = None
            return None
        doubted = self._doubted
        if doubted is None or not _can_follow(doubted.mark, mark, file):
            self._doubted = _Doubted(mark)
        elif doubted.slices + 1 < _CONFIRMED:
            self._doubted = _Doubted(mark, doubted.slices + 1)
        else:
            self._believe(mark)
            self._doubted, self.turned = None, True
            return None
        return Suspicion(f"{_words(mark.key)} cannot follow {_words(self._mark.key)} in the time between them")

    def _believe(self, mark: _Mark) -> None:
        self._mark, self._block = mark, mark.key if isinstance(mark.key, int) else None


def _is_below(key: Block, other: Block) -> bool:
    if isinstance(key, int) and isinstance(other, int):
        return key < other
    return isinstance(key, str) and isinstance(other, str) and key < other


def _words(key: Block) -> str:
    return f"block time {key}" if isinstance(key, str) else f"block {key}"


def _can_follow(before: _Mark, after: _Mark, file: str) -> bool:
    if isinstance(before.key, int) and isinstance(after.key, int):
        ahead = after.key - before.key
        if before.time_ms is None or after.time_ms is None:
            return ahead >= -_BACK_BLOCKS
        passed_ms = max(0, after.time_ms - before.time_ms)
        return -_BACK_BLOCKS <= ahead <= _SLACK_BLOCKS + _BLOCKS_PER_S * passed_ms // 1000
    if before.time_ms is None or after.time_ms is None:
        return True
    if after.time_ms < before.time_ms - _BACK_MS:
        return False
    if after.time_ms <= before.time_ms + _AHEAD_MS:
        return True
    end_ms = hour_end_ms(file)
    return end_ms is None or after.time_ms <= end_ms + _AHEAD_MS


def is_far_above(key: Block | None, time_ms: int | None, other: Block, other_ms: int | None) -> bool:
    """Whether a block lies so far above another one that no node restart is between them.

    Args:
        key: the block.
        time_ms: its time, UTC, where that is known.
        other: the other one.
        other_ms: its time.
    """
    if isinstance(key, int) and isinstance(other, int):
        return key - other > _BACK_BLOCKS
    if isinstance(key, str) and isinstance(other, str) and time_ms is not None and other_ms is not None:
        return time_ms - other_ms > _AHEAD_MS
    return False


def trusted(file: str, blocks: Iterable[tuple[Block, list[BlockSlice]]]) -> list[tuple[Block, list[BlockSlice]]]:
    """Returns the blocks of some consecutive lines that are believed: the one in the middle of all is, whatever comes first."""
    known = list(blocks)
    if len(known) <= 1:
        return known
    middle = statistics.median_low([key for key, _ in known])  # of one log: all numbers, or all text
    (slice_,) = next(slices for key, slices in known if key == middle)[:1]
    steps = Steps(middle, slice_.time_ms)
    return [(key, slices) for key, slices in known if steps.place(file, slices[0]) is None]


def key_of(slice_: BlockSlice) -> Block:
    """What tells a run's block from others: its number, in the plain layout its time."""
    return slice_.time if slice_.block is None else slice_.block
