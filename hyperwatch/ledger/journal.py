"""A file of records, bounded: JSON lines in two segments, of which the older goes when the newer is full. Blocking I/O.

Records are numbered from 1 on, also over restarts and over those that had to go, so that it is seen how many went. Disks
fill up and processes are killed: what cannot be read is passed over, counted and kept, and stops nobody.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import attrs
import msgspec

from hyperwatch.ledger.set_aside import move_aside

__all__ = ["NO_JSON", "Journal"]

R = TypeVar("R", bound=msgspec.Struct)

NO_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bytes that are not what it wants."""

_VERSION = 1
_EMPTY_BYTES = 200  # no header is longer
_UNREADABLE_SHARE = 8  # one part in so many of what a journal may take is for what could not be read of it


class _Header(msgspec.Struct):
    version: int
    kind: str
    first: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    """The number of the segment's first record."""


_HEADER = msgspec.json.Decoder(_Header)


@attrs.frozen
class _Segment:
    """What is in one of the files."""

    header: _Header | None = None
    """None: it has none that can be read."""
    lines: Sequence[bytes] = ()
    """A record each, but for those that cannot be read. An empty one held what was moved away."""
    tail: bytes = b""
    """Behind the last newline: what a crash cut, or what is being written at the moment."""

    @classmethod
    def of(cls, data: bytes) -> _Segment:
        """From a file's bytes."""
        *lines, tail = data.split(b"\n")
        try:
            return cls(_HEADER.decode(lines[0]), lines[1:], tail)
        except (IndexError, *NO_JSON):
            return cls(None, lines, tail)

    @property
    def empty(self) -> bool:
        """Whether nothing is in it, as where a disk had room for a name only."""
        return self.header is None and not self.tail and not any(self.lines)


@attrs.frozen
class _Unusable:
    """A file that is no segment."""

    why: str


class Journal(Generic[R]):
    """Records of one type.

    Reading takes any files: what is none of ours is passed over, and `troubles` says so. Who writes calls `mend` first.

    Args:
        path: of the newer segment; the older has `.old` behind it.
        record: the type.
        max_bytes: what both segments may take together, but for a record that alone is longer than half of it. What
            could not be read of them is kept beside them, in `.unreadable`, up to an eighth of it.
    """

    def __init__(self, path: Path, record: type[R], max_bytes: int) -> None:
        self._path = path
        self._old = path.with_name(path.name + ".old")
        self._unreadable = path.with_name(path.name + ".unreadable")
        self._decode = msgspec.json.Decoder(record).decode
        self._kind = path.stem
        self._max_bytes = max_bytes
        self._lock = threading.Lock()  # records come from several threads
        self._next: int | None = None  # None: it is to be counted

    def mend(self) -> list[str]:
        """Makes the files such that records can be added. Only for who writes: a reader may come between.

        Returns:
            A sentence for each thing that could not be read, and where it is now.
        """
        self._next = None
        return [text for path in (self._old, self._path, self._unreadable) if (text := self._mended(path))]

    def append(self, records: Iterable[R]) -> None:
        """Adds records; they are on the disk when this returns. Raises OSError: then some may be missing at the end."""
        lines = [msgspec.json.encode(record) + b"\n" for record in records]
        with self._lock:
            number = self.next_number
            self._next = None  # whatever happens now is known by the files alone
            while lines:
                taken = self._add(lines, number)
                number += taken
                del lines[:taken]
                if lines:
                    self._path.replace(self._old)
            self._next = number

    def read(self) -> Iterator[tuple[int, R]]:
        """(number, record), oldest first. What cannot be read is left out: `troubles` says what that is."""
        for path in (self._old, self._path):
            segment = self._segment(path)
            if isinstance(segment, _Segment):
                number = self._first(segment, path)
                for place, record in enumerate(map(self._record, segment.lines)):
                    if record is not None:
                        yield number + place, record

    def troubles(self) -> list[str]:
        """A sentence for each of the files that cannot be read, or not wholly."""
        return [text for path in (self._old, self._path) if (text := self._trouble(path))]

    def dropped(self) -> int:
        """How many records had to go."""
        for path in (self._old, self._path):
            segment = self._segment(path)
            if isinstance(segment, _Segment) and not segment.empty:
                return self._first(segment, path) - 1
        return 0

    @property
    def next_number(self) -> int:
        """Of the record that is added next. Raises OSError where the file is none of ours: nothing is added to it."""
        if self._next is None:
            segment = self._segment(self._path)
            if isinstance(segment, _Unusable):
                raise FileExistsError(errno.EEXIST, segment.why, str(self._path))
            self._next = self._first(segment, self._path) + len(segment.lines) + bool(segment.tail)
        return self._next

    def _first(self, segment: _Segment, path: Path) -> int:
        """The number of a segment's first line; without a header, what the older segment leads to."""
        if segment.header is not None:
            return segment.header.first
        older = self._segment(self._old) if path == self._path else None
        if not isinstance(older, _Segment) or older.empty:
            return 1
        return self._first(older, self._old) + len(older.lines)

    def _add(self, lines: Sequence[bytes], number: int) -> int:
        """Adds as many lines as there is room for, and returns how many those are: none where a new segment must begin.

        What was written of them is taken back where they are not all on the disk.
        """
        with self._path.open("a+b") as file:
            descriptor = file.fileno()
            end = os.fstat(descriptor).st_size
            head = b"" if end else msgspec.json.encode(_Header(_VERSION, self._kind, number)) + b"\n"
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                head = b"\n"  # a torn record stays alone
            size, taken = end + len(head), 0
            for line in lines:
                if size + len(line) > self._max_bytes // 2 and size > _EMPTY_BYTES:
                    break
                size += len(line)
                taken += 1
            try:
                _write(descriptor, head + b"".join(lines[:taken]) if taken else b"")
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, end)
                raise
        return taken

    def _record(self, line: bytes) -> R | None:
        try:
            return self._decode(line)
        except NO_JSON:
            return None

    def _segment(self, path: Path) -> _Segment | _Unusable:
        try:
            data = self._bytes(path)
        except FileNotFoundError:
            return _Segment()  # it went a moment ago: who writes has begun a new segment
        except OSError as error:
            return _Unusable(error.strerror or str(error))
        if isinstance(data, _Unusable):
            return data
        segment = _Segment.of(data)
        if segment.tail and self._record(segment.tail) is not None:  # whole but for its newline
            segment = _Segment(segment.header, [*segment.lines, segment.tail])
        if segment.header is not None and (segment.header.version, segment.header.kind) != (_VERSION, self._kind):
            return _Unusable(f"it is a journal of {segment.header.kind[:40]!r}, version {segment.header.version}")
        if segment.header is None and not segment.empty and not any(map(self._record, segment.lines)):
            return _Unusable("it is no journal of hyperwatch")
        return segment

    def _bytes(self, path: Path) -> bytes | _Unusable:
        """What a file holds; nothing where there is none. Raises OSError."""
        if not os.path.lexists(path):
            return b""
        if not path.is_file():  # a fifo would be waited for
            return _Unusable("it is no file")
        if path.stat().st_size > 2 * self._max_bytes:
            return _Unusable("it is larger than any journal")
        return path.read_bytes()

    def _bad(self, segment: _Segment) -> list[bytes]:
        return [line for line in segment.lines if line and self._record(line) is None]

    def _trouble(self, path: Path) -> str:
        segment = self._segment(path)
        if isinstance(segment, _Unusable):
            return f"{path} cannot be read: {segment.why}"
        bad = len(self._bad(segment))
        return f"{_records(bad)} of {path} cannot be read" if bad else ""

    def _mended(self, path: Path) -> str:
        """Moves away what cannot be read of a file, or all of it; "" where all is well."""
        if path == self._unreadable:
            return "" if path.is_file() or not os.path.lexists(path) else move_aside(path, "it is no file")
        segment = self._segment(path)
        if isinstance(segment, _Unusable):
            return move_aside(path, segment.why)
        bad = self._bad(segment)
        torn = [segment.tail] if segment.tail else []
        if not bad and not torn and (segment.header is not None or segment.empty):
            return ""
        text = f"{_records(len(bad) + len(torn))} of {path} cannot be read"
        try:
            self._keep([*bad, *torn])
            if bad or segment.header is None:
                self._write_anew(path, segment)
            else:
                os.truncate(path, path.stat().st_size - len(segment.tail))
        except OSError as error:  # they are passed over as they are
            return f"{text}, and stay where they are ({error.strerror or error})"
        return f"{text}: they are kept in {self._unreadable}"

    def _keep(self, pieces: Sequence[bytes]) -> None:
        """Adds to what could not be read; begins anew where that is full."""
        most = self._max_bytes // _UNREADABLE_SHARE
        data = b"".join(piece + b"\n" for piece in pieces)[:most]
        full = os.path.lexists(self._unreadable) and self._unreadable.stat().st_size + len(data) > most
        with self._unreadable.open("wb" if full else "ab") as file:
            file.write(data)

    def _write_anew(self, path: Path, segment: _Segment) -> None:
        """Writes a segment with nothing in place of what cannot be read: the numbers of the others stay."""
        header = segment.header or _Header(_VERSION, self._kind, self._first(segment, path))
        kept = (b"" if self._record(line) is None else line for line in segment.lines)
        fresh = path.with_name(path.name + ".tmp")
        with fresh.open("wb") as file:
            file.write(b"\n".join((msgspec.json.encode(header), *kept, b"")))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)


def _records(count: int) -> str:
    return f"{count} record{'s' * (count != 1)}"


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
