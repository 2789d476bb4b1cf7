"""Something may have changed: inotify, and a poll beside it.

Events are hints to look, never data: file systems without events, symbolic links to elsewhere and an overflowing queue
cost latency, not lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import trio
from inotify_simple import INotify, flags  # type: ignore[import-untyped]  # ships no types
from loguru import logger

__all__ = ["POLL_S", "DirectoryWatcher"]

POLL_S = 0.25

_MASK = flags.MODIFY | flags.CREATE | flags.MOVED_TO


class DirectoryWatcher:
    """Wakes its one waiter when a file in the watched directories may have changed.

    A context manager: it owns the inotify descriptor. Without one (EMFILE: the limit of instances a user may have) it
    polls, and says so once.
    """

    def __init__(self) -> None:
        self._inotify: INotify | None = None
        self._watched: dict[Path, int] = {}

    def __enter__(self) -> Self:
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            logger.warning(
                "no inotify ({}): new lines are seen by polling every {} ms; raise fs.inotify.max_user_instances",
                error,
                int(POLL_S * 1000),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._inotify is not None:
            trio.lowlevel.notify_closing(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    def follow(self, directories: Iterable[Path]) -> None:
        """Watches these directories and no others. Those that do not exist (yet) are left to the poll."""
        if self._inotify is None:
            return
        wanted = set(directories)
        for path in self._watched.keys() - wanted:
            watch = self._watched.pop(path)
            try:
                self._inotify.rm_watch(watch)
            except OSError:
                continue  # the directory went, and its watch with it
        for path in wanted:
            try:
                # Known ones too: a directory that was removed and made again needs a new watch, others keep theirs.
                self._watched[path] = self._inotify.add_watch(path, _MASK)
            except FileNotFoundError:
                self._watched.pop(path, None)
            except OSError as error:
                if path not in self._watched:
                    logger.warning("{} is polled, not watched ({}): raise fs.inotify.max_user_watches", path, error)
                    self._watched[path] = -1

    async def wait(self) -> bool:
        """Returns when something may have changed, after POLL_S at the latest.

        Returns:
            Whether a file may have appeared.
        """
        with trio.move_on_after(POLL_S):
            if self._inotify is None:
                await trio.sleep_forever()
            else:
                await trio.lowlevel.wait_readable(self._inotify.fd)
                events = self._inotify.read(timeout=0)
                return any(event.mask & ~flags.MODIFY for event in events)
        return True
