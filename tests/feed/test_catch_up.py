"""The past, as it is read for one client and for several."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest
from loguru import logger

from hyperwatch.feed import catch_up
from hyperwatch.feed.catch_up import CatchUp
from hyperwatch.ingest.ring import Ring
from hyperwatch.ingest.yielding import Yielder
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Batch
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.log.tree import PlainFile, Tree
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.runtime.rate_limit import RateLimiter
from support import append, event, events_of, hour_file, line

BEGIN = Cursor(ORDERS.directory(Layout.STREAMING))
HOURS = 4
EACH = 300


@attrs.define
class Log:
    """Four hours of a block each, read for so many clients."""

    root: Path
    in_threads: int = 0

    def write(self) -> None:
        for hour in range(HOURS):
            append(hour_file(self.root, f"20260505/{hour}"), line(hour, [event(hour)]) * EACH)

    async def read(self, clients: int, until: Cursor) -> tuple[list[Batch], Cursor]:
        """(what was read, where that ended)."""
        files = CatchUp(Tree(self.root, ORDERS, Layout.STREAMING), Ring(until, 1), yielder=Yielder(lambda: clients))
        reader = await files.open(BEGIN, needs_keys=False)
        found = []
        while batch := await files.next(reader, until, RateLimiter()):
            found.append(batch)
        reader.close()
        return found, reader.cursor


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log(tmp_path)
    log.write()
    read = BatchReader.next

    def counting(self: BatchReader, *arguments: object) -> Batch | None:
        log.in_threads += 1
        return read(self, *arguments)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(BatchReader, "next", counting)
    return log


def seam(hour: int, lines: int) -> Cursor:
    """Behind so many lines of an hour."""
    places = [FilePosition(f"20260505/{hour}", lines * len(line(hour, [event(hour)])))]
    return attrs.evolve(BEGIN, places=tuple(places), block=hour, count=lines)


@pytest.mark.parametrize("lines", [0, 1, EACH - 1, EACH])
@pytest.mark.parametrize("hour", [0, HOURS - 1])
async def test_who_is_alone_gets_what_everybody_gets(log: Log, hour: int, lines: int) -> None:
    until = seam(hour, lines)
    alone, others = await log.read(1, until), await log.read(2, until)

    assert events_of(alone[0]) == events_of(others[0])
    assert len(events_of(alone[0])) == hour * EACH + lines
    assert alone[1] == others[1]


async def test_who_is_alone_waits_for_a_thread_at_the_ends_of_files_only(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("READ_BYTES", "_ALONE_BYTES"):
        monkeypatch.setattr(catch_up, bound, 20_000)
    until = seam(HOURS - 1, EACH)
    await log.read(2, until)
    for_others, log.in_threads = log.in_threads, 0
    await log.read(1, until)

    assert for_others > 8 * HOURS
    assert log.in_threads == HOURS + 1  # the first line of each is to be known first, and where the last one ends


async def test_where_the_disk_must_be_asked_who_is_alone_is_read_by_a_thread(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_self: PlainFile, _offset: int, _count: int) -> bytes:
        raise BlockingIOError

    monkeypatch.setattr(PlainFile, "lines_cached", never)
    found, _ = await log.read(1, seam(HOURS - 1, EACH))

    assert len(events_of(found)) == HOURS * EACH


async def test_what_is_passed_over_is_said_once_however_many_clients_come_by_it(log: Log) -> None:
    os.mkfifo(log.root / ORDERS.directory(Layout.STREAMING) / "hourly" / "20260505" / "9")
    append(hour_file(log.root, "20260505/10"), line(10, [event(10)]))
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="DEBUG")
    files = CatchUp(Tree(log.root, ORDERS, Layout.STREAMING), Ring(BEGIN, 1))
    for _ in range(10):
        reader = await files.open(BEGIN, needs_keys=False)
        found = []
        while batch := await files.next(reader, seam(10, 1), RateLimiter()):
            found.append(batch)
        reader.close()
        assert len(events_of(found)) == HOURS * EACH + 1
    logger.remove(sink)
    (text,) = said
    assert text.endswith("; it is passed over")
