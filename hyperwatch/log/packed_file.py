"""Recorded files, plain or compressed, told apart by their first bytes. Blocking I/O."""

from __future__ import annotations

import enum
import gzip
import sys
import zlib
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Protocol, cast

import lz4.frame  # type: ignore[import-untyped]  # ships no types
import msgspec

from hyperwatch.errors import DataError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["FileState", "Source", "open_source", "zstd"]


class FileState(enum.Enum):
    """What has become of an open file."""

    SAME = enum.auto()
    GONE = enum.auto()
    """Its name is no more; what it holds can still be read."""
    ANOTHER = enum.auto()
    """It was truncated, or its name is now another file's."""


class Source(Protocol):
    """An open file, read by place in its uncompressed bytes."""

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end. Raises OSError; DataError for damaged compression."""

    def lines_cached(self, offset: int, count: int) -> bytes:
        """Whole lines from `offset`, a line's start, as far as the system has them in memory; b"" where there are none now.

        It waits for no disk. Raises BlockingIOError where only `read` can tell, or the first line is over `count` bytes.
        """

    def is_behind(self, before: bytes, offset: int) -> bool:
        """Whether these bytes still stand right before a place. Raises OSError."""

    def size_bytes(self) -> int:
        """How long it is now, uncompressed."""

    def fate(self, offset: int) -> FileState:
        """What has become of it, where it was read up to `offset`. Raises OSError."""

    def close(self) -> None:
        """Lets the file go."""


class BinaryIO(Protocol):
    """What gzip, lz4, zstd and plain files have in common."""

    def read1(self, count: int, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...
    def close(self) -> None: ...


_DAMAGED = (EOFError, zlib.error, zstd.ZstdError, gzip.BadGzipFile, RuntimeError)


class PackedFile:
    """A file that is read to where it ends when that is reached.

    It may be still written: then its last line may be unfinished, which is no damage, and what comes behind is not read. A
    last line that is whole but for its newline is read.

    Keeps the bytes of the last read: the next one starts at a line that this one cut, and a compressed file that is
    asked for a place behind it would start again from its first byte.
    """

    def __init__(self, path: Path, file: BinaryIO, raw: BufferedReader[FileIO]) -> None:
        self._path = path
        self._file = file
        self._raw = raw
        self._held = b""
        self._held_from = 0
        self._damage: Exception | None = None
        self._end: int | None = None
        self._last_line = 0  # where the last line starts that is known to
        self.unfinished_bytes = 0
        """Of the last line, where it is not whole."""

    def read(self, offset: int, count: int) -> bytes:
        if self._end is not None and offset + count > self._end:
            count = max(0, self._end - offset)
        data = b""
        if self._held_from <= offset <= self._held_from + len(self._held):
            data = self._held[offset - self._held_from :]
            if len(data) >= count:
                return data[:count]  # the held bytes stay: the file stands at their end
        else:
            self._file.seek(offset)
        data = self._fill(data, count)
        self._last_line = max(self._last_line, offset + data.rfind(b"\n") + 1 if b"\n" in data else 0)
        if len(data) < count and self._damage is None and data and not data.endswith(b"\n"):
            data = self._ended(data, offset)
        if self._damage and b"\n" not in data:
            what = f"{self._path} is damaged or cut short near byte {offset} of its contents ({self._damage})"
            raise DataError(what, "fetch the file again; every line before that place was read")
        self._held, self._held_from = data, offset
        return data

    def _ended(self, data: bytes, offset: int) -> bytes:
        """What was read last, to the end of the last line that is whole."""
        if not offset <= self._last_line <= offset + len(data):
            return data  # a part of a line: who reads asks for all of it
        whole = self._last_line - offset
        line = data[whole:]
        if _is_begun(line):
            self.unfinished_bytes, data = len(line), data[:whole]
        else:
            data += b"\n"
        self._end = offset + len(data)
        return data

    def lines_cached(self, offset: int, count: int) -> bytes:  # noqa: ARG002  it may have to be unpacked
        raise BlockingIOError

    def _fill(self, data: bytes, count: int) -> bytes:
        parts, have = [data], len(data)
        try:
            while have < count and self._damage is None and (more := self._file.read1(count - have)):
                parts.append(more)
                have += len(more)
        except _DAMAGED as error:
            self._damage = error  # lz4 raises bare RuntimeErrors; what came before the damage is still good
        return b"".join(parts)

    def is_behind(self, before: bytes, offset: int) -> bool:  # noqa: ARG002  nobody writes it any more
        return True

    def size_bytes(self) -> int:
        end = self._held_from + len(self._held)
        while data := self.read(end, 1024 * 1024):  # no packed file says it
            end += len(data)
        return end

    def fate(self, offset: int) -> FileState:  # noqa: ARG002  nobody writes it any more
        return FileState.SAME

    def packed_bytes(self) -> int:
        """How much of the file itself has been read, compressed as it is."""
        return self._raw.tell()

    def close(self) -> None:
        self._file.close()
        self._raw.close()


def _is_begun(line: bytes) -> bool:
    """Whether a last line without its newline is the beginning of a document. What is none at all will not become one."""
    if not line.lstrip().startswith((b"{", b"[")):
        return False
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return True
    return False


def open_source(path: Path) -> PackedFile:
    """Opens a recorded file.

    Raises:
        OSError: from the file.
        DataError: where it is compressed in a way that is not known.
    """
    raw = BufferedReader(path.open("rb", buffering=0), 1024 * 1024)
    try:
        return PackedFile(path, _open(path, raw), raw)
    except BaseException:
        raw.close()
        raise


def _open(path: Path, raw: BufferedReader[FileIO]) -> BinaryIO:
    file = _unpacked(path, raw, _magic(raw))
    if file is raw:
        return file
    try:
        inner = file.read1(_MAGIC_BYTES)
        file.seek(0)
    except _DAMAGED:
        file.seek(0)  # it is damaged from its start: reading says so
        return file
    if _name(inner) is None and not _is_skipped(inner) and not _OTHER_NAMES.get(inner[:2]):
        return file
    what = f"{path} is packed twice: what comes out of it is packed itself"
    raise DataError(what, "unpack it once")


def _unpacked(path: Path, raw: BufferedReader[FileIO], magic: bytes) -> BinaryIO:
    match _name(magic):
        case "gzip":
            return cast("BinaryIO", gzip.open(raw))
        case "lz4":
            return cast("BinaryIO", lz4.frame.open(raw, "rb"))
        case "lz4 legacy":
            what = f"{path} is compressed as lz4 in its legacy format (lz4 -l)"
            raise DataError(what, "unpack it with lz4 -d, or pack it as .gz, .lz4 or .zst")
        case "zstd":
            return cast(
                "BinaryIO", zstd.open(raw, "rb", options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
            )
    for name, start in _OTHERS.items():
        if magic.startswith(start):
            what = f"{path} is compressed as {name}"
            raise DataError(what, "unpack it, or pack it as .gz, .lz4 or .zst")
    return raw


def _magic(raw: BufferedReader[FileIO]) -> bytes:
    """The first bytes of a file that say how it is packed: behind frames that decoders skip, with which pzstd begins."""
    first = magic = raw.peek(_MAGIC_BYTES)[:_MAGIC_BYTES]
    for _ in range(_SKIPPED):
        if not _is_skipped(magic):
            break
        raw.seek(raw.tell() + _MAGIC_BYTES + int.from_bytes(magic[4:8], "little"))
        magic = raw.peek(_MAGIC_BYTES)[:_MAGIC_BYTES]
    raw.seek(0)
    # Whatever follows is packed: where it does not say how, the decoder for Zstandard goes on, and names what it finds.
    return _ZSTD if _is_skipped(first) and _name(magic) is None else magic


def _is_skipped(magic: bytes) -> bool:
    return len(magic) == _MAGIC_BYTES and magic[1:4] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == _SKIPPABLE


def _name(magic: bytes) -> str | None:
    """How what begins so is packed; None where it is not, or not in a way that can be read."""
    return next((name for start, name in _MAGICS.items() if magic.startswith(start)), None)


_MAGIC_BYTES = 8
_SKIPPABLE = 0x50
_SKIPPED = 1000  # frames at a file's start that are looked behind
_WINDOW_LOG = (
    31  # zstd --long=31, the most that there is: such a file takes 2 GiB of memory, any other what it asks for
)
_ZSTD = b"\x28\xb5\x2f\xfd"
_MAGICS = {
    b"\x1f\x8b": "gzip",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4 legacy",
    _ZSTD: "zstd",
}
_OTHERS = {"bzip2": b"BZh", "xz": b"\xfd7zXZ", "zip": b"PK\x03\x04", "7z": b"7z\xbc\xaf"}
_OTHER_NAMES = {start[:2]: name for name, start in _OTHERS.items()}
