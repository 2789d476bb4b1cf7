"""Where reading begins: at the newest complete line, or where a cursor says. Blocking I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from hyperwatch.errors import CursorError
from hyperwatch.log.compressed import Source
from hyperwatch.log.cursor import Cursor, FilePlace
from hyperwatch.log.files import Log, PlainFile, Tree, bytes_before, head_of, is_there, read_lines
from hyperwatch.log.gaps import PLACE_GONE, Gap
from hyperwatch.log.repeats import Passage
from hyperwatch.log.steps import is_far_above, key_of, trusted
from hyperwatch.log.tail import Tail, higher, less, tail_of
from hyperwatch.node.events import Decoder
from hyperwatch.node.runs import Run
from hyperwatch.node.streams import DIFFS, FILLS, Layout
from hyperwatch.node.times import ms_of, text_of

__all__ = ["Start", "at_head", "begin", "find", "seek"]

_WINDOW_BYTES = 256 * 1024
_LINE_BYTES = 4096  # a first guess
_VOTES = 3  # lines that are asked: of two that contradict each other nobody knows which is right
_UNDATED = DIFFS.directory(Layout.PLAIN)  # its lines carry neither block nor time


@attrs.frozen
class Start:
    """A place to read from, and what is known of what lies before it."""

    cursor: Cursor
    passages: dict[str, Passage] = attrs.Factory(dict)
    gap: Gap | None = None
    """What the cursor that was asked for would have had, and is gone."""


def at_head(tree: Tree) -> Cursor:
    """The cursor after the newest complete line.

    Raises:
        OSError: from the files.
        DataError: where a directory cannot be read.
    """
    places = []
    highest: Tail | None = None
    names = tree.names()[-2:]
    for name in names:
        source = PlainFile(tree.hourly / name)
        try:
            end = _last_line_end(source)
            highest = higher(highest, tail_of(tree, name, source, end))
            # The older one too: whether it still grows is seen in time, and its own times may say anything.
            places.append(FilePlace(name, end, 0, head_of(source) if end else "", bytes_before(source, end)))
        finally:
            source.close()
    cursor = Cursor(tree.stream.directory(tree.layout), tuple(places))
    if highest is None:
        return cursor
    return attrs.evolve(cursor, block=highest.run.block, time=highest.run.time, count=highest.count)


def begin(log: Log, wish: Cursor) -> Start:
    """Where to read for a cursor: at its place in its files where they are what they were, else at its block.

    Args:
        log: what to read; the cursor may be another layout's or another node's of the same stream.
        wish: the cursor.

    Raises:
        CursorError: where it is another stream's.
        OSError: from the files.
        DataError: where a directory cannot be read; FilesAwayError where all files are away.
    """
    own = log.stream.directory(log.layout)
    if len({place.file for place in wish.places}) < len(wish.places):
        what = "the cursor names a file twice"
        raise CursorError(what, "use it as it was sent")
    if wish.directory not in {log.stream.directory(layout) for layout in Layout}:
        what = f"the cursor is one of {wish.directory}, this log is {own}"
        raise CursorError(what, "use it where it was made")
    if wish.directory == own:
        found = _at_places(log, _without_pruned(log, wish))
        if found is not None:
            return found
    if _UNDATED in (own, wish.directory) and wish.places:
        return _at_hour(log, wish)
    by_block = wish.directory == log.stream.directory(Layout.BY_BLOCK)
    whole = by_block and not any(place.taken for place in wish.places)  # each of its lines is a block
    return _at_block(log, attrs.evolve(_in_own_words(log, wish), directory=own), whole=whole)


def _in_own_words(log: Log, wish: Cursor) -> Cursor:
    """A cursor of another layout with its time as this log has it: plain fills carry milliseconds, all else text."""
    own, plain = log.stream.directory(log.layout), FILLS.directory(Layout.PLAIN)
    if not wish.time or plain not in (own, wish.directory):
        return wish
    time_ms = ms_of(wish.time) or 0
    return attrs.evolve(wish, time=str(time_ms) if own == plain else text_of(time_ms))


def _at_hour(log: Log, wish: Cursor) -> Start:
    """The first line of the hour that the cursor names, or what is left behind it: undated lines cannot be searched."""
    names = log.names()
    try:
        hour = log.rank(wish.places[-1].file)
    except KeyError:
        hour = 0
    left = [name for name in names if log.rank(name) >= hour] or names[-1:]
    start = Cursor(log.stream.directory(log.layout), tuple(FilePlace(name, 0) for name in left[:1]))
    return Start(start, gap=Gap(log.stream.name, PLACE_GONE, wish, start))


def seek(log: Log, source: Source, size_bytes: int, below: Callable[[Run], bool]) -> int:
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


def _without_pruned(log: Log, wish: Cursor) -> Cursor:
    """The cursor without the older files that are gone: nothing can be read of them, but of the newer ones it can."""
    if len(wish.places) <= 1:
        return wish
    names = set(log.names())
    return attrs.evolve(
        wish, places=tuple(place for place in wish.places if place.file in names or place is wish.places[-1])
    )


def _at_places(log: Log, wish: Cursor) -> Start | None:
    """The cursor, and what lies before its places; None where one of them is not there any more."""
    tails: list[Tail | None] = []
    for place in wish.places:
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
            tails.append(tail_of(log, place.file, source, place.offset))
        finally:
            source.close()
    wish = _as_the_files_say(wish, tails)
    passages: dict[str, Passage] = {}
    for number, (place, tail) in enumerate(zip(wish.places, tails, strict=True)):
        if not place.offset and wish.key is not None and wish.key not in {known.last for known in passages.values()}:
            # No hour that begins within a block, for then the old one would end with it: a file that was begun anew.
            passages[place.file] = Passage(wish.key, 0, repeating=True)
        elif tail is not None:
            passages[place.file] = _passage(tail, wish, number)
    return Start(wish, passages)


def _as_the_files_say(wish: Cursor, tails: Iterable[Tail | None]) -> Cursor:
    """The cursor with the block that its files have come to, where its own lies too far above: a damaged number has been in it."""
    highest: Tail | None = None
    for tail in tails:
        highest = higher(highest, tail)
    if highest is None or not _is_far_above(wish, highest):
        return wish
    return attrs.evolve(wish, block=highest.run.block, time=highest.run.time, count=highest.count)


def _passage(tail: Tail, wish: Cursor, number: int) -> Passage:
    last, newest = key_of(tail.run), number == len(wish.places) - 1
    between = number > 0 and not newest
    if last == wish.key:
        return Passage(last, wish.count, between=between)  # the block may have begun in another file
    if newest:
        return Passage(last, tail.count, repeating=less(last, wish.key))
    # Newer files have been read further, which says nothing of this one: what is known of it is what it holds.
    return Passage(
        last, tail.count, repeating=last != tail.top, between=between, floor=tail.top, floor_count=tail.top_count
    )


def _at_block(log: Log, wish: Cursor, *, whole: bool) -> Start:
    """The first line of the cursor's block, or what is left behind it.

    Args:
        log: what to read.
        wish: the cursor.
        whole: whether its block is known to have no more events than it counts.
    """
    if wish.key is None:
        return Start(Cursor(wish.directory))
    names = log.names()
    if not names:
        log.check_there()
        return Start(attrs.evolve(wish, places=()))
    place, run, first = find(log, names, _below(log, wish))
    if run is None and wish.time and (newest := _last_tail(log, names)) and _is_far_above(wish, newest):
        # Its number is damaged, and its time is not.
        wish, (place, run, first) = _by_time(log, names, wish, newest)
    start = attrs.evolve(_known_here(log, wish, run), places=(place,))
    gap = None
    named = run is not None and run.fresh and start.block is not None  # as missing blocks, when they are passed
    if (
        first
        and not named
        and (run is None or not (_same(run, wish) or (whole and run.block == (wish.block or 0) + 1)))
    ):
        to = attrs.evolve(start, block=run.block, time=run.time, count=0) if run else start
        gap = Gap(log.stream.name, PLACE_GONE, wish, to)
    key = start.key
    return Start(start, {place.file: Passage(key, 0, repeating=True)} if key is not None else {}, gap)


def _by_time(
    log: Log, names: list[str], wish: Cursor, newest: Tail
) -> tuple[Cursor, tuple[FilePlace, Run | None, bool]]:
    """(the cursor with the block that has its time, what `find` says of that time)."""
    time_ms = ms_of(wish.time) or 0
    place, run, first = find(log, names, lambda run: run.time_ms is not None and run.time_ms < time_ms)
    there = run or newest.run
    return attrs.evolve(wish, block=there.block, time=there.time, count=0), (place, run, first)


def _is_far_above(wish: Cursor, tail: Tail) -> bool:
    return is_far_above(wish.key, ms_of(wish.time), tail.top, tail.run.time_ms)


def _last_tail(log: Log, names: list[str]) -> Tail | None:
    """What the newest file's last lines say."""
    source = log.open(names[-1])
    try:
        return tail_of(log, names[-1], source, source.size_bytes())
    finally:
        source.close()


def find(log: Log, names: list[str], below: Callable[[Run], bool]) -> tuple[FilePlace, Run | None, bool]:
    """(the first line of these files that is not below, what it says, whether nothing lies before it)."""
    before = [name for name in names if (first := _first_run(log, name)) is not None and below(first)]
    name = before[-1] if before else names[0]
    source = log.open(name)
    try:
        offset = seek(log, source, source.size_bytes(), below) if before else 0
        run = _believed(name, _runs_at(log, source, offset))
        while before and run is not None and below(run):  # once or twice
            offset = run.end
            run = _believed(name, _runs_at(log, source, offset))
        place = FilePlace(name, offset, 0, head_of(source), bytes_before(source, offset))
    finally:
        source.close()
    following = names[names.index(name) + 1 :]
    if run is None and following:
        return FilePlace(following[0], 0), _first_run(log, following[0]), False
    return place, run, not before


def _known_here(log: Log, wish: Cursor, run: Run | None) -> Cursor:
    """The cursor's block in this log's own words: numbers and times do not name each other without a line of both."""
    if log.layout is Layout.PLAIN:
        return attrs.evolve(wish, block=None)
    if wish.block is not None:
        return wish
    if run is not None and run.time.startswith(wish.time):
        return attrs.evolve(wish, block=run.block, time=run.time)
    return attrs.evolve(wish, time="", count=0)


def _below(log: Log, wish: Cursor) -> Callable[[Run], bool]:
    number = wish.block
    if number is not None and log.layout is not Layout.PLAIN:
        return lambda run: run.block is not None and run.block < number
    return lambda run: run.time < wish.time


def _same(run: Run, wish: Cursor) -> bool:
    if run.block is not None and wish.block is not None:
        return run.block == wish.block
    return run.time.startswith(wish.time)


def _last_line_end(source: PlainFile) -> int:
    end = source.size_bytes()
    while end:
        start = max(0, end - _WINDOW_BYTES)
        found = source.read(start, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _first_run(log: Log, name: str) -> Run | None:
    try:
        source = log.open(name)
    except FileNotFoundError:
        return None
    try:
        return _believed(name, _runs_at(log, source, 0))
    finally:
        source.close()


def _is_below(log: Log, source: Source, offset: int, below: Callable[[Run], bool]) -> bool:
    """Whether most of the lines there are; False where none can be read."""
    votes = [below(run) for run in _runs_at(log, source, offset)]
    return 2 * sum(votes) > len(votes)


def _believed(name: str, runs: list[Run]) -> Run | None:
    """The first of some lines' runs that the others do not contradict."""
    blocks = trusted(name, [(key_of(run), [run]) for run in runs])
    return blocks[0][1][0] if blocks else None


def _runs_at(log: Log, source: Source, offset: int) -> list[Run]:
    """The first lines from there that can be read, at most _VOTES of them."""
    runs: list[Run] = []
    while len(runs) < _VOTES and (lines := read_lines(source, offset, _LINE_BYTES)):
        line = lines[: lines.index(b"\n") + 1]
        decoder = Decoder(log.stream, log.layout, offset)
        decoder.feed(line)
        # A line without what its neighbours are ordered by says nothing; of undated files none does.
        undated = log.stream.directory(log.layout) == _UNDATED
        runs += [run for run in decoder.runs[-1:] if undated or key_of(run) != ""]
        offset += len(line)
    return runs


def _line_after(source: Source, offset: int) -> int:
    """The first line's start at or behind a place."""
    place = offset - 1
    while data := source.read(place, _WINDOW_BYTES):
        found = data.find(b"\n")
        if found >= 0:
            return place + found + 1
        place += len(data)
    return place
