"""The log that is played: recorded files that know how far they were read, or a tree that a node is writing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
from loguru import logger

from hyperwatch.errors import DataError
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.identify import hour_of
from hyperwatch.log.packed_file import FileState, PackedFile, Source, open_source
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.log.tree import Recording, Tree
from hyperwatch.replay.range import Bounds

__all__ = ["TolerantRecording", "beginning", "first_inside"]


@attrs.frozen
class TolerantRecording(Recording):
    """A recording that ends where it is damaged, and keeps the reason.

    So what was read before still goes the whole way out, to a file or to clients. Whoever plays it looks at `faults` in
    the end.
    """

    faults: list[DataError] = attrs.field(factory=list, init=False, eq=False)
    _sources: dict[str, _Guarded] = attrs.field(factory=dict, init=False, eq=False)

    @classmethod
    def of(cls, recording: Recording, bounds: Bounds) -> TolerantRecording:
        """Those of its files that can hold anything inside."""
        hours = [hour_of(path.absolute()) for path in recording.paths]
        paths = recording.paths[bounds.too_early(hours) :]
        return cls(paths, recording.stream, recording.layout)

    def names(self, after: str | None = None) -> list[str]:
        return [] if self.faults else super().names(after)

    def open(self, name: str) -> Source:
        path = self.paths[self.rank(name)]
        file = None
        try:
            file = open_source(path)
        except (OSError, DataError) as error:
            self.fail(path, error)
        self._sources[name] = _Guarded(path, file, self.fail)
        return self._sources[name]

    def fail(self, path: Path, error: OSError | DataError) -> None:
        """Nothing is read behind this place."""
        if isinstance(error, OSError):
            what = f"{path} cannot be read ({error.strerror or error})"
            error = DataError(what, "let this user read it, or leave it out")
        self.faults.append(error)

    def sizes(self) -> list[int]:
        """What each file takes on disk, in bytes."""
        return [path.stat().st_size if path.exists() else 0 for path in self.paths]

    def files_read(self) -> int:
        """How many files were opened."""
        return len(self._sources)

    def bytes_of_newest(self) -> int:
        """How much was read of the newest file that was opened, as it is on disk."""
        return next((source.packed_bytes for source in reversed(list(self._sources.values()))), 0)


class _Guarded:
    """A source that ends where it would fail. Without a file it is empty."""

    def __init__(self, path: Path, file: PackedFile | None, fail: Callable[[Path, OSError | DataError], None]) -> None:
        self._path = path
        self._file = file
        self._fail = fail
        self._said = False
        self.packed_bytes = 0

    def read(self, offset: int, count: int) -> bytes:
        if self._file is None:
            return b""
        try:
            data = self._file.read(offset, count)
        except (OSError, DataError) as error:
            self._fail(self._path, error)
            self.close()
            return b""
        self.packed_bytes = self._file.packed_bytes()
        if self._file.unfinished_bytes and not self._said:
            self._said = True
            logger.warning(
                "{} ends within a line, {} bytes of which are there: it is still being written, or was cut off; all whole lines are read",
                self._path, self._file.unfinished_bytes,
            )  # fmt: skip
        return data

    def lines_cached(self, offset: int, count: int) -> bytes:  # noqa: ARG002  it may have to be unpacked
        raise BlockingIOError

    def is_behind(self, before: bytes, offset: int) -> bool:  # noqa: ARG002  as below
        return True

    def size_bytes(self) -> int:
        return 0 if self._file is None else self._file.size_bytes()

    def fate(self, offset: int) -> FileState:  # noqa: ARG002  nobody writes it any more
        return FileState.SAME

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def beginning(log: TolerantRecording | Tree, bounds: Bounds) -> Cursor:
    """Where to begin reading: at the first file that can hold anything inside. Raises DataError."""
    directory = log.stream.directory(log.layout)
    if isinstance(log, TolerantRecording):
        return Cursor(directory)
    names = log.names()
    early = min(bounds.too_early(names), len(names) - 1)  # the newest file may be growing
    return Cursor(directory, (FilePosition(names[early], 0),) if early > 0 else ())


def first_inside(log: TolerantRecording | Tree, start: Cursor, bounds: Bounds, pause: Callable[[], None]) -> Cursor:
    """The place before the first event inside, or the log's present end. Raises OSError, DataError."""
    if bounds.first is None:
        return start
    reader = BatchReader(log, start)
    try:
        while batch := reader.next(None, pause):
            for entry in batch.entries:
                if not bounds.begins_after(entry.slice):
                    return entry.before
        return reader.cursor
    finally:
        reader.close()
