"""What hyperwatch remembers: its gaps, what it could not read, and where its head was. Blocking I/O.

Clients own their progress: nothing that a client needs lives only here.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from hyperwatch.errors import CursorError
from hyperwatch.log.cursor import Cursor
from hyperwatch.log.gaps import Gap
from hyperwatch.log.journal import Journal, StateError
from hyperwatch.node.runs import Damage

__all__ = ["DamageRecord", "GapRecord", "State", "damage_record", "gap_record", "gaps", "quarantine"]

_GAPS_BYTES = 4 * 1024 * 1024
_QUARANTINE_BYTES = 64 * 1024 * 1024
_VERSION = 2


class GapRecord(msgspec.Struct, kw_only=True):
    """A line of the gap ledger."""

    seen_ms: int
    stream: str
    reason: str
    where: str
    from_block: int | None
    from_time: str
    to_block: int | None
    to_time: str
    readable: bool
    before: str
    """A cursor: the place before the gap."""
    after: str
    """A cursor: the place behind it."""


class DamageRecord(msgspec.Struct, kw_only=True):
    """What could not be read."""

    seen_ms: int
    file: str
    offset: int
    length_bytes: int
    reason: str
    data: bytes
    """As it stands in the file; its first MiB, or nothing, where there is more."""


class _Heads(msgspec.Struct):
    version: int
    cursors: dict[str, str]
    """By stream."""
    saved_ms: int


def gaps(directory: Path) -> Journal[GapRecord]:
    """The gap ledger of a state directory. Raises StateError, OSError."""
    return Journal(directory / "gaps.jsonl", GapRecord, _GAPS_BYTES)


def quarantine(directory: Path) -> Journal[DamageRecord]:
    """The quarantine of a state directory. Raises StateError, OSError."""
    return Journal(directory / "quarantine.jsonl", DamageRecord, _QUARANTINE_BYTES)


class State:
    """A state directory, ours alone while it is open. A context manager.

    Args:
        directory: is made where it does not exist.

    Raises:
        StateError: where it cannot be written, is another process's, or holds what is no state of this version.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = -1
        self._saving = threading.Lock()  # each stream's place is saved by a thread

    def __enter__(self) -> Self:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._take_lock()
            self.gaps = gaps(self.directory)
            self.quarantine = quarantine(self.directory)
            for journal in (self.gaps, self.quarantine):
                journal.mend()
            self.heads = self._read_heads()
        except OSError as error:
            self.close()
            what = f"the state directory {self.directory} cannot be used ({error.strerror or error})"
            raise StateError(
                what, "name one that uid can write with --state-dir".replace("uid", f"uid {os.getuid()}")
            ) from error
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
        path = self.directory / "head.json"
        fresh = path.with_suffix(".tmp")
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

    def keep(self, file: str, damage: Iterable[Damage]) -> None:
        """Adds to the quarantine. Raises OSError."""
        self.quarantine.append(damage_record(file, each) for each in damage)

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            what = f"the state directory {self.directory} is another hyperwatch's"
            raise StateError(what, "end that one, or name another with --state-dir") from error

    def _read_heads(self) -> dict[str, Cursor]:
        path = self.directory / "head.json"
        with suppress(FileNotFoundError):
            try:
                known = msgspec.json.decode(path.read_bytes(), type=_Heads)
                if known.version == _VERSION:
                    return {stream: Cursor.decode(cursor) for stream, cursor in known.cursors.items()}
                reason: object = f"version {known.version}"
            except (msgspec.MsgspecError, CursorError) as error:
                reason = error
            what = f"{path} is no state of this version of hyperwatch ({reason})"
            raise StateError(what, "move it away: only the time hyperwatch was down will not be noted")
        return {}


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


def damage_record(file: str, damage: Damage) -> DamageRecord:
    """What could not be read, seen now."""
    return DamageRecord(
        seen_ms=_now_ms(),
        file=file,
        offset=damage.offset,
        length_bytes=damage.length_bytes,
        reason=damage.reason,
        data=damage.data,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
