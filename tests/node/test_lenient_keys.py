"""Lines that are not quite a node's: a key of an unexpected type, envelopes that others re-wrote, numbers of any length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.cli.main import program
from hyperwatch.derive.trades import OpenFills
from hyperwatch.errors import CursorError
from hyperwatch.feed.channels.events import Orders, OrderUpdates
from hyperwatch.feed.channels.trades import Trades, UserFills, paired
from hyperwatch.feed.filters.orders import OrderFilter
from hyperwatch.feed.routing import positions_for
from hyperwatch.ingest.counters import Counters
from hyperwatch.log.batches import Batch, RawBatch, assemble
from hyperwatch.log.dedupe import Deduplicator
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.node.decoder import Decoder, Need
from hyperwatch.node.streams import DIFFS, FILLS, ORDERS, Layout, Stream, sniff
from hyperwatch.node.times import ms_of
from support import TIME, TIME_MS, USER, append, diff, event, fill, hour_file, line, lines_of

BOM = b"\xef\xbb\xbf"
LONG = "1" * 4000


def decoded(stream: Stream, layout: Layout, data: bytes, need: Need = Need.EACH) -> Decoder:
    decoder = Decoder(stream, layout, 0, need=need)
    decoder.feed(data)
    return decoder


def batch_of(stream: Stream, layout: Layout, data: bytes, need: Need = Need.EACH) -> Batch:
    """What the head makes of some lines."""
    decoder = decoded(stream, layout, data, need)
    places = (FilePosition("20260505/9", 0),)
    span = RawBatch("20260505/9", "", 0, data, places, 0, 0, anew=False, late=False, read_ms=TIME_MS)
    return assemble(stream, stream.directory(layout), span, [decoder], Deduplicator(Cursor("")))  # type: ignore[list-item]  # has all of it


def changed(whole: bytes, path: tuple[str | int, ...], value: bytes) -> bytes:
    """The event with one key of another value."""
    document: Any = json.loads(whole)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = "?here?"
    return json.dumps(document, separators=(",", ":")).encode().replace(b'"?here?"', value)


ORDER_PATHS: list[tuple[str | int, ...]] = [
    ("time",), ("user",), ("status",), ("order",), ("order", "coin"), ("order", "side"), ("order", "timestamp"),
    ("order", "isTrigger"), ("order", "oid"), ("order", "children"), ("hash",),
]  # fmt: skip
FILL_PATHS: list[tuple[str | int, ...]] = [
    (0,), (1,), (1, "coin"), (1, "tid"), (1, "time"), (1, "side"), (1, "crossed"), (1, "px"), (1, "hash"),
]  # fmt: skip
DIFF_PATHS: list[tuple[str | int, ...]] = [("user",), ("coin",), ("oid",), ("raw_book_diff",)]
KINDS = [
    *((ORDERS, event(7), path) for path in ORDER_PATHS),
    *((FILLS, fill(7), path) for path in FILL_PATHS),
    *((DIFFS, diff(7), path) for path in DIFF_PATHS),
]
VALUES = st.sampled_from([
    b"null", b"true", b"1.5", b'"text"', b'"1778002753024"', b"[]", b"{}", b"-1", LONG.encode(), b'"%s"' % LONG.encode(), b"1e400", b"18446744073709551616", b"[" * 400 + b"]" * 400, b'""',
]) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=5,
).map(lambda value: json.dumps(value).encode())  # fmt: skip


def consumed(stream: Stream, batch: Batch) -> None:
    """Asks of a batch what clients and counters ask."""
    counters, held = Counters(), OpenFills()
    counters.read(batch, 1)
    for entry in batch.entries:
        assert Cursor.decode(entry.after.encode()) == entry.after
        assert entry.slice.unkeyed is not None
        if stream is ORDERS:
            OrderUpdates(USER).messages(entry)
            Orders(OrderFilter.of(statuses=["removed"], not_statuses=["open"], sides=["B"])).messages(entry)
        if stream is FILLS:
            whole, made = paired(entry, held)
            held = made.after
            Trades("BTC").messages(whole)
            UserFills(USER).messages(whole)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("need", Need)
@given(kind=st.sampled_from(KINDS), value=VALUES)
def test_one_key_of_an_unexpected_type_hides_none_of_the_others(
    layout: Layout, need: Need, kind: tuple[Stream, bytes, tuple[str | int, ...]], value: bytes
) -> None:
    stream, whole, path = kind
    odd = changed(whole, path, value)
    batch = batch_of(stream, layout, lines_of(layout, [(7, [whole, odd, whole])]), need)
    slices = [entry.slice for entry in batch.entries]
    events = [bytes(raw) for slice_ in slices for raw in slice_.events]

    if batch.unreadable:  # a time that can be read and that no node can have written there, such as the year 1970
        assert (layout, path[-1]) == (Layout.PLAIN, "time")
        assert "cannot follow" in batch.unreadable[0].reason
        return
    assert events == [whole, odd, whole]
    if path[-1] not in ("coin", "order", 1):
        assert sum(len(positions_for(slice_, frozenset(["BTC"]), (), None)) for slice_ in slices) == 3
    if path[-1] not in ("user", 0):
        assert sum(len(positions_for(slice_, None, (), frozenset([USER]))) for slice_ in slices) == 3
    if stream is ORDERS and path[-1] != "status":
        assert sum(len(OrderFilter.of(statuses=["open"]).select(slice_)) for slice_ in slices) == 3
    consumed(stream, batch)


@pytest.mark.parametrize("need", Need)
def test_accounts_are_found_however_their_letters_are_written(need: Need) -> None:
    upper = event(1, user="0x" + "AB" * 20)
    (slice_,) = decoded(ORDERS, Layout.STREAMING, line(7, [event(0)]) + line(7, [upper]), need).slices

    assert [*OrderFilter.of(users=[USER]).select(slice_)] == [0, 1]


def test_a_fill_without_a_tid_pairs_with_nobody_and_is_counted() -> None:
    odd = [changed(fill(5, side), (1, "tid"), b"null") for side in "AB"]
    (entry,) = batch_of(FILLS, Layout.STREAMING, lines_of(Layout.STREAMING, [(7, odd)])).entries
    _, made = paired(entry, OpenFills())

    assert (made.trades, made.one_sided, made.after.halves) == ((), 2, ())


def test_an_update_without_a_status_or_an_order_is_left_out_and_the_others_are_sent() -> None:
    odd = [changed(event(1), ("status",), b"null"), changed(event(2), ("order",), b"null"), event(3)]
    (entry,) = batch_of(ORDERS, Layout.BY_BLOCK, line(7, odd)).entries
    (message,) = OrderUpdates(USER).messages(entry)

    assert [each["order"]["oid"] for each in json.loads(message.tail)["data"]] == [3]


def test_a_plain_event_without_a_time_has_that_of_the_line_before() -> None:
    odd = changed(event(2), ("time",), b"5")
    batch = batch_of(ORDERS, Layout.PLAIN, lines_of(Layout.PLAIN, [(0, [odd, event(1), odd, event(3)])]))

    assert [(entry.slice.time_ms, entry.first_index, entry.slice.count) for entry in batch.entries] == [
        (None, 0, 1), (TIME_MS, 0, 3),
    ]  # fmt: skip
    assert batch.repeated == 0
    assert batch.after.time == TIME


@given(kind=st.sampled_from([fill(1), event(1), diff(1)]))
def test_a_recording_tells_what_it_is_whatever_became_of_one_key(kind: bytes) -> None:
    stream, path = {b"[": (FILLS, (1, "tid")), b'{"t': (ORDERS, ("order", "side")), b'{"u': (DIFFS, ("oid",))}[
        kind[:1] if kind[:1] == b"[" else kind[:3]
    ]
    odd = changed(kind, path, b"null")  # type: ignore[arg-type]  # both kinds of step

    assert sniff([odd]) == (stream, Layout.PLAIN)
    assert sniff([b"", BOM + line(7, [odd])]) == (stream, Layout.STREAMING)


# Envelopes.


def envelope(**keys: object) -> bytes:
    head = {"local_time": "2026-05-05T17:39:13.5", "block_time": TIME, "block_number": 7, **keys}
    kept = {name: value for name, value in head.items() if value != "absent"}
    return json.dumps(kept)[:-1].encode() + b', "events":[' + event(1) + b"]}\n"


@pytest.mark.parametrize(
    "keys",
    [
        {"local_time": "absent"}, {"local_time": None}, {"local_time": int(LONG)}, {"local_time": LONG},
        {"block_time": TIME + "+00:00"}, {"block_time": TIME + "Z"}, {"block_time": TIME_MS}, {"block_time": str(TIME_MS)},
        {"block_time": TIME_MS * 1000 + 84}, {"block_time": TIME_MS * 1_000_000 + 84_407}, {"block_number": "7"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("layout", [Layout.STREAMING, Layout.BY_BLOCK])
@pytest.mark.parametrize("need", Need)
def test_an_envelope_that_others_rewrote_is_read_where_it_is_unambiguous(
    keys: dict[str, object], layout: Layout, need: Need
) -> None:
    odd = envelope(**keys)
    decoder = decoded(ORDERS, layout, line(7, [event(0)]) + odd + line(8, [event(2)]), need)

    assert not decoder.unreadable
    assert [bytes(raw) for slice_ in decoder.slices for raw in slice_.events] == [event(0), event(1), event(2)]
    assert {slice_.time_ms for slice_ in decoder.slices} == {TIME_MS}
    assert [slice_.block for slice_ in decoder.slices] in ([7, 8], [7, 7, 8])
    assert sniff([odd]) == (ORDERS, Layout.STREAMING)


def test_seconds_since_1970_are_a_time_too() -> None:
    (slice_,) = decoded(ORDERS, Layout.STREAMING, envelope(block_time=TIME_MS // 1000, local_time=None)).slices

    assert (slice_.time_ms, slice_.written, slice_.written_ms) == (TIME_MS // 1000 * 1000, "", None)


@pytest.mark.parametrize(
    "keys",
    [
        *({"block_number": bad} for bad in (None, -1, 7.5, 2**53, int(LONG), LONG, "seven")),
        *({"block_time": bad} for bad in (None, "absent", -1, 5, int(LONG), LONG, TIME + LONG, "9999-01-01T00:00:00")),
    ],
    ids=lambda keys: str(keys)[:40],
)  # fmt: skip
@pytest.mark.parametrize("need", Need)
def test_a_line_without_a_block_that_can_be_said_is_set_aside_and_ends_nothing(
    keys: dict[str, object], need: Need
) -> None:
    decoder = decoded(ORDERS, Layout.STREAMING, line(7, [event(0)]) + envelope(**keys) + line(8, [event(2)]), need)

    assert [unreadable.offset for unreadable in decoder.unreadable] == [len(line(7, [event(0)]))]
    assert [slice_.block for slice_ in decoder.slices] == [7, 8]


@pytest.mark.parametrize(
    "text", [LONG, "９" * 13, "9" * 15, TIME + "0" * 40, "9999-01-01T00:00:00", "1969-12-31T23:59:59"]
)
def test_a_time_of_any_length_is_an_error_and_no_huge_number(text: str) -> None:
    with pytest.raises(ValueError, match="no time of a node"):
        ms_of(text)


def test_a_block_of_any_number_of_digits_in_a_cursor_is_a_damaged_cursor() -> None:
    with pytest.raises(CursorError):
        Cursor.decode(Cursor("node_order_statuses_streaming", block=int("9" * 4300)).encode())


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_bom_and_blank_lines_are_no_damage_and_positions_stay_right(layout: Layout, end: bytes) -> None:
    first, second = (each + end for each in lines_of(layout, [(7, [event(1)]), (8, [event(2)])]).split(b"\n")[:-1])
    decoder = decoded(ORDERS, layout, BOM + first + end + b" \n" + second + end)

    assert not decoder.unreadable
    assert [bytes(raw) for slice_ in decoder.slices for raw in slice_.events] == [event(1), event(2)]
    assert decoder.slices[-1].end == len(BOM + first + end + b" \n" + second)


def test_lines_that_do_not_say_when_they_were_written_are_null_in_flat_output_and_said_once(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, BOM + envelope(local_time=None) + b"\n" + envelope(local_time="absent") + envelope())
    program(["replay", str(path), "--format", "flat"], standalone_mode=False)
    written = capfdbinary.readouterr()

    assert [json.loads(each)["local_time"] for each in written.out.splitlines()] == [
        None, None, "2026-05-05T17:39:13.5",
    ]  # fmt: skip
    assert b"0 unreadable lines" in written.err
    assert b"2 without a local time" in written.err
    assert written.err.count(b"a local_time that can be read") == 1


def test_latencies_leave_out_lines_that_do_not_say_when_they_were_written() -> None:
    counters = Counters()
    counters.read(batch_of(ORDERS, Layout.STREAMING, envelope(local_time=None) + envelope(local_time=LONG)), 1)

    assert sum(counters.write_to_read.counts) == sum(counters.block_to_write.counts) == 0
