"""A file of records, bounded: JSON lines in two segments, of which the older goes when the newer is full. Blocking I/O.

Records are numbered from 1 on, also over restarts and over those that had to go, so that it is seen how many went.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from io import BufferedWriter
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from hyperwatch.errors import HyperwatchError

__all__ = ["Journal", "StateError"]

R = TypeVar("R", bound=msgspec.Struct)

_VERSION = 1


class StateError(HyperwatchError):
    """The state directory cannot be used."""

    exit_code = 2


class _Header(msgspec.Struct):
    version: int
    kind: str
    first: int
    """The number of the segment's first record."""


class Journal(Generic[R]):
    """Records of one type.

    Args:
        path: of the newer segment; the older has `.old` behind it.
        record: the type.
        max_bytes: what both segments may take together, but for a record that alone is longer than half of it.

    Raises:
        StateError: where a segment is not a journal of this kind and version.
        OSError: from the files.
    """

    def __init__(self, path: Path, record: type[R], max_bytes: int) -> None:
        self._path = path
        self._old = path.with_name(path.name + ".old")
        self._decode = msgspec.json.Decoder(record).decode
        self._kind = path.stem
        self._half_bytes = max_bytes // 2
        self._lock = threading.Lock()  # records come from several threads
        first, count = self._span(self._path)
        old_first, old_count = self._span(self._old)
        self.next_number = first + count if first else max(1, old_first + old_count)

    def mend(self) -> None:
        """Cuts off a last line that a crash left unfinished. Only for who writes: a reader may come between. OSError."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self._path, whole)

    def append(self, records: Iterable[R]) -> None:
        """Adds records; they are on the disk when this returns. Raises OSError: then some may be missing at the end."""
        with self._lock:
            file = self._open()
            try:
                for record in records:
                    line = msgspec.json.encode(record) + b"\n"
                    if file.tell() + len(line) > self._half_bytes and file.tell() > _EMPTY_BYTES:
                        file.close()
                        self._path.replace(self._old)
                        file = self._open()
                    file.write(line)
                    self.next_number += 1
                file.flush()
                os.fsync(file.fileno())
            finally:
                file.close()

    def read(self) -> Iterator[tuple[int, R]]:
        """(number, record), oldest first. Raises OSError, StateError."""
        for path in (self._old, self._path):
            number, _ = self._span(path)
            for line in self._lines(path)[1:]:
                yield number, self._decode(line)
                number += 1

    def dropped(self) -> int:
        """How many records had to go."""
        first, _ = self._span(self._old)
        return (first or self._span(self._path)[0] or 1) - 1

    def _open(self) -> BufferedWriter:
        file = self._path.open("ab")
        if not file.tell():
            file.write(msgspec.json.encode(_Header(_VERSION, self._kind, self.next_number)) + b"\n")
        return file

    def _lines(self, path: Path) -> list[bytes]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return []
        return data[: data.rfind(b"\n") + 1].splitlines()

    def _span(self, path: Path) -> tuple[int, int]:
        """(number of the first record, how many there are); (0, 0) where there is no segment."""
        lines = self._lines(path)
        if not lines:
            return 0, 0
        remedy = "move it away, and it is begun anew"
        try:
            header = msgspec.json.decode(lines[0], type=_Header)
        except msgspec.MsgspecError as error:
            what = f"{path} is no journal of hyperwatch ({error})"
            raise StateError(what, remedy) from error
        if (header.version, header.kind) != (_VERSION, self._kind):
            what = f"{path} is a journal of {header.kind!r}, version {header.version}"
            raise StateError(what, remedy)
        return header.first, len(lines) - 1


_EMPTY_BYTES = 200  # no header is longer
