"""What a client raises; a gap's error stands beside the gap."""

from __future__ import annotations

from hyperwatch.errors import HyperwatchError

__all__ = ["FeedError", "LossError", "again"]


class FeedError(HyperwatchError):
    """The feed cannot be reached, closed the connection, or said what no feed says."""


class LossError(FeedError):
    """A message is missing: the numbers of a subscription have a hole."""


def again(error: HyperwatchError, cursor: str = "") -> HyperwatchError:
    """The same error, for another task to raise: an exception carries the traceback of one.

    Args:
        error: what is over, for all.
        cursor: where this one can go on; "" for nowhere.
    """
    where = f", from where it ended (--from, or start of a subscription): {cursor}"
    copy = type(error)(
        error.what, f"{error.remedy}{where}" if cursor and isinstance(error, FeedError) else error.remedy
    )
    copy.__cause__ = error
    return copy
