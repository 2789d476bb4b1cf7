"""The lock of a state directory: one process at a time. Blocking I/O."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from hyperwatch.errors import HyperwatchError
from hyperwatch.ledger.set_aside import set_aside

__all__ = ["StateError", "take_lock"]

_NOT_NOW = {errno.EROFS, errno.ENOSPC, errno.EDQUOT}  # what ails a disk, not what an operator has set
_NOT_OURS = {errno.EACCES, errno.EPERM}


class StateError(HyperwatchError):
    """The state directory cannot be used."""

    exit_code = 2


def take_lock(directory: Path) -> int:
    """Takes the lock of a directory, and returns its descriptor: who closes it gives the lock back.

    Raises:
        StateError: where another process has it.
        OSError: where the directory cannot be written by this user.
    """
    descriptor = _open(directory / "lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        what = f"the state directory {directory} is another hyperwatch's"
        raise StateError(what, "end that one, or name another with --state-dir") from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in _NOT_OURS:
            raise
        if error.errno in _NOT_NOW:  # what can be opened can be locked; without a file, the directory itself
            return os.open(path if path.exists() else path.parent, os.O_RDONLY | os.O_CLOEXEC)
    set_aside(path)  # a directory, a link to nowhere
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
