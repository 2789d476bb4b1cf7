"""Whose a directory is that a simulator writes to: its own or nobody's, and never a node's. Blocking I/O.

Simulated events among a node's own could be told from them by nobody. So a simulator begins in an empty directory, notes
there which files it makes, and goes on later only where there is nothing else.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from hyperwatch.errors import UsageError

__all__ = ["MARKER", "Claim"]

MARKER = ".hyperwatch-simulated"
"""A simulator's file in its directory: the directory's inode, so that a copy is worth nothing elsewhere, and a line for
each file that a simulator made."""

_EMPTY = {MARKER, "lost+found"}
_REMEDY = "give an empty directory: nobody could tell simulated events from a node's own"


class Claim:
    """A directory that one simulator writes to, and nothing else has written to. A context manager.

    Args:
        root: is made where it is missing.

    Raises:
        UsageError: where something else is in it, or another simulator writes to it.
        OSError: where it cannot be read or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: set[str] = set()
        self._marker: FileIO | None = None

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / MARKER
        if not os.path.lexists(path):
            self._refuse_any({entry.name for entry in os.scandir(self.root)} - _EMPTY)
        self._marker = FileIO(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "r+"
        )
        try:
            self._lock(self._marker)
            self._recall(self._marker)
        except BaseException:
            self._marker.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._marker is not None:
            self._marker.close()

    def open(self, name: str) -> FileIO:
        """Opens a file for appending, of which everything is a simulator's.

        Args:
            name: below the root, as in `node_fills/hourly/20260505/9`. Its directory is made where it is missing.

        Raises:
            UsageError: where somebody else has made it.
            OSError: where it cannot be written.
        """
        path = self.root / name
        if name in self._names:
            make = 0
        else:
            self._refuse_any({name} if os.path.lexists(path) else set())
            path.parent.mkdir(parents=True, exist_ok=True)
            self._note(name)  # first: nobody can be ended between the two and leave a file that is nobody's
            make = os.O_EXCL
        try:
            return FileIO(path, "a", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW | make, 0o666))
        except FileExistsError:
            raise self._not_ours(name) from None

    def _lock(self, marker: FileIO) -> None:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            what = f"another simulator writes to {self.root}"
            raise UsageError(what, "end that one, or give an empty directory") from error

    def _recall(self, marker: FileIO) -> None:
        ours = f"{self.root.stat().st_ino}"
        written = marker.readall()
        inode, *names = os.fsdecode(written).splitlines() or [ours]
        if not written:
            self._note(ours)
        self._names = set(names) if inode == ours else set()
        self._refuse_any(name for name in _files(self.root) if name not in self._names)

    def _note(self, line: str) -> None:
        assert self._marker is not None  # noqa: S101  entered
        self._marker.write(os.fsencode(line) + b"\n")
        self._names.add(line)

    def _refuse_any(self, strangers: Iterable[str]) -> None:
        for name in strangers:
            raise self._not_ours(name)

    def _not_ours(self, name: str) -> UsageError:
        return UsageError(f"{self.root} holds {name}, which no simulator wrote there", _REMEDY)


def _files(root: Path) -> Iterator[str]:
    """What is below a directory and no directory itself, links to others included."""
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "lost+found":
                    yield from (f"{entry.name}/{name}" for name in _files(Path(entry.path)))
            elif entry.name != MARKER:
                yield entry.name
