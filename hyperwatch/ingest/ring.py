"""The warm head of the log: the batches decoded last, bounded in bytes. Pure.

Entries are numbered from 0 in the order of delivery; a subscription at the head is one such number.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence

from hyperwatch.log.batches import Batch, Entry
from hyperwatch.log.positions import Cursor, is_at_or_after, same_progress

__all__ = ["Ring"]


class Ring:
    """A bounded run of consecutive batches.

    Args:
        start: the place in the log before the first batch.
        max_bytes: what the batches may weigh together; the newest is kept even where it alone is heavier.
    """

    def __init__(self, start: Cursor, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._batches: list[Batch] = []
        self._serials: list[int] = []  # of each batch's first entry
        self.weight_bytes = 0
        self._start = start
        self.end = start
        self.end_serial = 0

    @property
    def start(self) -> Cursor:
        """The place before the oldest batch that is still here."""
        return self._batches[0].before if self._batches else self._start

    @property
    def first_serial(self) -> int:
        """The oldest entry that is still here; `end_serial` where there is none."""
        return self._serials[0] if self._serials else self.end_serial

    def __iter__(self) -> Iterator[Entry]:
        """The entries, oldest first."""
        return (entry for batch in self._batches for entry in batch.entries)

    def append(self, batch: Batch) -> Sequence[Batch]:
        """Adds the next batch.

        Returns:
            The oldest ones, which the bound asks to let go. They are not here any more; letting go of their events takes
            as long as building a message of them, so who adds does that when nobody waits.
        """
        self._batches.append(batch)
        self._serials.append(self.end_serial)
        self.end_serial += len(batch.entries)
        self.end = batch.after
        self.weight_bytes += batch.weight_bytes
        drop = 0
        while self.weight_bytes > self.max_bytes and drop < len(self._batches) - 1:
            self.weight_bytes -= self._batches[drop].weight_bytes
            drop += 1
        dropped = self._batches[:drop]
        if drop:
            del self._batches[:drop], self._serials[:drop]
        return dropped

    def at(self, serial: int) -> Entry | None:
        """The entry of that number.

        Returns:
            None where it is not here: not any more below `first_serial`, not yet from `end_serial` on.
        """
        if not self.first_serial <= serial < self.end_serial:
            return None
        # The last batch that starts at or before the entry: batches without entries share their successor's number.
        batch = bisect.bisect_right(self._serials, serial) - 1
        return self._batches[batch].entries[serial - self._serials[batch]]

    def boundary(self, cursor: Cursor, rank: Callable[[str], int]) -> tuple[Cursor, int] | None:
        """The first seam between batches at or behind `cursor`: up to there a reader reads, from there the ring serves.

        A seam at the cursor itself is none for who has read other blocks before it than the head has.

        Returns:
            The seam's place in the log and the number of the entry after it; None where the head has not got that far.
        """
        low, high = 0, len(self._batches)  # seams are in order, so those that cover the cursor are the last ones
        while low < high:
            middle = (low + high) // 2
            if is_at_or_after(self._batches[middle].before, cursor, rank):
                high = middle
            else:
                low = middle + 1
        for number in range(low, len(self._batches) + 1):
            seam, serial = self._seam(number)
            behind = not is_at_or_after(cursor, seam, rank)
            if is_at_or_after(seam, cursor, rank) and (behind or same_progress(seam, cursor)):
                return seam, serial
        return None

    def _seam(self, number: int) -> tuple[Cursor, int]:
        if number < len(self._batches):
            return self._batches[number].before, self._serials[number]
        return self.end, self.end_serial
