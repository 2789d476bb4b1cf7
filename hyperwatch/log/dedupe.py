"""Which place in its block an event has, and whether it has been read before. Pure.

A node that restarts goes back up to 10,000 blocks and appends them again, to the same hour file or to a later one. What
it wrote a second time is known by (block, place): blocks that fall inside a file begin a repeat, in which places count
from 0 again, and a place that was read before is a repeat.

Blocks are numbers, in the plain layout event times. By-block lines say their places themselves: each is a whole block.
What the files cannot tell: in the streaming and plain layouts, a node that goes back to exactly the last block from one
that goes on with it. Its events then count on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import attrs

from hyperwatch.log.block_steps import Steps, Suspicion, key_of
from hyperwatch.log.positions import Block, Cursor
from hyperwatch.node.slices import BlockSlice
from hyperwatch.node.times import ms_of

__all__ = ["BLOCKS", "Deduplicator", "FileProgress", "Placement"]

BLOCKS = 20_000  # twice what a restarting node goes back
_FILES = 4  # a walk has three open
_ALL = 2**62  # places of a block that was read before anything that is known here


@attrs.frozen
class FileProgress:
    """Where reading has come to in one file."""

    last: Block
    """The block of its last line."""
    at: int
    """The place that the block's next event would have."""
    repeating: bool = False
    """Whether its blocks fell, and have not yet risen above all that were read."""
    between: bool = False
    """Whether it appeared between files that were read: what of its blocks is known was read as a repeat elsewhere."""
    floor: Block | None = None
    """Of an older file: the highest block that was read of it, for newer files were read further. None: the start's."""
    floor_count: int = 0
    """How many of that block's events."""


_NEW = FileProgress("", 0)


@attrs.frozen
class Placement:
    """What is known of a run."""

    first: int
    """The place of its first event in the block."""
    repeated: int
    """How many of its events, from the first on, were read before."""


class Deduplicator:
    """Counts the events read of each of the last BLOCKS blocks.

    Args:
        start: where reading begins. What lies before it has been read: in a repeat, every block below its block, and of
            that block as many events as it counts.
        passages: for each of the start's files that is begun in its middle, where its lines had come to there.

    Attributes:
        restarts: how often the node went back.
    """

    def __init__(self, start: Cursor, passages: dict[str, FileProgress] | None = None) -> None:
        self._start = start.key
        self._counts: OrderedDict[Block, int] = OrderedDict()
        self._passages: OrderedDict[str, FileProgress] = OrderedDict(passages or {})
        self._back = any(passage.repeating for passage in self._passages.values())  # whether what was read last repeats
        self.restarts = 0
        self.block, self.time, self.count = start.block, start.time, start.count
        self._steps = Steps(start.key, ms_of(start.time))
        for passage in self._passages.values():
            if passage.floor is not None:
                self._counts[passage.floor] = passage.floor_count
        if start.key is not None:
            self._counts[start.key] = start.count

    @property
    def _highest(self) -> Block | None:
        return self.block if self.block is not None else self.time or None

    def begin_again(self, file: str) -> None:
        """The file was truncated or replaced: its blocks are repeats until they have risen above all that were read."""
        highest = self._highest
        if highest is not None:
            self._passages[file] = FileProgress(highest, 0, repeating=True)

    def begin_late(self, file: str, before: str | None) -> None:
        """The file appeared between others that were read: its blocks are new where they follow those of `before`."""
        highest = self._highest
        if highest is not None:
            lowest = "" if isinstance(highest, str) else -1
            known = self._passages.get(before or "", FileProgress(lowest, 0))
            self._passages[file] = attrs.evolve(known, between=True, floor=known.last, floor_count=known.at)

    @property
    def is_new(self) -> bool:
        """Whether nothing has been read before."""
        return self.block is None and not self.time

    def prime(self, slices: Iterable[BlockSlice]) -> None:
        """Looks ahead at some of the runs that come first, where nothing was read before: the first of them may be damaged."""
        self._steps.prime(slices)

    def suspicion(self, file: str, slice_: BlockSlice) -> Suspicion | None:
        """Why a run, which is the next that was read of its file, is not to be believed; None where it is to be judged."""
        doubt = self._steps.place(file, slice_)
        if self._steps.turned:  # what was read before says nothing of this chain
            self._start = self.block = None
            self.time, self.count = "", 0
            self._counts.clear()
            self._passages.clear()
        return doubt

    def place(self, file: str, slice_: BlockSlice) -> Placement:
        """The places of a run, which is the next that was read of its file."""
        block = key_of(slice_)
        known = self._passages.get(file)
        if block == "":  # a line without a time of its own stands with those before it
            block = known.last if known is not None else self._highest or ""
        if block == "":  # plain book diffs carry neither block nor time
            first, self.count = self.count, self.count + slice_.count
            return Placement(first, 0)
        before = self._passages.get(file, _NEW)
        repeating = self._repeating(file, block)
        self._note_restart(file, block, repeating=repeating)
        seen = self._seen(block, before.floor, repeating=repeating)
        first = slice_.skipped if slice_.fresh else self._first(file, block, 0 if repeating or before.between else seen)
        end = first + slice_.count
        self._passages[file] = attrs.evolve(before, last=block, at=end, repeating=repeating)
        self._passages.move_to_end(file)
        self._remember(slice_, block, max(seen, end))
        return Placement(first, max(0, min(seen, end) - first))

    def _repeating(self, file: str, block: Block) -> bool:
        highest = self._highest
        if highest is None or not _below(block, highest):
            # At the highest block a repeat goes on, also in the next hour's file: its places count from 0 until that
            # has been passed.
            before = self._passages.get(file) or next(reversed(self._passages.values()), None)
            return before is not None and before.repeating and block == highest
        before = self._passages.get(file)
        if before is None:  # a file that is read from its start, and starts below what was read
            return True
        return before.repeating or _below(block, before.last)

    def _note_restart(self, file: str, block: Block, *, repeating: bool) -> None:
        """A repeat may go on in a later file: that is no other restart. One that falls again is."""
        before = self._passages.get(file)
        fell = before is not None and _below(block, before.last)
        self.restarts += repeating and (fell or not self._back)
        self._back = repeating

    def _first(self, file: str, block: Block, otherwise: int) -> int:
        before = self._passages.get(file)
        return before.at if before is not None and before.last == block else otherwise

    def _seen(self, block: Block, floor: Block | None, *, repeating: bool) -> int:
        known = self._counts.get(block)
        if known is not None:
            return known
        floor = self._start if floor is None else floor
        return _ALL if repeating and floor is not None and _below(block, floor) else 0

    def _remember(self, slice_: BlockSlice, block: Block, count: int) -> None:
        if count < _ALL:
            self._counts[block] = count
        if len(self._counts) > BLOCKS:
            self._counts.popitem(last=False)
        if len(self._passages) > _FILES:
            self._passages.popitem(last=False)
        highest = self._highest
        if highest is None or not _below(block, highest):
            self.count = count
            if key_of(slice_) != "":
                self.block, self.time = slice_.block, slice_.time


def _below(block: Block, other: Block) -> bool:
    # Times compare as text: ISO 8601 in one form, or milliseconds of one length. Of two forms neither is below; another type is
    # another log's.
    if isinstance(block, str) and isinstance(other, str):
        return block < other and block.isdigit() == other.isdigit()
    return not isinstance(block, str) and not isinstance(other, str) and block < other
