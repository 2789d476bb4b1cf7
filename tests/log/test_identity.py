"""The same first line does not make two files one: what stands before a place must be the same too."""

from __future__ import annotations

import base64
import errno
import json
import os
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.log import tree as tree_module
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.line_reader import LineReader
from hyperwatch.log.positions import BEFORE_BYTES, Cursor, FilePosition
from hyperwatch.log.seek.resume import at_head, resume
from hyperwatch.log.tree import GRACE_S, PlainFile, Tree
from hyperwatch.monitor import stalls
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.node.times import text_of
from support import TIME, TIME_MS, append, event, events_of, hour_file, line, lines_of, read_all


def tree(root: Path, layout: Layout = Layout.PLAIN) -> Tree:
    return Tree(root, ORDERS, layout)


def timed(number: int) -> bytes:
    """An event of a block of its own, as long as every other."""
    return event(10_000 + number).replace(TIME.encode(), text_of(TIME_MS + 70 * number).encode())


@pytest.mark.parametrize("lacking", [range(5, 8), range(18, 21), range(0)])
def test_a_cursor_goes_on_at_a_node_that_lacks_lines_without_leaving_any_out(tmp_path: Path, lacking: range) -> None:
    raws = [timed(number) for number in range(40)]
    append(hour_file(tmp_path / "a", "20260505/17", Layout.PLAIN), b"".join(raw + b"\n" for raw in raws))
    there = [raw for number, raw in enumerate(raws) if number not in lacking]
    append(hour_file(tmp_path / "b", "20260505/17", Layout.PLAIN), b"".join(raw + b"\n" for raw in there))
    entries = [entry for batch in read_all(tree(tmp_path / "a")) for entry in batch.entries]
    cursor = Cursor.decode(entries[19].after.encode())
    rest = read_all(tree(tmp_path / "b"), cursor)
    assert [raw for _, _, raw in events_of(rest)] == [raw for raw in raws[20:] if raw in there]


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("more", [0, 1, 5])
def test_a_file_that_is_truncated_and_at_once_grows_past_the_old_place_is_read_from_its_start(
    tmp_path: Path, layout: Layout, more: int
) -> None:
    blocks = [(number, [timed(number)]) for number in range(100, 140)]
    path = hour_file(tmp_path, "20260505/17", layout)
    append(path, lines_of(layout, blocks[:10]))
    log = tree(tmp_path, layout)
    reader = BatchReader(log, Cursor(log.stream.directory(layout)))
    heard = []
    while batch := reader.next(None, lambda: None):
        heard.append(batch)
    # The same first line and the same inode: nothing but what stands before the place tells.
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(lines_of(layout, [blocks[0], *blocks[10 : 20 + more]]))
    reader.look_again()
    while batch := reader.next(None, lambda: None):
        heard.append(batch)
    reader.close()
    assert [raw for _, _, raw in events_of(heard)] == [raw for _, (raw,) in blocks[: 20 + more]]


def test_a_cursor_of_the_first_version_is_read_as_ever(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/17", Layout.STREAMING), line(7, [event(1)]) + line(8, [event(2)]))
    log = tree(tmp_path, Layout.STREAMING)
    first = next(entry.after for batch in read_all(log) for entry in batch.entries)
    assert first.block == 7
    wire = json.loads(base64.urlsafe_b64decode(first.encode() + "=="))
    assert wire[0] == 2
    old = [1, wire[1], [place[:4] for place in wire[2]], *wire[3:]]
    text = base64.urlsafe_b64encode(json.dumps(old).encode()).rstrip(b"=").decode()
    assert Cursor.decode(text) == first
    assert [block for block, _, _ in events_of(read_all(log, Cursor.decode(text)))] == [8]


def test_every_place_of_a_cursor_says_what_stands_before_it(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/17", Layout.STREAMING)
    append(path, b"".join(line(block, [event(block), event(block + 1)]) for block in range(7, 30)))
    data, log = path.read_bytes(), tree(tmp_path, Layout.STREAMING)
    entries = [entry for batch in read_all(log) for entry in batch.entries]
    for entry in entries:
        (place,) = entry.after.places
        assert place.before == data[max(0, place.offset - BEFORE_BYTES) : place.offset]
        assert Cursor.decode(entry.after.encode()).places[0].traced() == place.traced()
        assert resume(log, Cursor.decode(entry.after.encode())).cursor.places == entry.after.places


@given(st.binary(max_size=600), st.binary(max_size=600), st.booleans())
def test_a_place_is_behind_what_it_was_made_behind_and_behind_nothing_else(
    one: bytes, other: bytes, text: bool
) -> None:
    place = FilePosition("20260505/17", 1, before=one[-BEFORE_BYTES:])
    if text:
        place = attrs.evolve(place, before=b"", trace=place.traced() if place.before else "")
    assert place.is_behind(other + one)
    if one and not other.endswith(one[-BEFORE_BYTES:]):
        assert not place.is_behind(other)


def test_a_late_replacement_of_an_open_file_is_found_by_the_reader_that_has_the_system_read_for_it(
    tmp_path: Path,
) -> None:
    path = hour_file(tmp_path, "20260505/17", Layout.STREAMING)
    append(path, line(7, [event(1)]))
    log = tree(tmp_path, Layout.STREAMING)
    reader = BatchReader(log, Cursor(log.stream.directory(log.layout)))
    assert reader.next(None, lambda: None) is not None
    os.truncate(path, 0)
    append(path, line(8, [event(2)]) + line(9, [event(3)]))
    assert reader.take_cached(None, 2**16) is None, "a thread has to look"
    heard = events_of(iter(lambda: reader.next(None, lambda: None), None))
    assert [block for block, _, _ in heard] == [8, 9]
    reader.close()


class Stale(PlainFile):
    """A file whose handle goes stale when it is told to."""

    stale = False
    born_stale = False
    """Whether it opens, and cannot be read."""

    def read(self, offset: int, count: int) -> bytes:
        if self.stale or self.born_stale:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return super().read(offset, count)

    def lines_cached(self, offset: int, count: int) -> bytes:
        if self.stale:
            raise BlockingIOError
        return super().lines_cached(offset, count)


@attrs.frozen
class StaleTree(Tree):
    """The hour files of a server that forgets what is open."""

    files: list[Stale] = attrs.Factory(list)
    refused: set[str] = attrs.Factory(set)
    """What cannot be opened either."""
    unreadable: set[str] = attrs.Factory(set)
    """What opens, and cannot be read."""

    def open(self, name: str) -> Stale:
        if name in self.refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.files.append(Stale(self.hourly / name))
        self.files[-1].born_stale = name in self.unreadable
        return self.files[-1]


def test_a_stale_handle_is_answered_by_opening_the_file_again_and_reading_on(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9", Layout.STREAMING)
    append(path, line(7, [event(1)]))
    log, said = StaleTree(tmp_path, ORDERS, Layout.STREAMING), list[str]()
    walk = LineReader(log, say=said.append)
    assert walk.take(1000) is not None
    log.files[-1].stale = True
    append(path, line(8, [event(2)]))
    span = walk.take(1000)
    assert span is not None
    assert (span.data, span.anew) == (line(8, [event(2)]), False)
    assert said == []
    walk.close()


def test_a_file_that_cannot_be_opened_again_is_named_once_and_new_hours_are_read_meanwhile(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9", Layout.STREAMING)
    append(path, line(7, [event(1)]))
    log, said = StaleTree(tmp_path, ORDERS, Layout.STREAMING), list[str]()
    walk = LineReader(log, say=said.append)
    assert walk.take(1000) is not None
    log.files[-1].stale = True
    log.refused.add("20260505/9")
    append(path, line(8, [event(2)]))
    for _ in range(3):
        walk.look_again()
        with pytest.raises(OSError, match=r"[Ss]tale"):
            walk.take(1000)
    append(hour_file(tmp_path, "20260505/10", Layout.STREAMING), line(9, [event(3)]))
    walk.look_again()
    span = walk.take(1000)
    assert span is not None
    assert span.file == "20260505/10"
    assert walk.take(1000) is None, "what the node writes now can be read"
    assert len(said) == 1
    assert "20260505/9 cannot be read" in said[0]
    log.refused.clear()
    walk.look_again()
    span = walk.take(1000)
    assert span is not None
    assert (span.file, span.data, span.late) == ("20260505/9", line(8, [event(2)]), True)
    walk.close()


@pytest.mark.parametrize("time_s", [1.0, 4e9])
def test_late_lines_are_read_whatever_times_the_files_and_the_clock_say(tmp_path: Path, time_s: float) -> None:
    old, new = (hour_file(tmp_path, name, Layout.STREAMING) for name in ("20260505/9", "20260505/10"))
    append(old, line(7, [event(1)]))
    append(new, line(9, [event(3)]))
    os.utime(old, (time_s, time_s))
    now = [0.0]
    walk = LineReader(tree(tmp_path, Layout.STREAMING), at_head(tree(tmp_path, Layout.STREAMING)).places,
                now_ms=lambda: int(time_s * 1000), monotonic_s=lambda: now[0])  # fmt: skip
    assert walk.take(1000) is None
    for _ in range(7):
        now[0] += GRACE_S / 2  # it keeps growing: each time it is waited for anew
        append(old, line(8, [event(2)]))
        os.utime(old, (time_s, time_s))
        span = walk.take(10_000)
        assert span is not None
        assert (span.file, span.late) == ("20260505/9", True)
    walk.close()


def test_who_has_an_end_to_reach_waits_for_an_older_file_that_fails(tmp_path: Path) -> None:
    """Else a client would hear that what lies between is gone."""
    old, new = (hour_file(tmp_path, name, Layout.STREAMING) for name in ("20260505/9", "20260505/10"))
    append(old, line(7, [event(1)]))
    append(new, line(9, [event(3)]))
    log = StaleTree(tmp_path, ORDERS, Layout.STREAMING)
    until = at_head(log)
    walk = LineReader(log, say=lambda _: None)
    span = walk.take(1000, until)
    assert span is not None
    assert span.file == "20260505/9"
    append(old, line(8, [event(2)]))
    until = at_head(log)
    for file in log.files:
        file.stale = True
    log.refused.add("20260505/9")
    span = walk.take(1000, until)
    assert span is not None
    assert span.file == "20260505/10"
    with pytest.raises(OSError, match=r"[Ss]tale"):
        walk.take(1000, until)
    log.refused.clear()
    span = walk.take(1000, until)
    assert span is not None
    assert span.data == line(8, [event(2)])
    walk.close()


@pytest.mark.parametrize("how", ["opens and cannot be read", "is a FIFO"])
def test_new_hours_are_read_while_an_old_file_opens_and_is_no_use(tmp_path: Path, how: str) -> None:
    path = hour_file(tmp_path, "20260505/9", Layout.STREAMING)
    append(path, line(7, [event(1)]))
    log, said = StaleTree(tmp_path, ORDERS, Layout.STREAMING), list[str]()
    walk = LineReader(log, say=said.append)
    assert walk.take(1000) is not None
    append(path, line(8, [event(2)]))
    log.files[-1].stale = True
    if how == "is a FIFO":
        path.unlink()
        os.mkfifo(path)
    else:
        log.unreadable.add("20260505/9")
    append(hour_file(tmp_path, "20260505/10", Layout.STREAMING), line(9, [event(3)]))
    walk.look_again()
    span = walk.take(1000)
    assert span is not None
    assert span.file == "20260505/10"
    assert len(said) == 1
    assert "20260505/9 cannot be read" in said[0]
    walk.close()


def test_a_file_that_grew_again_is_found_also_where_a_line_at_the_old_place_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_module, "LINE_BYTES", 4096)
    path = hour_file(tmp_path, "20260505/9", Layout.STREAMING)
    append(path, line(7, [event(1)]))
    walk = LineReader(tree(tmp_path, Layout.STREAMING), say=lambda _: None)
    assert walk.take(1000) is not None
    size_bytes = path.stat().st_size
    os.truncate(path, 0)
    append(path, line(8, [event(2)]) + b"x" * (size_bytes + 20_000) + b"\n")
    span = walk.take(1000)
    assert span is not None
    assert (span.data, span.anew) == (line(8, [event(2)]), True)
    walk.close()


@pytest.mark.parametrize(
    ("before", "after", "grown"),
    [
        (("20260505/9", 10), ("20260505/9", 11), True),
        (("20260505/9", 10), ("20260505/10", 1), True),
        (None, ("20260505/9", 1), True),
        (("20260505/9", 10), ("20260505/8", 99), False),  # the newest one was pruned
        (("20260505/9", 10), ("20260505/9", 5), False),
        (("20260505/9", 10), None, False),
    ],
)
def test_a_layout_that_is_pruned_is_not_one_that_is_written(
    before: tuple[str, int] | None, after: tuple[str, int] | None, *, grown: bool
) -> None:
    assert stalls._has_grown(before, after) is grown


def test_a_directory_that_is_away_says_nothing_of_other_layouts(tmp_path: Path) -> None:
    assert stalls._ends(tree(tmp_path / "data", Layout.STREAMING)) is None
    (tmp_path / "data").mkdir()
    assert stalls._ends(tree(tmp_path / "data", Layout.STREAMING)) is None
    append(hour_file(tmp_path / "data", "20260505/9", Layout.STREAMING), line(7, [event(1)]))
    assert stalls._ends(tree(tmp_path / "data", Layout.STREAMING)) == {}
