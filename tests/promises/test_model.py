"""Whatever happens to the files, a client that resumes by its cursor has every complete line exactly once.

A small model of a node and the real reader do the same random things. What the model leaves out, because no reader could
tell: a file that is truncated or pruned before it was looked at, and a streaming node that goes back to exactly its last
block (the documentation says so).
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from hyperwatch.errors import FilesAwayError
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Batch
from hyperwatch.log.line_reader import GONE_S, LOOK_S
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import PlainFile, Tree
from hyperwatch.node.streams import ORDERS, Layout
from support import append, event, hour_file, lines_of

Block = tuple[int, list[bytes]]


class Stale:
    """An open file whose handle the server does not know any more."""

    def __init__(self, file: PlainFile) -> None:
        self._file = file

    def _fail(self, *_: object) -> Any:  # noqa: ANN401  it never returns
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    read = lines_cached = is_behind = size_bytes = fate = _fail

    def close(self) -> None:
        self._file.close()


class NodeAndReader(RuleBasedStateMachine):
    """A node that writes, and a client that reads and resumes."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="hyperwatch-model-"))
        self.hour = 5
        self.day = 20260505
        self.next_block = 100
        self.blocks: list[Block] = []  # as a restarting node writes them again
        self.late: list[Block] = []  # not yet written to the old hour
        self.absent: tuple[Path, list[Block]] | None = None  # an hour file that is not there yet
        self.unflushed = b""
        self.now_s = 0.0
        self.got: list[tuple[int | None, int, bytes]] = []
        self.gaps = 0
        self.files = 0  # that were written anew
        self.damaged = 0  # lines

    @initialize(
        layout=st.sampled_from([Layout.STREAMING, Layout.BY_BLOCK]), counts=st.lists(st.integers(1, 3), min_size=2)
    )
    def begin(self, layout: Layout, counts: list[int]) -> None:
        self.layout = layout
        self.path = self.old = hour_file(self.root, self.name(), layout)
        append(self.path, b"")
        self.write(self.make(counts))
        self.open(Cursor(ORDERS.directory(layout)))

    def teardown(self) -> None:
        try:
            if hasattr(self, "reader"):
                self.flush()
                self.write_late()
                self.read()
                self.reader.close()
                written = Counter(
                    (number, place, raw) for number, events in self.blocks for place, raw in enumerate(events)
                )
                assert Counter(self.got) == written
        finally:
            shutil.rmtree(self.root)

    # The node.

    def name(self) -> str:
        return f"{self.day}/{self.hour}"

    def make(self, counts: list[int]) -> list[Block]:
        made = []
        for count in counts:
            number = self.next_block
            made.append((number, [event(1000 * number + each) for each in range(count)]))
            self.next_block += 1
        self.blocks += made
        return made

    def write(self, blocks: list[Block]) -> None:
        append(self.path, self.unflushed + lines_of(self.layout, blocks))
        self.unflushed = b""

    @rule(counts=st.lists(st.integers(1, 3), min_size=1, max_size=4))
    def append_whole_lines(self, counts: list[int]) -> None:
        self.write(self.make(counts))

    @rule(counts=st.lists(st.integers(1, 3), min_size=1, max_size=3), share=st.floats(0, 1, exclude_max=True))
    def append_and_stop_within_a_line(self, counts: list[int], share: float) -> None:
        data = self.unflushed + lines_of(self.layout, self.make(counts))
        cut = int(len(data) * share)
        append(self.path, data[:cut])
        self.unflushed = data[cut:]

    @rule()
    def flush(self) -> None:
        self.write([])

    @rule(withheld=st.integers(0, 2), over_midnight=st.booleans(), hours=st.integers(1, 3))
    def roll_the_hour(self, withheld: int, over_midnight: bool, hours: int) -> None:
        self.flush()
        self.write_late()
        self.late = self.make([1] * withheld)
        self.old = self.path
        self.day, self.hour = (
            (self.day + 1, 0) if over_midnight or self.hour + hours > 23 else (self.day, self.hour + hours)
        )
        self.path = hour_file(self.root, self.name(), self.layout)
        self.write(self.make([2]))

    @rule(counts=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def roll_the_hour_and_owe_the_file_of_one_between(self, counts: list[int]) -> None:
        self.flush()
        self.write_late()
        self.old = self.path
        self.day, self.hour = (self.day + 1, 1) if self.hour > 21 else (self.day, self.hour + 2)
        between = hour_file(self.root, f"{self.day}/{self.hour - 1}", self.layout)
        self.absent = (between, self.make(counts))
        self.path = hour_file(self.root, self.name(), self.layout)
        self.write(self.make([2]))

    @rule()
    def write_late(self) -> None:
        append(self.old, lines_of(self.layout, self.late))
        self.late = []
        self.write_the_hour_between()

    @rule()
    def write_the_hour_between(self) -> None:
        if self.absent is not None:
            path, blocks = self.absent
            append(path, lines_of(self.layout, blocks))
            self.absent = None

    @rule(back=st.integers(1, 30), torn=st.booleans())
    def restart_the_node(self, back: int, torn: bool) -> None:
        self.write_late()
        if not torn:
            self.flush()
        # It goes back behind what it had not finished, and by at least one block behind the last that it had begun.
        unfinished = self.unflushed.count(b"\n")
        self.unflushed = b""
        again = self.blocks[-back - unfinished - 1 :]
        append(self.path, lines_of(self.layout, again) + lines_of(self.layout, self.make([1])))

    @precondition(lambda self: not self.unflushed)
    @rule(back=st.integers(1, 30))
    def replace_the_file_by_one_that_begins_later(self, back: int) -> None:
        self.write_late()
        self.read()
        fresh = self.path.with_name("fresh")
        lines = lines_of(self.layout, self.blocks[-back:] + self.make([1]))
        # Whoever writes a file anew has a time of his own: by that its first line differs, even where the block does not.
        self.files += 1
        fresh.write_bytes(lines.replace(b'13.5"', b'13.5%d"' % self.files))
        fresh.rename(self.path)

    @precondition(lambda self: not self.unflushed)
    @rule()
    def truncate_the_file_and_go_on(self) -> None:
        self.write_late()
        self.read()
        os.truncate(self.path, 0)
        self.look()
        append(self.path, lines_of(self.layout, self.blocks[-1:]) + lines_of(self.layout, self.make([1])))

    @precondition(lambda self: not self.unflushed and not self.late and self.absent is None)
    @rule()
    def prune_what_was_read(self) -> None:
        self.read()
        for path in self.root.rglob("hourly/*/*"):
            if path != self.path:
                path.unlink()
        if self.old != self.path:
            self.old = self.path

    @precondition(lambda self: not self.unflushed)
    @rule(far=st.sampled_from([10**12, 2**53 - 1, 2_000_000]))
    def write_a_block_number_that_is_damaged(self, far: int) -> None:
        # Between two blocks that are right: what comes first or last in a file cannot be told from the rest by anybody.
        self.write(self.make([1]))
        append(self.path, lines_of(self.layout, [(far, [event(0)])]))
        self.damaged += 1
        self.write(self.make([1]))

    @rule(ending=st.sampled_from([".lz4", ".gz", ".part", ".jsonl.zst"]))
    def pack_a_copy_beside_the_file(self, ending: str) -> None:
        self.path.with_name(self.path.name + ending).write_bytes(gzip.compress(self.path.read_bytes()))

    @rule(time_s=st.sampled_from([1.0, 4e9]))
    def give_the_files_times_that_lie(self, time_s: float) -> None:
        for path in self.root.rglob("hourly/*/*"):
            os.utime(path, (time_s, time_s))

    @precondition(lambda self: not self.unflushed)
    @rule()
    def replace_the_file_by_one_with_the_same_first_line(self) -> None:
        # Truncated, and at once longer than it was: neither its size nor its first line tells.
        self.write_late()
        self.read()
        data = self.path.read_bytes()
        lines = data.splitlines(keepends=True)
        first = json.loads(lines[0])["block_number"]
        kept = [block for block in self.blocks[-2:] if block[0] > first]
        more = lines_of(self.layout, self.make([1] * 6))
        with self.path.open("r+b") as file:
            file.truncate(0)
            file.write(lines[0] + lines_of(self.layout, kept) + more)
        grown = self.path.stat().st_size - len(data)
        if grown < 0:
            self.look()  # it is seen to be shorter

    @rule()
    def let_the_handles_go_stale(self) -> None:
        """As NFS does when its server was started anew: what is open fails, and opens well by its name."""
        for file in self.reader._walk._open:
            if isinstance(file.source, PlainFile):
                file.source = Stale(file.source)

    @rule(mount_point=st.booleans())
    def take_the_directory_away_for_a_while(self, *, mount_point: bool) -> None:
        place = self.path.parents[2]
        away = place.with_name("away")
        place.rename(away)
        if mount_point:
            place.mkdir()
        cursor = Cursor.decode(self.reader.cursor.encode())
        try:
            with suppress(FilesAwayError):
                self.read()  # what is open can still be read
            if cursor.places:
                with pytest.raises(FilesAwayError):
                    BatchReader(Tree(self.root, ORDERS, self.layout), cursor)
        finally:
            if mount_point:
                place.rmdir()
            away.rename(place)

    # hyperwatch and its client.

    def open(self, cursor: Cursor) -> None:
        self.reader = BatchReader(Tree(self.root, ORDERS, self.layout), cursor)
        self.reader._walk._monotonic_s = lambda: self.now_s

    def take(self) -> None:
        while batch := self.reader.next(None, lambda: None):
            self.keep(batch)

    def keep(self, batch: Batch) -> None:
        for entry in batch.entries:
            self.gaps += len(entry.gaps)
            places = range(entry.first_index, entry.first_index + len(entry.slice.events))
            self.got += [
                (entry.slice.block, place, bytes(raw)) for place, raw in zip(places, entry.slice.events, strict=True)
            ]

    def look(self) -> None:
        self.now_s += 2 * LOOK_S
        self.take()

    @rule()
    def read(self) -> None:
        for _ in range(4):
            self.look()

    @rule()
    def much_time_passes(self) -> None:
        self.write_late()  # within the time that an old hour is given
        self.now_s += 2 * GONE_S
        self.read()

    @rule()
    def end_and_resume_by_the_cursor(self) -> None:
        cursor = Cursor.decode(self.reader.cursor.encode())
        self.reader.close()
        self.open(cursor)


def run(examples: int) -> None:
    run_state_machine_as_test(
        NodeAndReader,
        settings=settings(
            max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_every_complete_line_is_read_exactly_once_whatever_happens() -> None:
    run(100)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_complete_line_is_read_exactly_once_whatever_happens_many_times() -> None:
    run(2_000)
