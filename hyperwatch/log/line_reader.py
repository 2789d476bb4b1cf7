"""Going through a log's files, oldest to newest, taking whole lines. Blocking I/O: call it in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import attrs
from loguru import logger

from hyperwatch.errors import CursorError, DataError
from hyperwatch.log.batches import RawBatch
from hyperwatch.log.packed_file import FileState, Source
from hyperwatch.log.positions import OPEN_FILES, Cursor, FilePosition
from hyperwatch.log.tree import Log, OversizedLineError, bytes_before, head_of, is_there, read_lines
from hyperwatch.node.slices import UnreadableLine

__all__ = ["LineReader"]

LOOK_S = 0.25  # how long "there is no newer file" is believed; a directory listing costs 50 us
GONE_S = 30.0  # how long a removed file is kept open: its space on the disk is free within a minute


@attrs.define
class _Open:
    """A file that has been reached. Without a source it was let go: only its place is still known."""

    name: str
    source: Source | None
    offset: int
    taken: int = 0
    head: str = ""
    before: bytes = b""
    """What stands right before the offset, as far as a place knows it."""
    anew: bool = False
    """Whether it was truncated or replaced, and nothing of it has been read since."""
    gone_s: float | None = None
    """Since when its name has been gone, by the monotonic clock."""
    reached_s: float = 0.0
    """Since when it has been open, by the same clock."""
    grew_s: float = 0.0
    """When something was last read of it, by the same clock: its own times and the wall clock may say anything."""

    def place(self) -> FilePosition:
        return FilePosition(self.name, self.offset, self.taken, self.head, self.before)

    def close(self) -> None:
        if self.source is not None:
            self.source.close()
            self.source = None


class LineReader:
    """A place in the log that moves forward.

    At most three files are open: the newest reached, the one before it while it may still grow, and one that appears
    late between the two: an older file is kept for that too, for as long, where an hour is missing. A file that was
    truncated or replaced is read from its start again: what of it was read before is known by its blocks. A file that
    was removed is read to its end and let go GONE_S later.

    Args:
        log: the files.
        places: where to start, oldest first. Empty: at the oldest file there is.
        now_ms: the wall clock, UTC.
        monotonic_s: the clock that waits are measured by.
        say: is told of files that are passed over, in words.

    Raises:
        CursorError: where one of the places is not there any more.
        OSError: where its file cannot be opened for another reason.
    """

    def __init__(
        self,
        log: Log,
        places: Iterable[FilePosition] = (),
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
        say: Callable[[str], object] = logger.error,
    ) -> None:
        self._log = log
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._say = say
        self._looked_s = -LOOK_S
        self._open: list[_Open] = []
        self._listed: list[str] = []
        self._odd: set[str] = set()  # FIFOs and the like, named once in the log
        self._failing: dict[str, OSError] = {}  # files that cannot be read just now, named once in the log
        self._missed: list[str] = []  # seen, and removed before they were reached: the next span tells
        self._passed: set[str] | None = None  # the files of a day before those that are open, as they were last seen
        self._too_late: list[str] = []  # what appeared among these: the next span tells
        try:
            for place in places:
                self._open.append(self._at(place))
        except BaseException:
            self.close()
            raise

    @property
    def places(self) -> tuple[FilePosition, ...]:
        """Where each open file stands, oldest first."""
        newest = len(self._open) - 1
        return tuple(
            file.place()
            for number, file in enumerate(self._open)
            if number in (0, newest) or file.offset or file.taken or file.anew
        )

    def look_again(self) -> None:
        """A file may have appeared: look at the next call."""
        self._looked_s = -LOOK_S

    def take(self, max_bytes: int, until: Cursor | None = None) -> RawBatch | None:
        """The next whole lines, about `max_bytes` of them and never beyond `until`; None where there are none now.

        Raises:
            OSError: from the files.
            DataError: where a directory cannot be read or a recording is damaged.
        """
        while True:
            for file in list(self._open):
                if span := self._read(file, max_bytes, until):
                    return span
            # Lines that the node wrote before the newer file existed are not late: look for it, then read once more.
            newer = self._newer(until)
            if newer is None:
                if (error := self._reason_to_wait(until)) is not None:
                    raise error
                return None
            if self._open and (span := self._read(self._open[-1], max_bytes, until)):
                return span
            if self._look_after(self._monotonic_s()):
                continue
            try:
                self._open_next(newer)
            except FileNotFoundError:
                self._log.check_there()
                self._missed.append(newer)  # removed since it was listed
                self._listed.remove(newer)
            except DataError as error:
                self._odd.add(newer)
                self._say(f"{error}; it is passed over")

    def take_cached(self, max_bytes: int, until: Cursor | None = None) -> RawBatch | None:
        """The same of the files that are open, as far as the system has them in memory; None where it has no more of them.

        It waits for no disk, so it needs no thread. Raises BlockingIOError where only `take` can tell what comes next.
        """
        for file in self._open:
            limit = self._limit(file.name, until)
            count = max_bytes if limit is None else min(max_bytes, limit - file.offset)
            if file.source is None or count <= 0:
                continue
            if data := file.source.lines_cached(file.offset, count):
                with suppress(OSError):
                    if file.head and file.source.is_behind(file.before, file.offset):
                        return self._span(file, data)
                raise BlockingIOError  # its first line is to be read, or all of it anew
        return None

    def close(self) -> None:
        """Lets every file go."""
        while self._open:
            self._open.pop().close()

    def _at(self, place: FilePosition) -> _Open:
        remedy = 'what was there cannot be read any more; subscribe with "from": "earliest" for what is left'
        try:
            source = self._log.open(place.file)
        except (FileNotFoundError, KeyError) as error:
            self._log.check_there()
            what = f"there is no file {place.file} in this log"
            raise CursorError(what, remedy) from error
        if not is_there(source, place):
            source.close()
            what = (
                f"{place.file} is not the file that the cursor was made for, or does not reach {place.offset} any more"
            )
            raise CursorError(what, remedy)
        before, now_s = bytes_before(source, place.offset), self._monotonic_s()
        return _Open(
            place.file,
            source,
            place.offset,
            place.events_read,
            place.fingerprint,
            before,
            reached_s=now_s,
            grew_s=now_s,
        )

    def _open_next(self, name: str) -> None:
        source = self._log.open(name)
        now_s = self._monotonic_s()
        self._open.append(_Open(name, source, 0, reached_s=now_s, grew_s=now_s))
        self._open.sort(key=lambda file: self._log.rank(file.name))
        self._listed.remove(name)
        if self._passed is not None:
            self._passed.add(name)
        self._let_go()

    def _read(self, file: _Open, max_bytes: int, until: Cursor | None) -> RawBatch | None:
        """What comes next in a file; None where nothing does now, or it cannot be read: then it is among those that fail."""
        for again in (False, True):
            try:
                span = self._read_on(file, max_bytes, until)
            except OSError as error:
                # A handle can go stale though the path reads well: NFS after a restart of its server, a remount.
                if again or not self._is_reopened(file):
                    self._fail(file, error)
                    return None
            else:
                self._failing.pop(file.name, None)
                return span
        return None

    def _reason_to_wait(self, until: Cursor | None) -> OSError | None:
        """Why "nothing more" would not be true: a file that fails, where it is the newest or reading has an end to reach.

        At the head an older file does not hold up what the node writes now.
        """
        if until is not None:
            return next(iter(self._failing.values()), None)
        return self._failing.get(self._open[-1].name) if self._open else None

    def _fail(self, file: _Open, error: OSError) -> None:
        if file.name not in self._failing:
            self._say(
                f"{file.name} cannot be read ({error}): it is opened again until it can, and newer files are read meanwhile"
            )
        self._failing[file.name] = error

    def _is_reopened(self, file: _Open) -> bool:
        """Opens a file again by its name, and reads on where it stands or, where it is another one, from its start."""
        try:
            source = self._log.open(file.name)
        except (OSError, DataError):  # a FIFO that has its name now is no file to read on in
            return False
        try:
            same = is_there(source, file.place())
        except OSError:  # it opens, and cannot be read
            source.close()
            return False
        if file.source is not None:
            with suppress(OSError):
                file.source.close()
        file.source = source
        if not same:
            file.offset, file.taken, file.head, file.before, file.anew = 0, 0, "", b"", True
        return True

    def _read_on(self, file: _Open, max_bytes: int, until: Cursor | None) -> RawBatch | None:
        if file.source is None:
            return None
        limit = self._limit(file.name, until)
        unreadable: tuple[UnreadableLine, ...] = ()
        try:
            data = read_lines(file.source, file.offset, max_bytes, limit)
        except OversizedLineError as error:
            data = b""
            unreadable = (UnreadableLine(error.offset, error.end - error.offset, "longer than a line may be", b""),)
        if not data and not unreadable:
            return None
        if not file.source.is_behind(file.before, file.offset):
            # It was truncated and has at once grown beyond the place: its size does not tell.
            self._say(f"{file.name} was written anew: it is read from its start")
            return self._read_on(file, max_bytes, until) if self._is_reopened(file) else None
        file.head = file.head or head_of(file.source)
        return self._span(file, data, unreadable)

    def _span(self, file: _Open, data: bytes, unreadable: tuple[UnreadableLine, ...] = ()) -> RawBatch:
        """What was read, which is not read again."""
        places = self.places
        span = RawBatch(
            file=file.name,
            head=file.head,
            offset=file.offset,
            data=data,
            places=places,
            number=sum(self._log.rank(place.file) < self._log.rank(file.name) for place in places),
            skip=file.taken,
            anew=file.anew,
            late=file is not self._open[-1],
            read_ms=self._now_ms(),
            unreadable=unreadable,
            missed=tuple(self._missed),
            too_late=tuple(self._too_late),
            before=file.before,
        )
        self._missed.clear()
        self._too_late.clear()
        (file.before,) = (place.before for place in span.after(span.end, 0) if place.file == file.name)
        file.offset, file.taken, file.anew, file.grew_s = span.end, 0, False, self._monotonic_s()
        return span

    def _limit(self, name: str, until: Cursor | None) -> int | None:
        """Up to where a file may be read: None is to its end."""
        if until is None:
            return None
        oldest = None
        for place in until.places:
            if place.file == name:
                return place.offset
            oldest = oldest or place.file
        return None if oldest is not None and self._log.rank(name) < self._log.rank(oldest) else 0

    def _newer(self, until: Cursor | None) -> str | None:
        """The next file, if there is one; else, once in LOOK_S, sees what has become of those that are open."""
        now_s = self._monotonic_s()
        if now_s - self._looked_s < LOOK_S:
            return None
        if self._open or (until is not None and until.places):
            self._log.check_there()
        reached = {file.name for file in self._open}
        names = [name for name in self._log.names(self._open[0].name if self._open else None) if name not in reached]
        self._missed += [name for name in self._listed if name not in names]
        names = [name for name in names if name not in self._odd]
        self._listed = names
        ends = {place.file for place in until.places} if until is not None else set()
        name = next((name for name in names if self._limit(name, until) != 0 or name in ends), None)
        if name is not None:
            return name
        if until is None:
            self._looked_s = now_s
            self._look_back()
            self._look_after(now_s)
            self._let_go()
        return None

    def _look_back(self) -> None:
        """Notices older files that nobody expected any more."""
        if not self._open:
            return
        older = self._log.older(self._open[0].name)
        if self._passed is not None:
            self._too_late += [name for name in older if name not in self._passed and name not in self._odd]
        self._passed = {*older, *(file.name for file in self._open)}

    def _look_after(self, now_s: float) -> bool:
        """Opens anew what was replaced, and lets go what was removed.

        Returns:
            Whether anything was opened anew.
        """
        anew = False
        for file in self._open:
            fate = self._fate(file)
            if fate is FileState.ANOTHER:
                anew = self._is_reopened(file) or anew
            elif fate is FileState.SAME:
                file.gone_s = None
            elif file.gone_s is None:
                file.gone_s = now_s
            elif now_s - file.gone_s > GONE_S:
                file.close()
        return anew

    def _fate(self, file: _Open) -> FileState:
        if file.source is None:
            return FileState.ANOTHER
        try:
            fate = file.source.fate(file.offset)
            if fate is FileState.SAME and not file.source.is_behind(file.before, file.offset):
                return FileState.ANOTHER  # written anew, and just as long as it was
        except OSError:
            return FileState.ANOTHER
        return fate

    def _let_go(self) -> None:
        """Closes older files that will not grow any more."""
        while len(self._open) > 1 and (len(self._open) > OPEN_FILES or self._settled(*self._open[:2])):
            self._failing.pop(self._open[0].name, None)
            self._open.pop(0).close()

    def _settled(self, file: _Open, newer: _Open) -> bool:
        """Whether nothing is expected any more of a file, nor of an hour behind it."""
        waited_s = self._monotonic_s() - newer.reached_s
        if waited_s <= self._log.grace_s and not self._log.follows(file.name, newer.name):
            return False
        return file.source is None or self._monotonic_s() - file.grew_s >= self._log.grace_s
