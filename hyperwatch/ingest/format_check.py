"""Damage or a new format: what cannot be read, named and weighed. Pure but for the log."""

from __future__ import annotations

from loguru import logger

from hyperwatch.errors import FormatChangedError
from hyperwatch.log.batches import Batch
from hyperwatch.node.keys import words_of

__all__ = ["FormatCheck"]

_LOOKED_AT = 1000  # at least: by them it is said what the node writes now
_LOGGED = 5  # of one batch: a damaged file must not fill the disk with log


class FormatCheck:
    """Names what of a log cannot be read, and tells where that is no damage any more.

    Args:
        name: the log's directory: hours of several streams have the same names.
        noun: what one of its events is called.
    """

    def __init__(self, name: str, noun: str) -> None:
        self._name = name
        self._lines = _Share(name, "lines", "read")
        self._undated = ""
        self._events = _Share(name, f"{noun}s", "routed, for neither account, coin nor status is to be found")

    def name_damage(self, batch: Batch) -> None:
        """Says in the log which lines of a batch could not be read."""
        for unreadable in batch.unreadable[:_LOGGED]:
            logger.error(
                "unreadable: {} bytes of {} {} at offset {}: {}; they begin {!r}",
                unreadable.length_bytes, self._name, batch.file, unreadable.offset, unreadable.reason, unreadable.data[:80],
            )  # fmt: skip
        if len(batch.unreadable) > _LOGGED:
            logger.error("... and {} more unreadable lines in the same batch", len(batch.unreadable) - _LOGGED)

    def name_undated(self, batch: Batch) -> None:
        """Says in the log, once a file, that lines do not tell when the node wrote them."""
        if batch.file == self._undated:
            return
        for entry in batch.entries:
            if entry.slice.lacks_local_time:
                self._undated = batch.file
                logger.warning(
                    "no local_time that can be read in block {} of {} {}: when such lines were written is not known, and no "
                    "latency is measured by them",
                    entry.slice.block, self._name, batch.file,
                )  # fmt: skip
                return

    def weigh_lines(self, batch: Batch) -> bool:
        """Whether enough lines were seen to say that this is the format; raises FormatChangedError where it is not."""
        return self._lines.weigh(
            batch, batch.lines, sum(unreadable.lines for unreadable in batch.unreadable if unreadable.data)
        )

    def weigh_events(self, batch: Batch) -> int:
        """How many of a batch's events lack an account, coin or status, which the log says too.

        Raises:
            FormatChangedError: where of half of the events nothing can be read that they could be routed by.
        """
        found = unknown = 0
        for entry in batch.entries:
            if not entry.slice.unkeyed:
                continue
            if not found:
                logger.error(
                    "the account, coin or status of an event of {} {}, block {}, place {}, cannot be read: no filter that "
                    "asks for one of them matches it; it is {!r}",
                    self._name, batch.file, entry.slice.block, entry.first_index + entry.slice.unkeyed[0],
                    bytes(entry.slice.events[entry.slice.unkeyed[0]])[:200],
                )  # fmt: skip
            found += len(entry.slice.unkeyed)
            unknown += sum(not any(words_of(entry.slice.keys[position])) for position in entry.slice.unkeyed)
        if found > 1:
            logger.error("... and {} more such events in the same batch", found - 1)
        self._events.weigh(batch, batch.events, unknown)
        return found


class _Share:
    """How much of what a log holds cannot be read."""

    def __init__(self, name: str, noun: str, read: str) -> None:
        self._name = name
        self._noun = noun
        self._read = read
        self._all = self._failures = 0

    def weigh(self, batch: Batch, count: int, failures: int) -> bool:
        """Whether that makes _LOOKED_AT. Raises FormatChangedError where half of them could not be read."""
        self._all += count
        self._failures += failures
        if self._all < _LOOKED_AT:
            return False
        if 2 * self._failures >= self._all:
            place = batch.before.places[-1]
            what = (
                f"{self._failures} of {self._all} {self._noun} of {self._name} {place.file} cannot be {self._read}, "
                f"the last of them from {place.offset} on"
            )
            remedy = "the node may write a new format: see what it is, and look for a newer hyperwatch"
            raise FormatChangedError(what, remedy)
        self._all = self._failures = 0
        return True
