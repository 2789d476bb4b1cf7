"""Going through a log's files, oldest to newest, taking whole lines. Blocking I/O: call it in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import attrs

from hyperwatch.errors import CursorError
from hyperwatch.log.batch import Span
from hyperwatch.log.compressed import Source
from hyperwatch.log.cursor import Cursor, FilePlace
from hyperwatch.log.files import Log, OversizedLineError, read_lines
from hyperwatch.node.events import Damage

__all__ = ["Walk"]

_LOOK_S = 0.25  # how long "there is no newer file" is believed; a directory listing costs 50 us


@attrs.define
class _Open:
    name: str
    source: Source
    offset: int
    taken: int = 0


class Walk:
    """A place in the log that moves forward.

    At most two files are open: the newest reached, and the one before it while it may still grow.

    Args:
        log: the files.
        places: where to start, oldest first. Empty: at the oldest file there is.
        now_ms: the wall clock, UTC.

    Raises:
        CursorError: where one of the places is not there any more.
        OSError: where its file cannot be opened for another reason.
    """

    def __init__(
        self,
        log: Log,
        places: Iterable[FilePlace] = (),
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._log = log
        self._now_ms = now_ms
        self._looked = -_LOOK_S
        self._open: list[_Open] = []
        try:
            for place in places:
                self._open.append(self._at(place))
        except BaseException:
            self.close()
            raise

    @property
    def places(self) -> tuple[FilePlace, ...]:
        """Where each open file stands, oldest first."""
        return tuple(FilePlace(file.name, file.offset, file.taken) for file in self._open)

    def look_again(self) -> None:
        """A file may have appeared: look at the next call."""
        self._looked = -_LOOK_S

    def take(self, max_bytes: int, until: Cursor | None = None) -> Span | None:
        """The next whole lines, about `max_bytes` of them and never beyond `until`; None where there are none now.

        Raises:
            OSError: from the files.
            DataError: where a directory cannot be read or a recording is damaged.
        """
        while True:
            for file in self._open:
                if span := self._read(file, max_bytes, until):
                    return span
            # Lines that the node wrote before the newer file existed are not late: look for it, then read once more.
            newer = self._newer(until)
            if newer is None:
                return None
            if self._open and (span := self._read(self._open[-1], max_bytes, until)):
                return span
            self._open.append(_Open(newer, self._log.open(newer), 0))
            self._let_go()

    def close(self) -> None:
        """Lets every file go."""
        while self._open:
            self._open.pop().source.close()

    def _at(self, place: FilePlace) -> _Open:
        remedy = 'what was there cannot be read any more; subscribe with "from": "earliest" for what is left'
        try:
            source = self._log.open(place.file)
        except (FileNotFoundError, KeyError) as error:
            what = f"there is no file {place.file} in this log"
            raise CursorError(what, remedy) from error
        if place.offset and source.read(place.offset - 1, 1) != b"\n":
            source.close()
            what = f"no line of {place.file} starts at {place.offset}: it is not the file that the cursor was made for"
            raise CursorError(what, remedy)
        return _Open(place.file, source, place.offset, place.taken)

    def _read(self, file: _Open, max_bytes: int, until: Cursor | None) -> Span | None:
        span = Span(
            file=file.name,
            offset=file.offset,
            data=b"",
            places=self.places,
            skip=file.taken,
            late=file is not self._open[-1],
            read_ms=self._now_ms(),
        )
        try:
            data = read_lines(file.source, file.offset, max_bytes, self._limit(file.name, until))
            if not data:
                return None
            span = attrs.evolve(span, data=data)
        except OversizedLineError as error:
            damage = Damage(error.offset, error.end - error.offset, "longer than a line may be", b"")
            span = attrs.evolve(span, damage=(damage,))
        file.offset, file.taken = span.end, 0
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
        if time.monotonic() - self._looked < _LOOK_S:
            return None
        names = self._log.names(self._open[-1].name if self._open else None)
        name = next(iter(names), None)
        if name is not None and self._limit(name, until) != 0:
            return name
        if until is None:
            self._looked = time.monotonic()
            self._let_go()
        return None

    def _let_go(self) -> None:
        """Closes older files that will not grow any more; two stay at most."""
        while len(self._open) > 1 and (len(self._open) > 2 or self._open[0].source.idle_s() > self._log.grace_s):  # noqa: PLR2004  two is the number that a cursor can name
            self._open.pop(0).source.close()
