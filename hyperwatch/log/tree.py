"""A log's files: what they are called, in which order they come, and reading whole lines of one. Blocking I/O.

Two kinds of log: a `Tree` that a node may still be writing, and a `Recording` of files that do not change.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import attrs

from hyperwatch.errors import DataError, FilesAwayError, HyperwatchError
from hyperwatch.log.packed_file import FileState, Source, open_source
from hyperwatch.log.permissions import denied
from hyperwatch.log.positions import BEFORE_BYTES, Cursor, FilePosition
from hyperwatch.node.cuts import LINE_BYTES
from hyperwatch.node.streams import Layout, Stream, day_before, hour_follows, hour_name, hour_rank

__all__ = [
    "GRACE_S",
    "Backlog",
    "Log",
    "OversizedLineError",
    "Recording",
    "Tree",
    "backlog",
    "bytes_before",
    "find_trees",
    "head_of",
    "is_there",
    "newest_data_ns",
    "newest_end",
    "read_lines",
]


GRACE_S = 120.0  # real nodes finish the old hour seconds after the new one exists; two minutes is ample

_DATA_DIR = "name the node's data directory with --data-dir (usually ~/hl/data)"


class Log(Protocol):
    """Hour files in an order. Names stand for files in cursors."""

    @property
    def stream(self) -> Stream:
        """What its files hold."""

    @property
    def layout(self) -> Layout:
        """How they hold it."""

    @property
    def grace_s(self) -> float:
        """How long after its last change an older file may still grow."""

    def names(self, after: str | None = None) -> list[str]:
        """The files newer than `after`, oldest first."""

    def older(self, name: str) -> list[str]:
        """The files of the day before that one, where another may still appear."""

    def follows(self, older: str, newer: str) -> bool:
        """Whether no file can still appear between two."""

    def directories(self, names: Iterable[str]) -> list[Path]:
        """Where changes to these files, and newer ones, would show."""

    def rank(self, name: str) -> int:
        """A number that orders names by time. Raises KeyError for what is no name of this log."""

    def open(self, name: str) -> Source:
        """Opens a file for reading. Raises OSError; KeyError for what is no name of this log."""

    def check_there(self) -> None:
        """Raises FilesAwayError where no hour file can be found at all, for who knows that there were some."""


@attrs.frozen
class Tree:
    """The hour files under a node's data directory: `{root}/{stream}{suffix}/hourly/{YYYYMMDD}/{H}`."""

    root: Path
    stream: Stream
    layout: Layout
    grace_s: float = GRACE_S

    @property
    def hourly(self) -> Path:
        """The directory of days."""
        return self.root / self.stream.directory(self.layout) / "hourly"

    def names(self, after: str | None = None) -> list[str]:
        """As in Log. A directory that does not exist has no files yet.

        Raises:
            DataError: where a directory cannot be read.
        """
        floor = -1 if after is None else hour_rank(after)
        first_day = "" if after is None else after.partition("/")[0]
        found = [
            name
            for day in _listing(self.hourly)
            if day >= first_day
            for hour in (_listing(self.hourly / day) if hour_name(day, "0") else ())
            if (name := hour_name(day, hour)) and hour_rank(name) > floor
        ]
        return sorted(found, key=hour_rank)

    def older(self, name: str) -> list[str]:
        return [other for other in self.names(day_before(name)) if hour_rank(other) < hour_rank(name)]

    def follows(self, older: str, newer: str) -> bool:
        return hour_follows(older, newer)

    def directories(self, names: Iterable[str]) -> list[Path]:
        return [self.hourly, *sorted({(self.hourly / name).parent for name in names})]

    def rank(self, name: str) -> int:
        day, _, hour = name.partition("/")
        if hour_name(day, hour) is None:
            raise KeyError(name)
        return hour_rank(name)

    def open(self, name: str) -> Source:
        self.rank(name)  # cursors come from clients: nothing but an hour file's name may become a path
        return PlainFile(self.hourly / name)

    def check_there(self) -> None:
        # Files are pruned one by one, and the node goes on writing: a directory without any day was unmounted or renamed. What is gone
        # is named by a gap and passed over, so nothing may be taken for gone that comes back.
        if not any(hour_name(day, "0") for day in _listing(self.hourly)):
            what = f"{self.hourly} holds no hour files just now, though some of it were read"
            raise FilesAwayError(what, "mount it, or give it back its name: reading goes on from the same place")


@attrs.frozen
class Recording:
    """Files that nobody writes any more, plain or compressed, in the order given. Their names are their paths.

    A path that is no UTF-8 is quoted: cursors are.
    """

    paths: Sequence[Path]
    stream: Stream
    layout: Layout
    grace_s: float = 0.0
    _ranks: dict[str, int] = attrs.field(init=False, eq=False)

    @_ranks.default
    def _ranked(self) -> dict[str, int]:
        return {_name(path): number for number, path in enumerate(self.paths)}

    def names(self, after: str | None = None) -> list[str]:
        every = list(self._ranks)
        return every if after is None else every[self.rank(after) + 1 :]

    def older(self, name: str) -> list[str]:  # noqa: ARG002  nothing of a recording changes
        return []

    def follows(self, older: str, newer: str) -> bool:  # noqa: ARG002  as above
        return True

    def directories(self, names: Iterable[str]) -> list[Path]:  # noqa: ARG002  as above
        return []

    def rank(self, name: str) -> int:
        return self._ranks[name]

    def open(self, name: str) -> Source:
        return open_source(self.paths[self.rank(name)])

    def check_there(self) -> None:
        """Nothing of a recording is waited for."""


def _name(path: Path) -> str:
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return quote(os.fsencode(path))
    return text


_HEAD_BYTES = 4096
_NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)  # Linux has it


class PlainFile:
    """A file that may be growing, read by place."""

    def __init__(self, path: Path) -> None:
        """Opens it. Raises OSError; DataError for what is no regular file (opening a FIFO could wait for ever)."""
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._room = bytearray()  # for `lines_cached`: kept, for fresh memory costs more than reading
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            what = f"{path} is not a regular file"
            raise DataError(
                what, "let the node write its hour files itself; hyperwatch reads by place, which needs files"
            )

    def read(self, offset: int, count: int) -> bytes:
        return os.pread(self._fd, count, offset)

    def lines_cached(self, offset: int, count: int) -> bytes:
        if _NO_WAIT is None:
            raise BlockingIOError
        if len(self._room) < count:
            self._room = bytearray(count)
        try:
            size = os.preadv(self._fd, [memoryview(self._room)[:count]], offset, _NO_WAIT)
        except OSError as error:
            raise BlockingIOError from error  # the disk would have to be asked, or this file system cannot say (tmpfs)
        end = self._room.rfind(b"\n", 0, size) + 1
        if not end and size == count:
            raise BlockingIOError  # a longer line
        return bytes(memoryview(self._room)[:end])

    def size_bytes(self) -> int:
        """How long the file is now."""
        return os.fstat(self._fd).st_size

    def is_behind(self, before: bytes, offset: int) -> bool:
        return os.pread(self._fd, len(before), offset - len(before)) == before

    def fate(self, offset: int) -> FileState:
        try:
            there = os.stat(self._path)  # noqa: PTH116  the system call is what is meant
        except FileNotFoundError:
            return FileState.GONE
        mine = os.fstat(self._fd)
        if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino) or mine.st_size < offset:
            return FileState.ANOTHER
        return FileState.SAME

    def close(self) -> None:
        os.close(self._fd)


class OversizedLineError(HyperwatchError):
    """A line above the bound, by position.

    Attributes:
        offset: where it starts.
        end: where the next line starts.
    """

    def __init__(self, offset: int, end: int) -> None:
        super().__init__(
            f"a line of {end - offset} bytes at offset {offset} is over the bound of {LINE_BYTES} bytes",
            "read it from the file itself",
        )
        self.offset = offset
        self.end = end


def head_of(source: Source) -> str:
    """What a file's first line is known by: a hash of its first 4 KiB at most; "" while it is not complete.

    Every node writes its own local time there, so the same hour of another node, or a file written anew, differs.
    """
    data = source.read(0, _HEAD_BYTES)
    end = data.find(b"\n")
    if end < 0 and len(data) < _HEAD_BYTES:
        return ""
    return hashlib.blake2b(data[: end if end >= 0 else _HEAD_BYTES], digest_size=6).hexdigest()


def is_there(source: Source, place: FilePosition) -> bool:
    """Whether a place is still what it was: in the same file, by its first line and what stands before it, and at a line's start.

    The same first line does not make two files one: two nodes may begin an hour alike, and one of them lack lines later.
    """
    if place.fingerprint and head_of(source) != place.fingerprint:
        return False
    if not place.offset:
        return True
    before = bytes_before(source, place.offset)
    return before.endswith(b"\n") and place.is_behind(before)


def bytes_before(source: Source, offset: int) -> bytes:
    """What stands right before a place: as many bytes as a place knows."""
    start = max(0, offset - BEFORE_BYTES)
    return source.read(start, offset - start)


def read_lines(source: Source, offset: int, max_bytes: int, limit: int | None = None) -> bytes:
    """Whole lines from `offset`: about `max_bytes` of them, or one line where that alone is longer.

    Args:
        source: an open file.
        offset: a line's start.
        max_bytes: how much to read at once.
        limit: a line's start at which to stop, if any.

    Returns:
        b"" where no whole line is there yet.

    Raises:
        OSError: from the file.
        OversizedLineError: where the first line is above LINE_BYTES.
    """
    want = max_bytes
    while True:
        count = want if limit is None else min(want, limit - offset)
        if count <= 0:
            return b""
        data = source.read(offset, count)
        first = data.find(b"\n") + 1
        if first > max_bytes:
            return data[:first]
        if first:
            return data[: data.rfind(b"\n") + 1]
        if len(data) < count or count != want:
            return b""
        if want >= LINE_BYTES:
            return _oversized(source, offset)
        want *= 2


def _oversized(source: Source, offset: int) -> bytes:
    """Raises OversizedLineError where the line's end is there; b"" where it is still being written."""
    place, step = offset, 8 * 1024 * 1024
    while data := source.read(place, step):
        end = data.find(b"\n") + 1
        if end:
            raise OversizedLineError(offset, place + end)
        place += len(data)
    return b""


@attrs.frozen
class Backlog:
    """What lies behind a cursor."""

    size_bytes: int
    """Of lines, and of one that may not be complete yet."""
    written_ns: int
    """When the newest file was last written, in nanoseconds since 1970; 0 where there is none."""


def find_trees(root: Path, stream: Stream, grace_s: float = GRACE_S) -> list[Tree]:
    """The layouts in which `root` holds the stream, the one with the newest data first.

    Raises:
        DataError: where `root` is missing, no directory or cannot be read.
    """
    try:
        mode = root.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"the data directory {root} does not exist"
        raise DataError(what, _DATA_DIR) from error
    except PermissionError as error:
        raise denied(root) from error
    except OSError as error:
        what = f"the data directory {root} cannot be read ({error.strerror or error})"
        raise DataError(what, _DATA_DIR) from error
    if not stat.S_ISDIR(mode):
        what = f"{root} is not a directory"
        raise DataError(what, _DATA_DIR)
    present = set(_listing(root))
    trees = [Tree(root, stream, layout, grace_s) for layout in Layout if stream.directory(layout) in present]
    return sorted(trees, key=_newest, reverse=True)


def _newest(tree: Tree) -> tuple[int, int]:
    """By the hour that the newest file is called by; of one hour by when the files were written, which may lie."""
    names = tree.names()[-1:]
    return (hour_rank(names[0]) if names else -1, newest_data_ns(tree))


def newest_end(tree: Tree) -> tuple[str, int] | None:
    """(the newest hour file of a tree, its length in bytes); None where there is none. Raises OSError, DataError."""
    names = tree.names()[-1:]
    try:
        return (names[0], (tree.hourly / names[0]).stat().st_size) if names else None
    except FileNotFoundError:
        return None


def newest_data_ns(tree: Tree) -> int:
    """When the newest hour file of a tree was last written, in nanoseconds since 1970; 0 where there is none."""
    names = tree.names()
    try:
        return (tree.hourly / names[-1]).stat().st_mtime_ns if names else 0
    except FileNotFoundError:
        return 0  # pruned a moment ago
    except PermissionError as error:
        raise denied(tree.hourly / names[-1]) from error


def backlog(tree: Tree, cursor: Cursor) -> Backlog:
    """What of the tree lies behind a cursor. Raises DataError where a directory cannot be read."""
    offsets = {place.file: place.offset for place in cursor.places}
    newest = cursor.places[-1].file if cursor.places else None
    size_bytes = written_ns = 0
    for name in [*offsets, *tree.names(newest)]:
        try:
            known = (tree.hourly / name).stat()
        except FileNotFoundError:
            continue  # pruned: nothing of it can be read any more
        size_bytes += max(0, known.st_size - offsets.get(name, 0))
        written_ns = max(written_ns, known.st_mtime_ns)
    return Backlog(size_bytes, written_ns)


def _listing(path: Path) -> list[str]:
    try:
        return os.listdir(path)  # noqa: PTH208  a name is all that is wanted; Path objects cost ten times as much
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise denied(path) from error
