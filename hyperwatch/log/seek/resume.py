"""Where reading begins: at the newest complete line, or where a cursor says. Blocking I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from hyperwatch.errors import CursorError
from hyperwatch.log.block_steps import is_far_above, key_of, trusted
from hyperwatch.log.dedupe import FileProgress
from hyperwatch.log.gaps import PLACE_GONE, Gap
from hyperwatch.log.packed_file import Source
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.log.seek.last_block import LastBlock, higher, last_block_of, less
from hyperwatch.log.tree import Log, PlainFile, Tree, bytes_before, head_of, is_there, read_lines
from hyperwatch.node.decoder import Decoder
from hyperwatch.node.slices import BlockSlice
from hyperwatch.node.streams import DIFFS, FILLS, Layout
from hyperwatch.node.times import ms_of, text_of

__all__ = ["ResumePoint", "at_head", "find", "resume", "seek"]

_WINDOW_BYTES = 256 * 1024
_LINE_BYTES = 4096  # a first guess
_VOTES = 3  # lines that are asked: of two that contradict each other nobody knows which is right
_UNDATED = DIFFS.directory(Layout.PLAIN)  # its lines carry neither block nor time


@attrs.frozen
class ResumePoint:
    """A place to read from, and what is known of what lies before it."""

    cursor: Cursor
    passages: dict[str, FileProgress] = attrs.Factory(dict)
    gap: Gap | None = None
    """What the cursor that was asked for would have had, and is gone."""


def at_head(tree: Tree) -> Cursor:
    """The cursor after the newest complete line.

    Raises:
        OSError: from the files.
        DataError: where a directory cannot be read.
    """
    places = []
    highest: LastBlock | None = None
    names = tree.names()[-2:]
    for name in names:
        source = PlainFile(tree.hourly / name)
        try:
            end = _last_line_end(source)
            highest = higher(highest, last_block_of(tree, name, source, end))
            # The older one too: whether it still grows is seen in time, and its own times may say anything.
            places.append(FilePosition(name, end, 0, head_of(source) if end else "", bytes_before(source, end)))
        finally:
            source.close()
    cursor = Cursor(tree.stream.directory(tree.layout), tuple(places))
    if highest is None:
        return cursor
    return attrs.evolve(cursor, block=highest.slice.block, time=highest.slice.time, count=highest.count)


def resume(log: Log, start_point: Cursor) -> ResumePoint:
    """Where to read for a cursor: at its place in its files where they are what they were, else at its block.

    Args:
        log: what to read; the cursor may be another layout's or another node's of the same stream.
        start_point: the cursor.

    Raises:
        CursorError: where it is another stream's.
        OSError: from the files.
        DataError: where a directory cannot be read; FilesAwayError where all files are away.
    """
    own = log.stream.directory(log.layout)
    if len({place.file for place in start_point.places}) < len(start_point.places):
        what = "the cursor names a file twice"
        raise CursorError(what, "use it as it was sent")
    if start_point.directory not in {log.stream.directory(layout) for layout in Layout}:
        what = f"the cursor is one of {start_point.directory}, this log is {own}"
        raise CursorError(what, "use it where it was made")
    if start_point.directory == own:
        found = _at_places(log, _without_pruned(log, start_point))
        if found is not None:
            return found
    if _UNDATED in (own, start_point.directory) and start_point.places:
        return _at_hour(log, start_point)
    by_block = start_point.directory == log.stream.directory(Layout.BY_BLOCK)
    whole = by_block and not any(place.events_read for place in start_point.places)  # each of its lines is a block
    return _at_block(log, attrs.evolve(_in_own_words(log, start_point), directory=own), whole=whole)


def _in_own_words(log: Log, start_point: Cursor) -> Cursor:
    """A cursor of another layout with its time as this log has it: plain fills carry milliseconds, all else text."""
    own, plain = log.stream.directory(log.layout), FILLS.directory(Layout.PLAIN)
    if not start_point.time or plain not in (own, start_point.directory):
        return start_point
    time_ms = ms_of(start_point.time) or 0
    return attrs.evolve(start_point, time=str(time_ms) if own == plain else text_of(time_ms))


def _at_hour(log: Log, start_point: Cursor) -> ResumePoint:
    """The first line of the hour that the cursor names, or what is left behind it: undated lines cannot be searched."""
    names = log.names()
    try:
        hour = log.rank(start_point.places[-1].file)
    except KeyError:
        hour = 0
    left = [name for name in names if log.rank(name) >= hour] or names[-1:]
    start = Cursor(log.stream.directory(log.layout), tuple(FilePosition(name, 0) for name in left[:1]))
    return ResumePoint(start, gap=Gap(log.stream.name, PLACE_GONE, start_point, start))


def seek(log: Log, source: Source, size_bytes: int, below: Callable[[BlockSlice], bool]) -> int:
    """The offset of a line that is not `below`, right behind one that is; 0 where none is, the end where all are.

    Bisects on what the lines say. Blocks rise in a file but for node restarts, which write blocks again: everything
    that is not below is then found behind every place where this can end. Three lines are asked at each step, for one of
    them may be damaged: so it may end two lines too early.
    """
    low, high = 0, size_bytes
    while low < high:
        middle = (low + high) // 2
        start = _line_after(source, middle) if middle else 0
        if start >= high or not _is_below(log, source, start, below):
            high = middle
        else:
            low = max(start, middle) + 1
    return _line_after(source, low) if low else 0


def _without_pruned(log: Log, start_point: Cursor) -> Cursor:
    """The cursor without the older files that are gone: nothing can be read of them, but of the newer ones it can."""
    if len(start_point.places) <= 1:
        return start_point
    names = set(log.names())
    return attrs.evolve(
        start_point,
        places=tuple(place for place in start_point.places if place.file in names or place is start_point.places[-1]),
    )


def _at_places(log: Log, start_point: Cursor) -> ResumePoint | None:
    """The cursor, and what lies before its places; None where one of them is not there any more."""
    tails: list[LastBlock | None] = []
    for place in start_point.places:
        try:
            source = log.open(place.file)
        except (FileNotFoundError, NotADirectoryError):
            log.check_there()
            return None
        except KeyError:
            return None
        try:
            if not is_there(source, place):
                return None
            tails.append(last_block_of(log, place.file, source, place.offset))
        finally:
            source.close()
    start_point = _as_the_files_say(start_point, tails)
    passages: dict[str, FileProgress] = {}
    for number, (place, tail) in enumerate(zip(start_point.places, tails, strict=True)):
        if (
            not place.offset
            and start_point.key is not None
            and start_point.key not in {known.last for known in passages.values()}
        ):
            # No hour that begins within a block, for then the old one would end with it: a file that was begun anew.
            passages[place.file] = FileProgress(start_point.key, 0, repeating=True)
        elif tail is not None:
            passages[place.file] = _passage(tail, start_point, number)
    return ResumePoint(start_point, passages)


def _as_the_files_say(start_point: Cursor, tails: Iterable[LastBlock | None]) -> Cursor:
    """The cursor with the block that its files have come to, where its own lies too far above: a damaged number has been in it."""
    highest: LastBlock | None = None
    for tail in tails:
        highest = higher(highest, tail)
    if highest is None or not _is_far_above(start_point, highest):
        return start_point
    return attrs.evolve(start_point, block=highest.slice.block, time=highest.slice.time, count=highest.count)


def _passage(tail: LastBlock, start_point: Cursor, number: int) -> FileProgress:
    last, newest = key_of(tail.slice), number == len(start_point.places) - 1
    between = number > 0 and not newest
    if last == start_point.key:
        return FileProgress(last, start_point.count, between=between)  # the block may have begun in another file
    if newest:
        return FileProgress(last, tail.count, repeating=less(last, start_point.key))
    # Newer files have been read further, which says nothing of this one: what is known of it is what it holds.
    return FileProgress(
        last, tail.count, repeating=last != tail.top, between=between, floor=tail.top, floor_count=tail.top_count
    )


def _at_block(log: Log, start_point: Cursor, *, whole: bool) -> ResumePoint:
    """The first line of the cursor's block, or what is left behind it.

    Args:
        log: what to read.
        start_point: the cursor.
        whole: whether its block is known to have no more events than it counts.
    """
    if start_point.key is None:
        return ResumePoint(Cursor(start_point.directory))
    names = log.names()
    if not names:
        log.check_there()
        return ResumePoint(attrs.evolve(start_point, places=()))
    place, slice_, first = find(log, names, _below(log, start_point))
    if (
        slice_ is None
        and start_point.time
        and (newest := _last_tail(log, names))
        and _is_far_above(start_point, newest)
    ):
        # Its number is damaged, and its time is not.
        start_point, (place, slice_, first) = _by_time(log, names, start_point, newest)
    start = attrs.evolve(_known_here(log, start_point, slice_), places=(place,))
    gap = None
    named = slice_ is not None and slice_.fresh and start.block is not None  # as missing blocks, when they are passed
    if (
        first
        and not named
        and (
            slice_ is None
            or not (_same(slice_, start_point) or (whole and slice_.block == (start_point.block or 0) + 1))
        )
    ):
        to = attrs.evolve(start, block=slice_.block, time=slice_.time, count=0) if slice_ else start
        gap = Gap(log.stream.name, PLACE_GONE, start_point, to)
    key = start.key
    return ResumePoint(start, {place.file: FileProgress(key, 0, repeating=True)} if key is not None else {}, gap)


def _by_time(
    log: Log, names: list[str], start_point: Cursor, newest: LastBlock
) -> tuple[Cursor, tuple[FilePosition, BlockSlice | None, bool]]:
    """(the cursor with the block that has its time, what `find` says of that time)."""
    time_ms = ms_of(start_point.time) or 0
    place, slice_, first = find(log, names, lambda slice_: slice_.time_ms is not None and slice_.time_ms < time_ms)
    there = slice_ or newest.slice
    return attrs.evolve(start_point, block=there.block, time=there.time, count=0), (place, slice_, first)


def _is_far_above(start_point: Cursor, tail: LastBlock) -> bool:
    return is_far_above(start_point.key, ms_of(start_point.time), tail.top, tail.slice.time_ms)


def _last_tail(log: Log, names: list[str]) -> LastBlock | None:
    """What the newest file's last lines say."""
    source = log.open(names[-1])
    try:
        return last_block_of(log, names[-1], source, source.size_bytes())
    finally:
        source.close()


def find(
    log: Log, names: list[str], below: Callable[[BlockSlice], bool]
) -> tuple[FilePosition, BlockSlice | None, bool]:
    """(the first line of these files that is not below, what it says, whether nothing lies before it)."""
    before = [name for name in names if (first := _first_run(log, name)) is not None and below(first)]
    name = before[-1] if before else names[0]
    source = log.open(name)
    try:
        offset = seek(log, source, source.size_bytes(), below) if before else 0
        slice_ = _believed(name, _runs_at(log, source, offset))
        while before and slice_ is not None and below(slice_):  # once or twice
            offset = slice_.end
            slice_ = _believed(name, _runs_at(log, source, offset))
        place = FilePosition(name, offset, 0, head_of(source), bytes_before(source, offset))
    finally:
        source.close()
    following = names[names.index(name) + 1 :]
    if slice_ is None and following:
        return FilePosition(following[0], 0), _first_run(log, following[0]), False
    return place, slice_, not before


def _known_here(log: Log, start_point: Cursor, slice_: BlockSlice | None) -> Cursor:
    """The cursor's block in this log's own words: numbers and times do not name each other without a line of both."""
    if log.layout is Layout.PLAIN:
        return attrs.evolve(start_point, block=None)
    if start_point.block is not None:
        return start_point
    if slice_ is not None and slice_.time.startswith(start_point.time):
        return attrs.evolve(start_point, block=slice_.block, time=slice_.time)
    return attrs.evolve(start_point, time="", count=0)


def _below(log: Log, start_point: Cursor) -> Callable[[BlockSlice], bool]:
    number = start_point.block
    if number is not None and log.layout is not Layout.PLAIN:
        return lambda slice_: slice_.block is not None and slice_.block < number
    return lambda slice_: slice_.time < start_point.time


def _same(slice_: BlockSlice, start_point: Cursor) -> bool:
    if slice_.block is not None and start_point.block is not None:
        return slice_.block == start_point.block
    return slice_.time.startswith(start_point.time)


def _last_line_end(source: PlainFile) -> int:
    end = source.size_bytes()
    while end:
        start = max(0, end - _WINDOW_BYTES)
        found = source.read(start, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _first_run(log: Log, name: str) -> BlockSlice | None:
    try:
        source = log.open(name)
    except FileNotFoundError:
        return None
    try:
        return _believed(name, _runs_at(log, source, 0))
    finally:
        source.close()


def _is_below(log: Log, source: Source, offset: int, below: Callable[[BlockSlice], bool]) -> bool:
    """Whether most of the lines there are; False where none can be read."""
    votes = [below(slice_) for slice_ in _runs_at(log, source, offset)]
    return 2 * sum(votes) > len(votes)


def _believed(name: str, slices: list[BlockSlice]) -> BlockSlice | None:
    """The first of some lines' runs that the others do not contradict."""
    blocks = trusted(name, [(key_of(slice_), [slice_]) for slice_ in slices])
    return blocks[0][1][0] if blocks else None


def _runs_at(log: Log, source: Source, offset: int) -> list[BlockSlice]:
    """The first lines from there that can be read, at most _VOTES of them."""
    slices: list[BlockSlice] = []
    while len(slices) < _VOTES and (lines := read_lines(source, offset, _LINE_BYTES)):
        line = lines[: lines.index(b"\n") + 1]
        decoder = Decoder(log.stream, log.layout, offset)
        decoder.feed(line)
        # A line without what its neighbours are ordered by says nothing; of undated files none does.
        undated = log.stream.directory(log.layout) == _UNDATED
        slices += [slice_ for slice_ in decoder.slices[-1:] if undated or key_of(slice_) != ""]
        offset += len(line)
    return slices


def _line_after(source: Source, offset: int) -> int:
    """The first line's start at or behind a place."""
    place = offset - 1
    while data := source.read(place, _WINDOW_BYTES):
        found = data.find(b"\n")
        if found >= 0:
            return place + found + 1
        place += len(data)
    return place
