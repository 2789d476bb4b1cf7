"""What lines come to: runs of events, and what could not be read. Pure values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import attrs
import msgspec

from hyperwatch.node.keys import Keys
from hyperwatch.node.times import ms_of

__all__ = ["RUN_BYTES", "Damage", "Raw", "Run", "split"]

Raw = msgspec.Raw | bytes
"""An event as the node wrote it: a view into the batch's bytes, or the line itself in the plain layout."""

RUN_BYTES = 512 * 1024  # a message is made of one run and must stay under 1 MiB, every client library's limit


@attrs.define
class Run:
    """Consecutive events of one block (in the plain layout: of one event time), as far as they were read together."""

    block: int | None
    time: str
    """Block time as the node wrote it; in the plain layout the events' own; "" where the stream has none."""
    time_ms: int | None
    written: str
    """The node's local time of the last line, "" in the plain layout."""
    fresh: bool
    """Whether its first event is known to be the block's first: so at every by-block line, never elsewhere."""
    events: list[Raw]
    """Empty for a block without events, which only the by-block layout writes."""
    keys: list[Keys]
    """As many as `events`."""
    size_bytes: int
    """Of the events."""
    skipped: int
    """How many events of its first line stand before the first one here."""
    end: int
    """Offset in the file of the first line that is not wholly in this run."""
    taken: int
    """How many events of that line are in this run or before it."""
    _users: Mapping[str, Sequence[int]] | None = attrs.field(default=None, init=False, repr=False, eq=False)
    _coins: Mapping[str, Sequence[int]] | None = attrs.field(default=None, init=False, repr=False, eq=False)

    @property
    def users(self) -> Mapping[str, Sequence[int]]:
        """The accounts of its events and the positions of each one's; looked up once, for however many ask."""
        if self._users is None:
            self._users = _positions(key.user for key in self.keys)
        return self._users

    @property
    def coins(self) -> Mapping[str, Sequence[int]]:
        """The coins of its events and the positions of each one's; looked up once, for however many ask."""
        if self._coins is None:
            self._coins = _positions(key.coin for key in self.keys)
        return self._coins

    @property
    def written_ms(self) -> int | None:
        """When the node wrote it, UTC; None where it does not say so, or not in a way that can be read."""
        try:
            return ms_of(self.written)
        except ValueError:
            return None


def _positions(words: Iterable[str]) -> Mapping[str, Sequence[int]]:
    """Where each word stands."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for position, word in enumerate(words):
        found[word].append(position)
    # They stay as long as the run: no room to grow.
    return {word: tuple(positions) for word, positions in found.items()}


@attrs.frozen
class Damage:
    """Lines that could not be read, by position."""

    offset: int
    length_bytes: int
    reason: str
    data: bytes
    """The bytes themselves; b"" where there were too many to keep."""
    run: int = 0
    """How many of the decoder's runs come before them."""
    lines: int = 1


def split(run: Run, skip: int, offset: int) -> list[Run]:
    """Cuts one line's run into runs of at most RUN_BYTES (or one event), without its first `skip` events."""
    if run.size_bytes <= RUN_BYTES and not skip:
        return [run]
    sizes = [len(memoryview(event)) for event in run.events]
    runs: list[Run] = []
    start = skip
    while start < len(sizes):
        stop, size = start + 1, sizes[start]
        while stop < len(sizes) and size + sizes[stop] <= RUN_BYTES:
            size += sizes[stop]
            stop += 1
        runs.append(
            attrs.evolve(
                run,
                events=run.events[start:stop],
                keys=run.keys[start:stop],
                size_bytes=size,
                skipped=start,
                end=offset,
                taken=stop,
            )
        )
        start = stop
    if runs:
        runs[-1].end, runs[-1].taken = run.end, 0
    return runs
