"""What is found on the way, said in the log and, where there is a state directory, kept."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable

import attrs
import trio
from loguru import logger

from hyperwatch.errors import CursorError
from hyperwatch.ingest.counters import Counters
from hyperwatch.ingest.ring import Ring
from hyperwatch.ledger.state_dir import DamageRecord, GapRecord, StateDir, damage_record, gap_record
from hyperwatch.log.batches import Batch
from hyperwatch.log.block_steps import is_far_above
from hyperwatch.log.gaps import EVENT_TOO_LARGE, NOT_RUNNING, Gap
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.resume import resume
from hyperwatch.log.tree import Log
from hyperwatch.node.streams import Stream
from hyperwatch.node.times import ms_of

__all__ = ["Ledger"]

_SAVE_S = 1.0
_NEWEST = 200  # of each kind in memory, for who asks over HTTP: 100 KiB
_COMPLAIN_S = 60.0  # how often a state directory that cannot be written is named


class Ledger:
    """Gaps and unreadable lines of one run of the service.

    A state directory that fails while it is in use stops nothing: the log names it, and the feed goes on.

    Args:
        state: where they are kept; None: only in the log.
        now_s: the clock that complaints are spaced by.
        counters: of each stream.

    Attributes:
        counters: those; are kept, here as far as gaps and unreadable lines go.
        gaps: the newest of the ledger, oldest first.
        unreadable: the newest of this run, without their bytes.
    """

    def __init__(
        self,
        state: StateDir | None,
        now_s: Callable[[], float] = time.monotonic,
        counters: defaultdict[str, Counters] | None = None,
    ) -> None:
        self.counters = defaultdict(Counters) if counters is None else counters
        self._state = state
        self._now_s = now_s
        self._complained_s = -_COMPLAIN_S
        self.gaps: deque[GapRecord] = deque(maxlen=_NEWEST)
        self.unreadable: deque[DamageRecord] = deque(maxlen=_NEWEST)

    def recall(self) -> None:
        """What the ledger holds of other runs is among the newest. Blocking."""
        if self._state is not None:
            self.gaps.extend(gap for _, gap in self._state.gaps.read())

    async def found(self, batch: Batch) -> None:
        """Keeps what a batch lacks."""
        gaps = [gap for entry in batch.entries for gap in entry.gaps]
        gaps += [
            Gap(batch.stream, EVENT_TOO_LARGE, entry.before, entry.after, f"an event of {batch.file}", readable=True)
            for entry in batch.entries
            if entry.too_large
        ]
        if gaps or batch.unreadable:
            await trio.to_thread.run_sync(self._keep, batch, gaps)

    def note(self, gap: Gap) -> None:
        """Keeps one gap. Blocking: call it in a thread."""
        self._say([gap])
        if self._state is not None:
            self._try(self._state.note, [gap])

    async def save_places(self, stream: Stream, ring: Ring) -> None:
        """Remembers where a stream's head is, once in _SAVE_S where it has moved. Does not end."""
        saved: Cursor | None = None
        while True:
            await trio.sleep(_SAVE_S)
            if self._state is not None and ring.end is not saved:
                saved = ring.end
                await trio.to_thread.run_sync(self._try, self._state.save_head, stream.name, saved)

    def save_last(self, stream: Stream, cursor: Cursor) -> None:
        """Remembers where a stream's head was in the end. Blocking."""
        if self._state is not None:
            self._try(self._state.save_head, stream.name, cursor)

    def since_last_time(self, log: Log, start: Cursor) -> Cursor:
        """Notes the time that hyperwatch was not running, and what of it is gone. Blocking.

        Args:
            log: the files.
            start: where the head begins.

        Returns:
            The same place, with the highest block that was ever read: a node may be in the middle of a repeat.
        """
        last = self._state.heads.get(log.stream.name) if self._state is not None else None
        if last is None or (last.directory == start.directory and last.places == start.places):
            return start
        try:
            gone, left = resume(log, last).gap, last
        except CursorError as error:
            logger.warning("the last place of {} cannot be used ({}): going on without it", log.stream.name, error.what)
            return start
        if gone is not None:
            left = gone.after
            self.note(Gap(log.stream.name, NOT_RUNNING, last, left, "removed before it was read"))
        self.note(Gap(log.stream.name, NOT_RUNNING, left, start, readable=True))
        if _below(start, last):
            return attrs.evolve(last, directory=start.directory, places=start.places)
        return start

    def _keep(self, batch: Batch, gaps: list[Gap]) -> None:
        self._say(gaps)
        # Hours of several streams have the same names, so the whole path under the data directory.
        file = f"{batch.before.directory}/hourly/{batch.file}"
        self.unreadable.extend(
            damage_record(file, attrs.evolve(unreadable, data=b"")) for unreadable in batch.unreadable
        )
        if self._state is not None:
            self._try(self._state.note, gaps)
            if self._try(self._state.keep, file, batch.unreadable):
                self.counters[batch.stream].quarantined += len(batch.unreadable)

    def _say(self, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            self.counters[gap.stream].gaps[gap.reason] += 1
            self.gaps.append(gap_record(gap))
            logger.warning(
                "gap: {} of {}: {}; from block {} ({} events of it read) to block {}; {}",
                gap.reason, gap.stream, gap.where or "the log", gap.before.key, gap.before.count, gap.after.key,
                "still in the files" if gap.readable else "not in the files",
            )  # fmt: skip

    def _try(self, write: Callable[..., None], *arguments: object) -> bool:
        """Whether it could be written."""
        try:
            write(*arguments)
        except OSError as error:
            now_s = self._now_s()
            if now_s - self._complained_s >= _COMPLAIN_S:
                self._complained_s = now_s
                logger.error(
                    "the state directory cannot be written ({}): gaps and unreadable lines are in this log only until "
                    "it can; make room, or give this user the right to write",
                    error,
                )
            return False
        return True


def _below(cursor: Cursor, other: Cursor) -> bool:
    """Whether a place lies below one that was read before, but not so far that a damaged number must be in that one."""
    if cursor.key is not None and is_far_above(other.key, ms_of(other.time), cursor.key, ms_of(cursor.time)):
        return False
    if cursor.block is not None and other.block is not None:
        return cursor.block < other.block
    return cursor.block is None and other.block is None and cursor.time < other.time
