"""What cannot be delivered, named. Pure."""

from __future__ import annotations

import attrs

from hyperwatch.log.positions import Cursor

__all__ = [
    "EVENT_TOO_LARGE",
    "FILE_REMOVED",
    "LATE_FILE",
    "MISSING_BLOCKS",
    "NOT_RUNNING",
    "PLACE_GONE",
    "REASONS",
    "UNREADABLE",
    "Gap",
]

# The reasons, as clients and the ledger have them.
MISSING_BLOCKS = "missing-blocks"
"""By-block files name every block: these were never written."""
FILE_REMOVED = "file-removed"
"""An hour file went before it was read."""
LATE_FILE = "late-file"
"""An hour file appeared so long after a newer one that it was not waited for any more. It is still there."""
UNREADABLE = "unreadable"
"""Lines that are no output of a node, torn, or longer than a line may be: they are in quarantine, by position at least."""
EVENT_TOO_LARGE = "event-too-large"
"""An event that alone exceeds a message. It is still in the files."""
PLACE_GONE = "place-gone"
"""The place of a cursor does not exist any more."""
NOT_RUNNING = "not-running"
"""hyperwatch was not running. Clients resume by their cursors as far as the files reach."""

REASONS = (MISSING_BLOCKS, FILE_REMOVED, LATE_FILE, UNREADABLE, EVENT_TOO_LARGE, PLACE_GONE, NOT_RUNNING)


@attrs.frozen
class Gap:
    """What lies between two places of a log and is not delivered."""

    stream: str
    reason: str
    before: Cursor
    after: Cursor
    where: str = ""
    """File and place, as far as that is known."""
    readable: bool = False
    """Whether it is still in the files."""
