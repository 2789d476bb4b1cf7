"""What a node writes: cutting lines, decoding three layouts, statuses, times."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.node.cuts import chunks, first_lines, pieces
from hyperwatch.node.decoder import Decoder, Need
from hyperwatch.node.json_lines import again
from hyperwatch.node.keys import OrderKeys, OrderPart
from hyperwatch.node.slices import RUN_BYTES, BlockSlice
from hyperwatch.node.statuses import OFFICIAL, StatusClass, class_of_name, was_live
from hyperwatch.node.streams import DIFFS, FILLS, ORDERS, Layout, hour_name, hour_rank, sniff
from hyperwatch.node.times import iso_of, ms_of
from support import TIME, TIME_MS, event, line, lines_of, needs_samples, sample

some_lines = st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b" ") + b"\n"), min_size=1)


@given(some_lines, st.integers(1, 40))
def test_first_lines_are_as_many_whole_lines_as_asked_for(lines: list[bytes], count: int) -> None:
    data = b"".join(lines)

    assert data[: first_lines(data, count)] == b"".join(lines[:count])


@pytest.mark.parametrize("count", [25_433, 10_000, 5_555])
def test_chunks_equal_workers_and_differ_by_a_line_at_most(count: int) -> None:
    data = b"x" * 99 + b"\n"
    cuts = chunks(data * count, count, 4)

    assert len(cuts) == 4
    assert cuts[0][0] == 0
    assert cuts[-1][1] == 100 * count
    assert all(cut[1] == following[0] for cut, following in itertools.pairwise(cuts))
    sizes = [(end - start) // 100 for start, end in cuts]
    assert max(sizes) - min(sizes) <= 1


def test_a_batch_too_small_to_split_is_one_chunk() -> None:
    assert len(chunks(b"x" * 99 + b"\n", 1, 4)) == 1
    assert len(chunks((b"x" * 99 + b"\n") * 1_001, 1_001, 4)) == 1
    assert len(chunks((b"x" * 99 + b"\n") * 3_000, 3_000, 4)) == 3


def test_a_few_long_lines_are_split_between_workers() -> None:
    data = (b"x" * 1_000_000 + b"\n") * 4

    assert [end - start for start, end in chunks(data, 4, 4)] == [1_000_001] * 4


@given(some_lines, st.integers(1, 8))
def test_chunks_are_equal_to_within_a_line(lines: list[bytes], workers: int) -> None:
    long = [each[:-1] + b"." * 700_000 + b"\n" for each in lines[:4]]
    data = b"".join(long)
    cuts = chunks(data, len(long), workers)
    line_bytes = max(map(len, long))

    assert b"".join(data[start:end] for start, end in cuts) == data
    assert all(data[start:end].endswith(b"\n") for start, end in cuts)
    assert all(end - start <= len(data) / len(cuts) + line_bytes for start, end in cuts)


@given(some_lines, st.integers(1, 50))
def test_pieces_are_whole_lines_and_nothing_is_left_out(lines: list[bytes], size: int) -> None:
    data = b"".join(lines)
    cuts = list(pieces(data, 0, len(data), size))

    assert b"".join(data[start:end] for start, end in cuts) == data
    assert all(data[start:end].endswith(b"\n") for start, end in cuts)


def decoded(layout: Layout, data: bytes, offset: int = 0, skip: int = 0) -> Decoder:
    decoder = Decoder(ORDERS, layout, offset, skip)
    decoder.feed(data)
    return decoder


@pytest.mark.parametrize("layout", list(Layout))
def test_all_layouts_give_the_same_events_as_the_node_wrote_them(layout: Layout) -> None:
    blocks = [(7, [event(1), event(2, status="canceled")]), (8, [event(3, coin="xyz:SP500")])]
    slices = decoded(layout, lines_of(layout, blocks)).slices

    assert [bytes(raw) for slice_ in slices for raw in slice_.events] == [
        event for _, events in blocks for event in events
    ]
    assert [key.coin for slice_ in slices for key in slice_.keys] == ["BTC", "BTC", "xyz:SP500"]
    assert {slice_.time_ms for slice_ in slices} == {TIME_MS}


def test_a_run_is_one_block_and_its_end_is_a_place_in_the_file() -> None:
    first, second, third = line(7, [event(1)]), line(7, [event(2)]), line(8, [event(3)])
    slices = decoded(Layout.STREAMING, first + second + third, offset=100).slices

    assert [(slice_.block, len(slice_.events)) for slice_ in slices] == [(7, 2), (8, 1)]
    assert [slice_.end for slice_ in slices] == [100 + len(first + second), 100 + len(first + second + third)]


def test_a_block_without_events_is_known() -> None:
    (slice_,) = decoded(Layout.BY_BLOCK, line(7, [])).slices

    assert (slice_.block, slice_.events) == (7, [])


def test_a_block_that_is_too_long_for_a_message_is_several_runs() -> None:
    events = [event(number, cloid="0x" + "0" * 100_000) for number in range(20)]
    data = line(7, events)
    slices = decoded(Layout.BY_BLOCK, data, offset=50).slices

    assert [bytes(raw) for slice_ in slices for raw in slice_.events] == events
    assert all(slice_.size_bytes <= RUN_BYTES for slice_ in slices)
    assert [slice_.skipped for slice_ in slices] == [0, 9, 18]
    assert [(slice_.end, slice_.taken) for slice_ in slices] == [(50, 9), (50, 18), (50 + len(data), 0)]


def test_events_that_were_taken_before_are_left_out() -> None:
    slices = decoded(Layout.BY_BLOCK, line(7, [event(1), event(2), event(3)]) + line(8, [event(4)]), skip=2).slices

    assert [[bytes(raw) for raw in slice_.events] for slice_ in slices] == [[event(3)], [event(4)]]
    assert slices[0].skipped == 2


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"not json",
        b"[1,2]",
        b'{"block_number":1}',
        line(7, [event(1)]).rstrip() + b"}",
        line(7, [event(1).replace(b"Alo", b"A\xff\xfe")]).rstrip(),
        line(7, [event(1, triggerCondition="@").replace(b'"@"', b"[" * 100_000 + b"]" * 100_000)]).rstrip(),
        line(9, [event(1)]).replace(b'"2026-05', b'"May').rstrip(),
    ],
    ids=["cut", "words", "list", "envelope", "more", "utf-8", "deep", "time"],
)
def test_a_line_that_cannot_be_read_is_set_aside_with_its_place_and_stops_nothing(bad: bytes) -> None:
    good = line(7, [event(1)])
    decoder = decoded(Layout.STREAMING, good + bad + b"\n" + good, offset=10)

    (unreadable,) = decoder.unreadable
    assert (unreadable.offset, unreadable.length_bytes) == (10 + len(good), len(bad) + 1)
    assert unreadable.data == bad + b"\n"
    assert unreadable.reason
    assert sum(len(slice_.events) for slice_ in decoder.slices) == 2
    assert decoder.lines == 3


@pytest.mark.parametrize("need", Need)
@pytest.mark.parametrize("odd", [b"{}", b"5", b'"\x7f"', b"null", b'{"user":null,"status":5,"order":[]}'])
def test_an_event_that_cannot_be_routed_is_an_event_all_the_same(odd: bytes, need: Need) -> None:
    decoder = Decoder(ORDERS, Layout.BY_BLOCK, 0, need=need)
    decoder.feed(line(7, [event(1), odd, event(2)]))

    (slice_,) = decoder.slices
    assert not decoder.unreadable
    assert [bytes(each) for each in slice_.events] == [event(1), odd, event(2)]
    assert [key.coin for key in slice_.keys] == ["BTC", "", "BTC"]
    assert slice_.keys[1] is ORDERS.nothing
    assert slice_.unkeyed == [1]
    assert slice_.part(1, 3, 0).unkeyed == [0]


@given(odd=st.sets(st.integers(0, 299)), steps=st.integers(0, 3), start=st.integers(0, 299), stop=st.integers(0, 300))
def test_keys_are_those_of_the_events_however_far_they_were_read(
    odd: set[int], steps: int, start: int, stop: int
) -> None:
    events = [b"{}" if number in odd else event(number, coin=f"C{number}") for number in range(300)]
    (slice_,) = decoded(Layout.BY_BLOCK, line(7, events)).slices
    for _ in itertools.islice(slice_.read_keys(), steps):
        pass
    part = slice_.part(start, stop, 0)

    assert [key.coin for key in slice_.keys] == ["" if number in odd else f"C{number}" for number in range(300)]
    assert slice_.unkeyed == sorted(odd)
    assert [key.coin for key in part.keys] == [key.coin for key in slice_.keys[start:stop]]
    assert part.unkeyed == [number for number, key in enumerate(slice_.keys[start:stop]) if key is ORDERS.nothing]


def test_keys_that_others_read_meanwhile_are_not_read_twice() -> None:
    (slice_,) = decoded(Layout.BY_BLOCK, line(7, [event(number, coin=f"C{number}") for number in range(300)])).slices
    steps = slice_.read_keys()
    next(steps)
    whole = [*slice_.keys]

    assert [*steps] == []
    assert slice_.keys == whole
    assert len(whole) == 300


@pytest.mark.parametrize("layout", list(Layout))
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=3))
def test_events_that_were_put_together_are_the_same_ones(layout: Layout, sizes: list[int]) -> None:
    blocks = [[event(number) for number in range(size)] for size in sizes]
    data = lines_of(layout, [*enumerate(blocks, 7)])
    apart, together = (Decoder(ORDERS, layout, 0, need=each) for each in (Need.EACH, Need.TOGETHER))
    apart.feed(data)
    together.feed(data)

    assert [bytes(raw) for slice_ in together.slices for raw in slice_.events] == [
        raw for events in blocks for raw in events
    ]
    assert [slice_.texts for slice_ in together.slices] == [slice_.texts for slice_ in apart.slices]
    assert [slice_.keys for slice_ in together.slices] == [slice_.keys for slice_ in apart.slices]


@pytest.mark.parametrize("layout", list(Layout))
@given(
    blocks=st.lists(st.tuples(st.integers(7, 8), st.integers(1, 9)), min_size=1, max_size=9),
    size_bytes=st.integers(500, 4_000),
    wanted=st.lists(st.sets(st.integers(0, 80)), min_size=1, max_size=3),
)
def test_events_that_were_left_in_their_lines_are_the_same_ones(
    layout: Layout, blocks: list[tuple[int, int]], size_bytes: int, wanted: list[set[int]]
) -> None:
    numbers = itertools.count()
    data = lines_of(layout, [(block, [event(next(numbers)) for _ in range(size)]) for block, size in sorted(blocks)])
    each, few = (Decoder(ORDERS, layout, 0, need=need) for need in (Need.EACH, Need.FEW))
    for start, end in pieces(data, 0, len(data), size_bytes):
        each.feed(data[start:end])
        few.feed(data[start:end])

    for cut, in_lines in zip(each.slices, few.slices, strict=True):
        assert in_lines.keys == cut.keys
        for some in wanted:
            positions = sorted(position for position in some if position < cut.count)
            assert [*map(bytes, in_lines.some(positions))] == [bytes(cut.events[position]) for position in positions]
        assert [*map(bytes, in_lines.events)] == [*map(bytes, cut.events)]
        assert (in_lines.block, in_lines.time, in_lines.written, in_lines.count) == (
            cut.block,
            cut.time,
            cut.written,
            cut.count,
        )
        assert (in_lines.size_bytes, in_lines.end) == (cut.size_bytes, cut.end)


@pytest.mark.parametrize("need", Need)
def test_what_was_read_can_be_read_again_from_anywhere_however_deep_it_is(need: Need) -> None:
    def below(frames: int, slice_: BlockSlice) -> list[bytes]:
        return below(frames - 1, slice_) if frames else [bytes(each) for each in (*slice_.some([1]), *slice_.events)]

    decoded = 0
    for depth in range(850, 1_000):
        deep = event(2, deep=0).replace(b'"deep":0', b'"deep":' + b"[" * depth + b"]" * depth)
        decoder = Decoder(ORDERS, Layout.STREAMING, 0, need=need)
        decoder.feed(lines_of(Layout.STREAMING, [(7, [*(event(number) for number in range(9)), deep])]))
        for slice_ in decoder.slices:
            assert below(30, slice_)[0] == event(1)
            decoded += slice_.count

    assert decoded >= 9 * 150


def test_deep_events_are_read_again_in_six_threads_at_once_and_the_limit_of_the_interpreter_stays() -> None:
    decoder: msgspec.json.Decoder[list[object]] = msgspec.json.Decoder(list[object])

    def read(frames: int, text: bytes) -> list[object]:
        return read(frames - 1, text) if frames else again(decoder, text)

    limit = sys.getrecursionlimit()
    texts = [b"[" * depth + b"]" * depth for depth in (960, 970, 980)]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(partial(read, 40), texts * 40))

    assert all(found)
    assert sys.getrecursionlimit() == limit


def test_what_few_want_is_cut_out_alone_and_what_many_want_at_once() -> None:
    decoder = Decoder(ORDERS, Layout.STREAMING, 0, need=Need.FEW)
    decoder.feed(lines_of(Layout.STREAMING, [(7, [event(number) for number in range(100)])]))
    (slice_,) = decoder.slices

    alone = slice_.some([5])[0]
    assert slice_.some([5])[0] is not alone
    slice_.some(range(30))
    assert slice_.some([5])[0] is slice_.events[5]


@pytest.mark.parametrize("needs_keys", [True, False])
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=3), odd=st.sets(st.integers(0, 599)))
def test_a_run_that_has_settled_says_the_same_as_before(needs_keys: bool, sizes: list[int], odd: set[int]) -> None:
    numbers = iter(range(sum(sizes)))
    blocks = [
        [b"{}" if (n := next(numbers)) in odd else event(n, coin=f"C{n % 3}") for _ in range(size)] for size in sizes
    ]
    (slice_,) = decoded(Layout.STREAMING, b"".join(line(7, events) for events in blocks)).slices
    before = (
        [bytes(each) for each in slice_.events],
        [key.coin for key in slice_.keys],
        slice_.unkeyed,
        Counter(slice_.coin_counts),
    )

    slice_.settle(needs_keys=needs_keys)

    assert len(slice_.routes.keys) == (slice_.count if needs_keys else 0)
    assert before == (
        [bytes(each) for each in slice_.events],
        [key.coin for key in slice_.keys],
        slice_.unkeyed,
        slice_.coin_counts,
    )
    assert b",".join(slice_.texts) == b",".join(event for events in blocks for event in events)
    assert slice_.count == sum(sizes)


DOCUMENTS = [line(7, [event(number)])[:-1] for number in range(3)]
CHILDREN = line(7, [event(9, children=[{"coin": "A"}, {"coin": "B"}])])[:-1]
ODD_LINES = st.sampled_from([
    b"", b"{}", rb'"\u007f"', rb'"\u007F"', b'""', b"null", b",", DOCUMENTS[0] + DOCUMENTS[1], DOCUMENTS[0] + b"," + DOCUMENTS[1],
    DOCUMENTS[0] + b',"\x7f",' + DOCUMENTS[1], DOCUMENTS[0] + rb',"\u007f",' + DOCUMENTS[1], b'"\x7f"', line(7, [b'"\x7f"'])[:-1], line(7, [b"{}"])[:-1], line(7, [event(1).replace(b"user", b"USER")])[:-1],
    CHILDREN.replace(b"},{", b"}\n{"),
])  # fmt: skip


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A line that holds a newline in its middle, or lacks a part."""
    whole = draw(st.sampled_from(DOCUMENTS))
    cut = draw(st.integers(0, len(whole)))
    return whole[:cut] + draw(st.sampled_from([b"\n", b"", b'"', b"\n,"])) + whole[cut + draw(st.integers(0, 9)) :]


@pytest.mark.parametrize("need", Need)
@given(lines=st.lists(st.sampled_from([*DOCUMENTS, CHILDREN]) | broken() | ODD_LINES, min_size=1, max_size=6))
def test_lines_together_are_what_each_of_them_is_alone(need: Need, lines: list[bytes]) -> None:
    piece = b"".join(each + b"\n" for each in lines)
    together, alone = Decoder(ORDERS, Layout.STREAMING, 0, need=need), Decoder(ORDERS, Layout.STREAMING, 0)
    together.feed(piece)
    for each in piece.split(b"\n")[:-1]:
        alone.feed(each + b"\n")

    assert places(together) == places(alone)
    assert [(each.offset, each.length_bytes) for each in together.unreadable] == [
        (each.offset, each.length_bytes) for each in alone.unreadable
    ]
    assert together.lines == alone.lines


def places(decoder: Decoder) -> list[tuple[int | None, bytes, object]]:
    return [
        (slice_.block, bytes(event), keys)
        for slice_ in decoder.slices
        for event, keys in zip(slice_.events, slice_.keys, strict=True)
    ]


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("cut", [1, 30, 200, 400])
def test_a_whole_line_behind_a_torn_one_is_delivered(layout: Layout, cut: int) -> None:
    torn, whole = lines_of(layout, [(7, [event(1)])])[:cut], lines_of(layout, [(8, [event(2)])])
    decoder = decoded(layout, torn + whole + lines_of(layout, [(9, [event(3)])]), offset=5)

    (unreadable,) = decoder.unreadable
    assert (unreadable.offset, unreadable.data, unreadable.slice) == (5, torn, 0)
    assert "torn" in unreadable.reason
    assert [bytes(raw) for slice_ in decoder.slices for raw in slice_.events] == [event(2), event(3)]
    if layout is not Layout.PLAIN:  # there the next event has the same time: one run
        assert decoder.slices[0].end == 5 + len(torn + whole)


def test_an_event_is_not_taken_for_the_line_behind_a_tear() -> None:
    cut = line(7, [event(1), event(2)])[:-10]
    decoder = decoded(Layout.BY_BLOCK, cut + b"\n")

    assert decoder.slices == []
    assert decoder.unreadable[0].data == cut + b"\n"


def test_unknown_statuses_and_unknown_fields_survive() -> None:
    odd = event(1, status="frozenByTheMoon", newKey={"a": [1.50, 1e3]}).replace(b'"hash"', b'"newer":0.10,"hash"')
    (slice_,) = decoded(Layout.STREAMING, line(7, [odd])).slices

    assert [bytes(raw) for raw in slice_.events] == [odd]


@needs_samples
def test_both_recordings_of_the_same_blocks_have_the_same_events() -> None:
    def events(layout: Layout, name: str) -> list[tuple[int | None, bytes]]:
        slices = decoded(layout, sample(name)).slices
        return [(slice_.block, bytes(raw)) for slice_ in slices for raw in slice_.events]

    streaming = events(Layout.STREAMING, "node_order_statuses-streaming-btc51.jsonl.gz")
    by_block = events(Layout.BY_BLOCK, "node_order_statuses-by_block-btc51.jsonl.gz")

    assert len(streaming) == 41_592
    assert streaming == by_block


@needs_samples
@pytest.mark.parametrize("name", ["node_order_statuses", "node_fills", "node_raw_book_diffs"])
def test_every_recorded_line_can_be_read_and_tells_what_it_is(name: str) -> None:
    for layout in (Layout.STREAMING, Layout.BY_BLOCK):
        data = sample(f"{name}-{layout.value[1:]}-btc51.jsonl.gz")
        found = sniff(data.splitlines()[:50])
        assert found is not None
        assert found[0] is not None
        assert (found[0].name, found[1]) == (name, layout)

        decoder = Decoder(found[0], layout, 0)
        decoder.feed(data)
        assert decoder.unreadable == []
        assert sum(len(slice_.events) for slice_ in decoder.slices) == sum(
            len(json.loads(each)["events"]) for each in data.splitlines()
        )


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([event(1)], (ORDERS, Layout.PLAIN)),
        ([line(1, [event(1)])], (ORDERS, Layout.STREAMING)),
        ([line(1, [event(1)]), line(2, [])], (ORDERS, Layout.BY_BLOCK)),
        ([line(1, [])], (None, Layout.BY_BLOCK)),
        ([line(1, [event(1), event(2)]), line(1, [event(3)])], (ORDERS, Layout.STREAMING)),
        ([b'["0xab",{"coin":"BTC","tid":5,"time":1}]'], (FILLS, Layout.PLAIN)),
        ([b'{"user":"0xab","coin":"BTC","oid":5,"raw_book_diff":"remove"}'], (DIFFS, Layout.PLAIN)),
        ([b"hello"], None),
        ([b"{}"], None),
        ([], None),
    ],
)
def test_a_recording_tells_its_stream_and_layout(lines: list[bytes], found: object) -> None:
    assert sniff(lines) == found


def test_hours_are_named_without_padding_and_ordered_by_time() -> None:
    assert hour_name("20260505", "9") == "20260505/9"
    assert hour_name("20260505", "23") == "20260505/23"
    assert [hour_name("20260505", bad) for bad in ("09", "24", "9.lz4", "", "-1")] == [None] * 5
    assert hour_name("2026055", "9") is None
    assert sorted(["20260506/0", "20260505/10", "20260505/9"], key=hour_rank) == [
        "20260505/9",
        "20260505/10",
        "20260506/0",
    ]


def test_the_official_table_is_whole() -> None:
    assert len(OFFICIAL) == 29
    assert {kind: sum(each is kind for each in OFFICIAL.values()) for kind in StatusClass} == {
        StatusClass.LIVE: 2,
        StatusClass.REMOVED: 11,
        StatusClass.REJECTED: 16,
        StatusClass.UNKNOWN: 0,
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("outcomeSettledCanceled", StatusClass.REMOVED),
        ("scheduledCancel", StatusClass.REMOVED),
        ("iocCancelRejected", StatusClass.REJECTED),
        ("tooManyOpenOrdersRejected", StatusClass.REJECTED),
        ("hip3CrossMarginDisabled", StatusClass.UNKNOWN),
        ("", StatusClass.UNKNOWN),
    ],
)
def test_a_status_that_is_not_official_is_classed_by_its_ending(status: str, kind: StatusClass) -> None:
    assert class_of_name(status) is kind


@pytest.mark.parametrize(
    ("order", "live"),
    [
        (OrderPart("BTC", timestamp=TIME_MS), False),
        (OrderPart("BTC", timestamp=TIME_MS - 1), True),
        (OrderPart("BTC", timestamp=TIME_MS, isTrigger=True), True),
        (OrderPart("BTC"), False),
    ],
)
def test_a_rejection_of_an_order_that_was_live_is_known(order: OrderPart, *, live: bool) -> None:
    assert was_live(OrderKeys("0x", "minTradeNtlRejected", order, TIME)) is live


def test_a_time_that_cannot_be_read_does_not_make_an_order_live() -> None:
    assert not was_live(OrderKeys("0x", "oracleRejected", OrderPart("BTC", timestamp=1), "soon"))


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        (TIME, TIME_MS),
        ("2026-05-05T17:39:13", 1778002753000),
        ("2026-05-05T17:39:13.0", 1778002753000),
        ("2026-05-05T17:39:13.024", TIME_MS),
        ("2026-05-05T17:39:13.024999", TIME_MS),
        ("2026-05-05T17:39:13.024084407Z", TIME_MS),
        ("1778002753024", TIME_MS),
        ("", None),
    ],
)
def test_times_have_any_number_of_digits_and_are_cut_to_milliseconds(text: str, ms: int | None) -> None:
    assert ms_of(text) == ms


@pytest.mark.parametrize("text", ["soon", "2026-05-05T17:39:13+02:00", "2026-05-05T17:39:13,5", "2026-13-05T17:39:13"])
def test_what_is_no_time_of_a_node_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text[:4]) + r"|month|format|isoformat"):
        ms_of(text)


def test_times_are_written_for_people() -> None:
    assert iso_of(TIME_MS) == "2026-05-05 17:39:13.024"


def test_the_tests_do_not_need_the_recordings() -> None:
    assert not any(path.suffix == ".gz" for path in Path(__file__).parent.rglob("*"))
