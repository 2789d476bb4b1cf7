"""The program as its users see it: on a terminal, on pipes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PROGRAM", "Terminal", "environment", "terminal"]

PROGRAM = (sys.executable, "-m", "hyperwatch")

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(temporary: Path) -> dict[str, str]:
    """This process's, with a directory for temporary files that a test can look into."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("HYPERWATCH_")}
    return own | {"TMPDIR": str(temporary), "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}


class Terminal:
    """A program on a terminal of 80 columns and 24 lines."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self.raw = ""

    def read_until(self, pattern: str, seconds: float) -> bool:
        """Whether what is on the screen matches before so many seconds have passed or the program has ended."""
        end = time.monotonic() + seconds
        while not re.search(pattern, _CONTROL.sub("", self.raw)):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._master], [], [], left)[0]:
                return False
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: the program has ended
                return False
            self.raw += data.decode(errors="replace")
        return True

    def read_to_end(self, seconds: float) -> str:
        """Everything, without what controls the terminal."""
        self.read_until(r"(?!)", seconds)
        return _CONTROL.sub("", self.raw)


@contextlib.contextmanager
def terminal(*arguments: str, temporary: Path) -> Iterator[Terminal]:
    """Runs the program; in the end it is gone."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        with subprocess.Popen(
            [*PROGRAM, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment(temporary)
        ) as process:
            os.close(slave)
            try:
                yield Terminal(process, master)
            finally:
                process.kill()
    finally:
        os.close(master)
