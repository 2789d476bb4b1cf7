"""What hyperwatch remembers: its gaps, what it could not read, and where its head was. Blocking I/O.

Clients own their progress: nothing that a client needs lives only here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import msgspec
from loguru import logger

from hyperwatch.errors import CursorError
from hyperwatch.ledger.journal import NO_JSON, Journal
from hyperwatch.ledger.lock import StateError, take_lock
from hyperwatch.ledger.set_aside import move_aside
from hyperwatch.log.gaps import Gap
from hyperwatch.log.positions import Cursor
from hyperwatch.node.slices import UnreadableLine

__all__ = ["DamageRecord", "GapRecord", "StateDir", "StateError", "damage_record", "gap_record", "gaps", "quarantine"]

_GAPS_BYTES = 4 * 1024 * 1024
_QUARANTINE_BYTES = 64 * 1024 * 1024
_HEADS, _FRESH = "head.json", ".tmp"
_HEADS_BYTES = 1024 * 1024  # of some streams; a cursor has about 150
_VERSION = 2


_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**60)]
_TimeMs = Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800_000)]  # before the year 10000, as calendars have it


class GapRecord(msgspec.Struct, kw_only=True):
    """A line of the gap ledger."""

    seen_ms: _TimeMs
    stream: str
    reason: str
    where: str
    from_block: _Natural | None
    from_time: str
    to_block: _Natural | None
    to_time: str
    readable: bool
    before: str
    """A cursor: the place before the gap."""
    after: str
    """A cursor: the place behind it."""


class DamageRecord(msgspec.Struct, kw_only=True):
    """What could not be read."""

    seen_ms: _TimeMs
    file: str
    offset: _Natural
    length_bytes: _Natural
    reason: str
    data: bytes
    """As it stands in the file; its first MiB, or nothing, where there is more."""


class _Heads(msgspec.Struct):
    version: int
    cursors: dict[str, str]
    """By stream."""
    saved_ms: int


def gaps(directory: Path) -> Journal[GapRecord]:
    """The gap ledger of a state directory."""
    return Journal(directory / "gaps.jsonl", GapRecord, _GAPS_BYTES)


def quarantine(directory: Path) -> Journal[DamageRecord]:
    """The quarantine of a state directory."""
    return Journal(directory / "quarantine.jsonl", DamageRecord, _QUARANTINE_BYTES)


class StateDir:
    """A state directory, ours alone while it is open. A context manager.

    Whatever lies in it, it opens: what cannot be used is moved aside, with a line in the log. A disk that is full or has
    become read-only is no reason either: what is to be kept then is refused when it is written, as it is later on.

    Args:
        directory: is made where it does not exist.

    Raises:
        StateError: where it cannot be made or written by this user, or is another process's.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = -1
        self._saving = threading.Lock()  # each stream's place is saved by a thread
        self.gaps = gaps(directory)
        self.quarantine = quarantine(directory)
        self.heads: dict[str, Cursor] = {}

    def __enter__(self) -> Self:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.directory)
            for text in (*self.gaps.mend(), *self.quarantine.mend(), *self._recall_heads()):
                logger.warning("{}", text)
        except OSError as error:
            self.close()
            what = f"the state directory {self.directory} cannot be used ({error.strerror or error})"
            raise StateError(what, f"name one that uid {os.getuid()} can write with --state-dir") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the directory back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def save_head(self, stream: str, cursor: Cursor) -> None:
        """Remembers where a stream's head is: temporary file, fsync, rename. Raises OSError."""
        path = self.directory / _HEADS
        fresh = path.with_suffix(_FRESH)
        with self._saving:
            self.heads[stream] = cursor
            cursors = {name: head.encode() for name, head in self.heads.items()}
            with fresh.open("wb") as file:
                file.write(msgspec.json.encode(_Heads(_VERSION, cursors, _now_ms())))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)

    def note(self, found: Iterable[Gap]) -> None:
        """Adds to the ledger. Raises OSError."""
        self.gaps.append(map(gap_record, found))

    def keep(self, file: str, unreadable: Iterable[UnreadableLine]) -> None:
        """Adds to the quarantine. Raises OSError."""
        self.quarantine.append(damage_record(file, each) for each in unreadable)

    def _recall_heads(self) -> Iterator[str]:
        """Reads where the heads were, as far as that can be read. Yields a sentence for what cannot."""
        path = self.directory / _HEADS
        for each in (path, path.with_suffix(_FRESH)):
            if os.path.lexists(each) and not each.is_file():
                yield move_aside(each, "it is no file")
        if path.exists() and path.stat().st_size > _HEADS_BYTES:
            yield move_aside(path, "it is larger than any")
        try:
            known = msgspec.json.decode(path.read_bytes(), type=_Heads)
        except FileNotFoundError:
            return
        except (OSError, *NO_JSON) as error:
            yield move_aside(path, f"{error.strerror if isinstance(error, OSError) else error}")
            return
        if known.version != _VERSION:
            yield move_aside(path, f"it is of version {known.version}")
            return
        for stream, text in known.cursors.items():
            try:
                self.heads[stream] = Cursor.decode(text)
            except CursorError as error:
                yield f"{path} has no place of {stream[:40]!r} that can be used ({error.what}): going on without it"


def gap_record(gap: Gap) -> GapRecord:
    """A gap that was seen now."""
    return GapRecord(
        seen_ms=_now_ms(),
        stream=gap.stream,
        reason=gap.reason,
        where=gap.where,
        from_block=gap.before.block,
        from_time=gap.before.time,
        to_block=gap.after.block,
        to_time=gap.after.time,
        readable=gap.readable,
        before=gap.before.encode(),
        after=gap.after.encode(),
    )


def damage_record(file: str, unreadable: UnreadableLine) -> DamageRecord:
    """What could not be read, seen now."""
    return DamageRecord(
        seen_ms=_now_ms(),
        file=file,
        offset=unreadable.offset,
        length_bytes=unreadable.length_bytes,
        reason=unreadable.reason,
        data=unreadable.data,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
