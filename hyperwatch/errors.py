"""The errors that hyperwatch raises on purpose. Each says what happened, where, and what to do next."""

from __future__ import annotations

__all__ = ["CursorError", "DataError", "FilesAwayError", "FormatChangedError", "HyperwatchError", "UsageError"]


class HyperwatchError(Exception):
    """Something that an operator can act on.

    Args:
        what: what happened and where, one sentence without a full stop at its end.
        remedy: what to do next, one sentence without a full stop at its end.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what
        self.remedy = remedy


class UsageError(HyperwatchError):
    """The command line, the environment or a setting is wrong."""

    exit_code = 2


class DataError(HyperwatchError):
    """A file or directory is not what a node writes, or cannot be read."""

    exit_code = 2


class FilesAwayError(DataError):
    """Files that were read before cannot be found just now, nor any other: they are away, not gone."""


class CursorError(HyperwatchError):
    """A cursor that is damaged, of another stream, or whose place in the log is gone."""


class FormatChangedError(HyperwatchError):
    """The node writes what this version cannot read. Reading has stopped, with its place kept."""

    exit_code = 3
