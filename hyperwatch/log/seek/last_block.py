"""What a file's last lines say: the block that reading has come to there. Blocking I/O."""

from __future__ import annotations

import itertools

import attrs

from hyperwatch.log.block_steps import key_of, trusted
from hyperwatch.log.packed_file import Source
from hyperwatch.log.positions import Block
from hyperwatch.log.tree import Log
from hyperwatch.node.cuts import LINE_BYTES
from hyperwatch.node.decoder import Decoder
from hyperwatch.node.slices import BlockSlice

__all__ = ["LastBlock", "higher", "last_block_of", "less"]

_WINDOW_BYTES = 256 * 1024  # half a block of the streaming layout; doubled until a block's first line is in it
_TELLING = 3  # blocks: of two that contradict each other nobody knows which is right
_MUCH_BYTES = 16 * 1024 * 1024  # of so much one block that is whole is enough


@attrs.frozen
class LastBlock:
    """The last block before a place in a file."""

    slice: BlockSlice
    count: int
    """How many of its events lie there, as far as they stand together."""
    whole: bool
    """Whether nothing else lies before the place in this file."""
    top: Block
    """The highest block that was seen on the way: another one where a node restart is writing again."""
    top_count: int
    """How many of its events."""


def last_block_of(log: Log, name: str, source: Source, end: int) -> LastBlock | None:
    """The last block of a file's first `end` bytes; None where no line of them can be read.

    A block that cannot stand beside the others, for its number is damaged, is passed over.
    """
    window = min(end, _WINDOW_BYTES)
    while window:
        start, lines = _whole_lines(source, end - window, end)
        decoder = Decoder(log.stream, log.layout, start)
        decoder.feed(lines)
        blocks = [(key, list(slices)) for key, slices in itertools.groupby(decoder.slices, key_of)]
        if blocks and all(key == "" for key, _ in blocks):
            return None  # undated: there are no blocks, and the whole file would be looked through for the last one
        blocks = [(key, slices) for key, slices in blocks if key != ""]
        enough = window == end or window > LINE_BYTES
        if blocks and (len(blocks) >= _TELLING or enough or (window > _MUCH_BYTES and _is_begun(blocks))):
            return _tail(trusted(name, blocks), whole=start == 0 and len(blocks) == 1)
        if enough:
            return None
        window = min(end, window * 2)
    return None


def higher(one: LastBlock | None, two: LastBlock | None) -> LastBlock | None:
    """The later of two files' last blocks, with what of it lies in the earlier file."""
    if one is None or two is None:
        return two or one
    first, second = key_of(one.slice), key_of(two.slice)
    if first == second:
        whole = two.whole and not two.slice.fresh
        return attrs.evolve(two, count=one.count + two.count if whole else two.count, whole=one.whole)
    return one if less(second, first) else two


def less(block: Block, other: Block | None) -> bool:
    """Whether a block comes before another of the same kind."""
    if isinstance(block, str):
        return isinstance(other, str) and block < other
    return isinstance(other, int) and block < other


def _is_begun(blocks: list[tuple[Block, list[BlockSlice]]]) -> bool:
    """Whether the first event of the last block is among what was read."""
    return len(blocks) > 1 or blocks[-1][1][-1].fresh


def _tail(blocks: list[tuple[Block, list[BlockSlice]]], *, whole: bool) -> LastBlock:
    top, top_count = blocks[0][0], 0
    for key, slices in blocks:
        if less(top, key):
            top, top_count = key, 0
        if key == top:
            top_count = max(top_count, _events(slices))
    return LastBlock(blocks[-1][1][-1], _events(blocks[-1][1]), whole, top, top_count)


def _events(slices: list[BlockSlice]) -> int:
    """How many of a block's events lie in runs of it that follow each other."""
    last = slices[-1]
    return last.count + last.skipped if last.fresh else sum(slice_.count for slice_ in slices)


def _whole_lines(source: Source, start: int, end: int) -> tuple[int, bytes]:
    """(offset, the whole lines of a file between two places); `end` is a line's start."""
    data = source.read(start, end - start)
    cut = data.find(b"\n") + 1 if start and source.read(start - 1, 1) != b"\n" else 0
    return start + cut, data[cut:]
