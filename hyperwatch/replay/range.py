"""From where to where a recording is played. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

import attrs

from hyperwatch.errors import UsageError
from hyperwatch.log.batches import Batch
from hyperwatch.node.slices import BlockSlice
from hyperwatch.node.streams import DIFFS, Layout, Stream

__all__ = ["Bound", "Bounds"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_MS = 10**11  # 1973: a smaller number is seconds, or a date without dashes
_BLOCK = "block:"
_HOUR = timedelta(hours=1)


@attrs.frozen
class Bound:
    """A block, or a moment of block time."""

    block: int | None = None
    time_ms: int | None = None
    """UTC ms since 1970. Block times are cut to it: blocks are 67 ms apart."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `block:N`, milliseconds since 1970, or UTC ISO 8601 with or without a Z.

        Raises:
            ValueError: where it is none of them; the message names the remedy.
        """
        number = text.removeprefix(_BLOCK)
        if number.isascii() and number.isdigit():
            if text.startswith(_BLOCK):
                return cls(block=int(number))
            if int(number) >= _LEAST_MS:
                return cls(time_ms=int(number))
            msg = (
                f"{text!r} is not ms since 1970, which has 13 digits; write 1778002753024, or block:{text} for a block"
            )
            raise ValueError(msg)
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            msg = f"{text!r} is no place; write 2026-05-05T17:39:13Z (UTC), ms since 1970, or block:985148182"
            raise ValueError(msg) from None
        when = when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
        return cls(time_ms=(when - _EPOCH) // timedelta(milliseconds=1))

    def after(self, block: int | None, time_ms: int | None) -> bool:
        """Whether the bound lies after that block. What carries neither block nor time lies before no bound."""
        if self.block is not None:
            return block is not None and block < self.block
        return time_ms is not None and self.time_ms is not None and time_ms < self.time_ms


@attrs.frozen
class Bounds:
    """`first` is inside, `end` is not. None is no bound."""

    first: Bound | None = None
    end: Bound | None = None

    def check(self, stream: Stream, layout: Layout) -> None:
        """Raises UsageError where this recording has not what a bound asks for, or nothing lies between the bounds."""
        for name, bound in (("--from", self.first), ("--until", self.end)):
            if bound and bound.block is not None and layout is Layout.PLAIN:
                what = f"{name} block:{bound.block}: the plain layout carries no block numbers"
                raise UsageError(what, "give a time, or a recording in another layout")
            if bound and stream is DIFFS and layout is Layout.PLAIN:
                what = f"{name}: plain {stream.name} carry no times"
                raise UsageError(what, "leave it out, or give a recording in another layout")
        comparable = self.first and self.end and (self.first.block is None) == (self.end.block is None)
        if self.first and self.end and comparable and not self.end.after(self.first.block, self.first.time_ms):
            what = f"nothing lies between --from {_text(self.first)} and --until {_text(self.end)}"
            raise UsageError(what, "give an --until that is later; it is not inside")

    def hold(self, slice_: BlockSlice) -> bool:
        """Whether a run's block lies inside."""
        return not self.begins_after(slice_) and not self.ends_before(slice_)

    def begins_after(self, slice_: BlockSlice) -> bool:
        """Whether a run lies before the first that is inside."""
        return self.first is not None and self.first.after(slice_.block, slice_.time_ms)

    def ends_before(self, slice_: BlockSlice) -> bool:
        """Whether a run lies at or after the end."""
        return self.end is not None and not self.end.after(slice_.block, slice_.time_ms)

    def behind(self, batch: Batch) -> bool:
        """Whether all of a batch lies at or after the end, and so all that follows but repetitions after a restart."""
        return bool(batch.entries) and all(self.ends_before(entry.slice) for entry in batch.entries)

    def too_early(self, hours: Sequence[str | None]) -> int:
        """How many files at the beginning cannot hold anything inside, by their hours (`20260505/17`; None: unknown).

        The hour is the node's wall time, which is never behind block time; an hour's margin is for a clock that is.
        At the other end nothing follows from it: a node that catches up writes old blocks into new hours.
        """
        if self.first is None or self.first.time_ms is None:
            return 0
        first = _EPOCH + timedelta(milliseconds=self.first.time_ms)
        ends = ((_begin(hour) + 2 * _HOUR) if hour else None for hour in hours)
        return sum(1 for _ in itertools.takewhile(lambda end: end is not None and end <= first, ends))


def _begin(hour: str) -> datetime:
    day, _, number = hour.partition("/")
    try:
        return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) + int(number) * _HOUR
    except ValueError:
        return datetime.max.replace(tzinfo=UTC) - 3 * _HOUR  # eight digits, but no day: never too early


def _text(bound: Bound) -> str:
    return f"block:{bound.block}" if bound.block is not None else str(bound.time_ms)
