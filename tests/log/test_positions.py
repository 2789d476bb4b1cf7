"""Places in the log."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.errors import CursorError
from hyperwatch.log.positions import Cursor, FilePosition, is_at_or_after
from hyperwatch.node.streams import hour_rank
from hyperwatch.node.times import text_of

naturals = st.integers(0, 2**50)
hours = st.integers(0, 23).map("20260505/{}".format)
places = st.lists(st.builds(FilePosition, hours, naturals, naturals, st.text(max_size=12)), max_size=2).map(tuple)
times = st.just("") | st.integers(1, 10**14 - 1).map(str) | st.integers(1, 10**14 - 1).map(text_of)
cursors = st.builds(Cursor, st.text(max_size=40), places, st.none() | naturals, times, naturals)


@given(cursors)
def test_a_cursor_comes_back_from_a_client_as_it_went(cursor: Cursor) -> None:
    assert Cursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize("text", ["", "x", "äöü", "W10", "WzFd", "{}", "WzEsMiwzLDQsNV0", "A" * 10_000])
def test_a_damaged_cursor_is_an_error_that_says_how_to_go_on(text: str) -> None:
    with pytest.raises(CursorError, match=r"damaged.*earliest"):
        Cursor.decode(text)


@pytest.mark.parametrize(
    "time",
    ["nonsense", "²", "٣" * 14, "9" * 15, "2026-13-05T17:39:13", "2026-05-05T17:39:13.x", "2026-05-05\n", "x" * 41],
)
def test_a_cursor_whose_time_is_none_is_damaged(time: str) -> None:
    with pytest.raises(CursorError, match="damaged"):
        Cursor.decode(Cursor("x", (), 7, time, 1).encode())


def test_a_cursor_of_another_version_is_an_error() -> None:
    text = "Wzk5LCJ4IixbXSxudWxsLCIiLDBd"  # [99,"x",[],null,"",0]
    with pytest.raises(CursorError, match="version 99"):
        Cursor.decode(text)


def at(*files: tuple[str, int, int]) -> Cursor:
    return Cursor("x", tuple(FilePosition(*file) for file in files))


@pytest.mark.parametrize(
    ("later", "earlier", "covered"),
    [
        (at(), at(), True),
        (at(("20260505/9", 5, 0)), at(), True),
        (at(), at(("20260505/9", 5, 0)), False),
        (at(("20260505/9", 5, 0)), at(("20260505/9", 5, 0)), True),
        (at(("20260505/9", 5, 0)), at(("20260505/9", 5, 1)), False),
        (at(("20260505/9", 6, 0)), at(("20260505/9", 5, 1)), True),
        (at(("20260505/10", 0, 0)), at(("20260505/9", 5, 0)), True),
        (at(("20260505/9", 9, 0)), at(("20260505/10", 5, 0)), False),
        (at(("20260505/9", 9, 0)), at(("20260505/10", 0, 0)), False),
        (at(("20260505/9", 9, 0)), at(("20260505/9", 9, 0), ("20260505/10", 0, 0)), True),
        (at(("20260505/9", 9, 0), ("20260505/10", 5, 0)), at(("20260505/9", 9, 0), ("20260505/10", 6, 0)), False),
        (at(("20260505/9", 8, 0), ("20260505/10", 7, 0)), at(("20260505/9", 9, 0), ("20260505/10", 6, 0)), False),
        (at(("20260505/9", 9, 0), ("20260505/10", 7, 0)), at(("20260505/9", 9, 0), ("20260505/10", 6, 0)), True),
    ],
)
def test_a_cursor_covers_what_lies_before_it_in_every_file(*, later: Cursor, earlier: Cursor, covered: bool) -> None:
    assert is_at_or_after(later, earlier, hour_rank) is covered


@pytest.mark.parametrize("block", ["-1", "1" + "0" * 30, "9" * 4000, "9" * 5000, "1e400", "1.5"])
def test_a_cursor_whose_block_no_node_can_have_written_is_damaged(block: str) -> None:
    text = base64.urlsafe_b64encode(f'[1,"node_order_statuses_streaming",[],{block},"",0]'.encode()).rstrip(b"=")
    with pytest.raises(CursorError, match="the cursor is damaged"):
        Cursor.decode(text.decode())
