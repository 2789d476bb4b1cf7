"""An hour's file that appears after a newer one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Batch
from hyperwatch.log.gaps import LATE_FILE
from hyperwatch.log.line_reader import LOOK_S
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Tree
from hyperwatch.node.streams import ORDERS, Layout, day_before, hour_follows
from support import TIME, append, event, events_of, hour_file, lines_of

GRACE_S = 60.0


class Watcher:
    """A reader with a clock of its own."""

    def __init__(self, root: Path, cursor: Cursor) -> None:
        self.now_s = 0.0
        self.reader = BatchReader(Tree(root, ORDERS, Layout.STREAMING, GRACE_S), cursor)
        self.reader._walk._monotonic_s = lambda: self.now_s

    def take(self, passed_s: float = 2 * LOOK_S) -> list[Batch]:
        """Everything that can be read after so long."""
        self.now_s += passed_s
        self.reader.look_again()
        found = []
        while batch := self.reader.next(None, lambda: None):
            found.append(batch)
        return found


def write(root: Path, name: str, *blocks: int, idle_s: float = 0.0) -> None:
    path = hour_file(root, name)
    day, hour = name.split("/")
    time_of_it = (
        f"{day[:4]}-{day[4:6]}-{day[6:]}T{int(hour):02}{TIME[13:]}"  # blocks have the time that passed between hours
    )
    lines = lines_of(Layout.STREAMING, [(block, [event(block)]) for block in blocks])
    append(path, lines.replace(TIME.encode(), time_of_it.encode()))
    then = time.time() - idle_s
    os.utime(path, (then, then))


def blocks(batches: list[Batch]) -> list[tuple[int | None, int]]:
    return [(block, place) for block, place, _ in events_of(batches)]


@pytest.fixture
def resumed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("resumed", [False, True], indirect=True, ids=["running", "resumed by its cursor"])
def test_an_hour_file_that_appears_late_is_read_when_it_appears(tmp_path: Path, *, resumed: bool) -> None:
    """Its blocks lie below what was read, also further than a restarting node goes back: they are no repeats."""
    write(tmp_path, "20260505/22", 7, 8, idle_s=2 * GRACE_S)
    write(tmp_path, "20260506/0", 90_000)
    watcher = Watcher(tmp_path, Cursor("node_order_statuses_streaming"))
    watcher.take()
    if resumed:
        watcher = Watcher(tmp_path, Cursor.decode(watcher.reader.cursor.encode()))

    write(tmp_path, "20260505/23", 9, 10)
    late = watcher.take()

    assert blocks(late) == [(9, 0), (10, 0)]
    assert all(entry.late and not entry.gaps for batch in late for entry in batch.entries)
    again = Watcher(tmp_path, Cursor.decode(late[0].before.encode()))
    assert blocks(again.take()) == [(9, 0), (10, 0)]
    write(tmp_path, "20260505/23", 11)
    write(tmp_path, "20260506/0", 90_001)
    assert sorted(blocks(again.take())) == [(11, 0), (90_001, 0)]


def test_what_a_late_hour_file_repeats_of_the_hour_before_is_not_delivered_twice(tmp_path: Path) -> None:
    write(tmp_path, "20260505/22", 7, 8)
    write(tmp_path, "20260506/0", 12)
    watcher = Watcher(tmp_path, Cursor("node_order_statuses_streaming"))
    watcher.take()

    write(tmp_path, "20260505/23", 7, 8, 9)

    assert blocks(watcher.take()) == [(9, 0)]


def test_an_hour_file_that_appears_when_it_is_not_waited_for_any_more_is_a_gap(tmp_path: Path) -> None:
    write(tmp_path, "20260505/22", 7, idle_s=2 * GRACE_S)
    write(tmp_path, "20260506/0", 12)
    watcher = Watcher(tmp_path, Cursor("node_order_statuses_streaming"))
    watcher.take()
    watcher.take(2 * GRACE_S)
    watcher.take()

    write(tmp_path, "20260505/23", 9)
    watcher.take()
    write(tmp_path, "20260506/0", 13)
    after = watcher.take()

    (gap,) = after[0].entries[0].gaps
    assert (gap.reason, gap.readable) == (LATE_FILE, True)
    assert "20260505/23" in gap.where
    write(tmp_path, "20260506/0", 14)
    assert not watcher.take()[0].entries[0].gaps, "named once"
    assert blocks(after) == [(13, 0)]


def test_files_that_were_there_before_are_never_called_late(tmp_path: Path) -> None:
    write(tmp_path, "20260504/20", 1, idle_s=2 * GRACE_S)
    for hour, block in ((20, 5), (21, 6), (22, 7)):
        write(tmp_path, f"20260505/{hour}", block, idle_s=2 * GRACE_S)
    watcher = Watcher(tmp_path, Cursor("node_order_statuses_streaming"))
    watcher.take()
    watcher.take()
    for hour in range(5):
        write(tmp_path, f"20260506/{hour}", 12 + hour, idle_s=2 * GRACE_S)
    watcher.take()
    watcher.take()
    write(tmp_path, "20260506/4", 20)

    assert not any(entry.gaps for batch in watcher.take(3 * GRACE_S) for entry in batch.entries)


def test_what_a_restart_wrote_of_a_late_hour_file_is_known_there_also_after_a_resume(tmp_path: Path) -> None:
    write(tmp_path, "20260505/22", 7)
    write(tmp_path, "20260506/0", 12)
    watcher = Watcher(tmp_path, Cursor("node_order_statuses_streaming"))
    watcher.take()
    write(tmp_path, "20260505/23", 9)
    watcher.take()
    watcher = Watcher(tmp_path, Cursor.decode(watcher.reader.cursor.encode()))

    write(tmp_path, "20260506/0", 13, 10)
    assert (13, 0) in blocks(watcher.take())
    write(tmp_path, "20260505/23", 13)

    assert blocks(watcher.take()) == []


def test_a_pruned_file_takes_nothing_from_the_newer_ones_that_a_cursor_names(tmp_path: Path) -> None:
    for hour, block in ((21, 6), (22, 7), (23, 9)):
        write(tmp_path, f"20260505/{hour}", block)
    watcher = Watcher(tmp_path, Cursor("node_order_statuses_streaming"))
    watcher.take()
    cursor = Cursor.decode(watcher.reader.cursor.encode())
    assert [place.file for place in cursor.places] == ["20260505/21", "20260505/22", "20260505/23"]
    hour_file(tmp_path, "20260505/21").unlink()

    watcher = Watcher(tmp_path, cursor)
    write(tmp_path, "20260505/22", 8)

    assert blocks(watcher.take()) == [(8, 0)]


@pytest.mark.parametrize(
    ("older", "newer", "follows"),
    [
        ("20260505/8", "20260505/9", True),
        ("20260505/23", "20260506/0", True),
        ("20260228/23", "20260301/0", True),
        ("20260505/8", "20260505/10", False),
        ("20260504/23", "20260506/0", False),
    ],
)
def test_hours_follow_each_other_over_days_and_months(older: str, newer: str, *, follows: bool) -> None:
    assert hour_follows(older, newer) is follows


def test_the_day_before_the_first_of_a_month_is_the_last_of_another() -> None:
    assert day_before("20260301/7") == "20260228/7"


def test_a_new_block_behind_a_repeat_that_came_late_is_delivered_after_a_resume_too(tmp_path: Path) -> None:
    """A node restarts in an hour's last moments, and what it writes of that hour comes when the next has begun."""
    write(tmp_path, "20260505/22", 93, 94, 95, 96, 93, 94, 95, 96)
    write(tmp_path, "20260505/23", 100)
    watcher = Watcher(tmp_path, Cursor("node_order_statuses_streaming"))
    watcher.take()
    watcher = Watcher(tmp_path, Cursor.decode(watcher.reader.cursor.encode()))

    write(tmp_path, "20260505/22", 97, 98, 97, 98, 99)

    assert blocks(watcher.take()) == [(97, 0), (98, 0), (99, 0)]


@pytest.mark.parametrize("passed", range(9))
def test_a_resume_within_a_late_repeat_repeats_and_loses_nothing(tmp_path: Path, passed: int) -> None:
    late = [97, 98, 95, 96, 97, 98, 99, 101]
    write(tmp_path, "20260505/22", 93, 94, 95, 96)
    write(tmp_path, "20260505/23", 200)
    watcher = Watcher(tmp_path, Cursor("node_order_statuses_streaming"))
    found = blocks(watcher.take())
    write(tmp_path, "20260505/22", *late[:passed])
    found += blocks(watcher.take())
    watcher = Watcher(tmp_path, Cursor.decode(watcher.reader.cursor.encode()))
    write(tmp_path, "20260505/22", *late[passed:])
    found += blocks(watcher.take())

    assert sorted(found) == [(block, 0) for block in (93, 94, 95, 96, 97, 98, 99, 101, 200)]


def test_a_restart_within_a_late_hour_file_hides_none_of_its_new_blocks(tmp_path: Path) -> None:
    write(tmp_path, "20260505/22", 7)
    write(tmp_path, "20260506/0", 12)
    watcher = Watcher(tmp_path, Cursor("node_order_statuses_streaming"))
    watcher.take()
    watcher = Watcher(tmp_path, Cursor.decode(watcher.reader.cursor.encode()))

    write(tmp_path, "20260505/23", 8, 9, 8, 9, 10)

    assert blocks(watcher.take()) == [(8, 0), (9, 0), (10, 0)]
