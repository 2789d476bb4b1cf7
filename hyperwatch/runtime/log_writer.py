"""A bounded queue of text, and a thread that writes it: who says something never waits for who reads it."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["MAX_BYTES", "MAX_LINES", "Drain", "write_all"]

MAX_LINES = 8192
MAX_BYTES = 2 * 1024 * 1024  # as much again may be on its way into the pipe


class Drain:
    """Takes lines from any thread, and writes them in their order. Lines that it has no room for are dropped and counted.

    Args:
        write: writes all it is given; may block for ever. What it raises as OSError drops the lines too.
        tell: says, when writing works again, how many lines are missing. What it puts stands where they would have.
        max_lines: that may wait.
        max_bytes: the same, in bytes.

    Attributes:
        dropped: how many lines were.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        tell: Callable[[int], object],
        *,
        max_lines: int = MAX_LINES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._write = write
        self._tell = tell
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._writing = False
        self._failed = 0  # lines before those that wait
        self._overflown = 0  # lines behind them: until they are on their way, no other is taken
        self._told: list[bytes] = []
        self.dropped = 0

    def put(self, line: bytes) -> None:
        """Takes a line, or drops it. Never waits."""
        if threading.current_thread() is self._thread:
            self._told.append(line)
            return
        with self._changed:
            full = len(self._waiting) >= self._max_lines or self._waiting_bytes + len(line) > self._max_bytes
            if full or self._overflown:
                self.dropped += 1
                self._overflown += 1
            else:
                self._waiting.append(line)
                self._waiting_bytes += len(line)
            self._start()
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Waits until all is written, for so long at most. False where it is not."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._overflown or self._writing), seconds)

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            with suppress(RuntimeError):  # the system has no more threads: tried again with the next line
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting or self._overflown))
                lines, failed, overflown = self._waiting, self._failed, self._overflown
                self._waiting, self._waiting_bytes, self._failed, self._overflown = [], 0, 0, 0
                self._writing = True
            written = self._try(b"".join((*self._notice(failed), *lines, *self._notice(overflown))))
            with self._changed:
                if not written:
                    self.dropped += len(lines)
                    self._failed += failed + len(lines) + overflown
                self._writing = False
                self._changed.notify_all()

    def _notice(self, lost: int) -> list[bytes]:
        self._told = []
        if lost:
            self._tell(lost)
        return self._told

    def _try(self, data: bytes) -> bool:
        try:
            self._write(data)
        except OSError:
            return False
        return True


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of it, whether or not somebody has made the descriptor non-blocking. Raises OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            room = select.poll()
            room.register(descriptor, select.POLLOUT)
            room.poll()
