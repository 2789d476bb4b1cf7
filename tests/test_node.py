"""What a node writes: cutting lines, decoding three layouts, statuses, times."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.node.events import Decoder, Need
from hyperwatch.node.keys import OrderKeys, OrderPart
from hyperwatch.node.lines import chunks, first_lines, pieces
from hyperwatch.node.runs import RUN_BYTES, Run
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
    runs = decoded(layout, lines_of(layout, blocks)).runs

    assert [bytes(raw) for run in runs for raw in run.events] == [event for _, events in blocks for event in events]
    assert [key.coin for run in runs for key in run.keys] == ["BTC", "BTC", "xyz:SP500"]
    assert {run.time_ms for run in runs} == {TIME_MS}


def test_a_run_is_one_block_and_its_end_is_a_place_in_the_file() -> None:
    first, second, third = line(7, [event(1)]), line(7, [event(2)]), line(8, [event(3)])
    runs = decoded(Layout.STREAMING, first + second + third, offset=100).runs

    assert [(run.block, len(run.events)) for run in runs] == [(7, 2), (8, 1)]
    assert [run.end for run in runs] == [100 + len(first + second), 100 + len(first + second + third)]


def test_a_block_without_events_is_known() -> None:
    (run,) = decoded(Layout.BY_BLOCK, line(7, [])).runs

    assert (run.block, run.events) == (7, [])


def test_a_block_that_is_too_long_for_a_message_is_several_runs() -> None:
    events = [event(number, cloid="0x" + "0" * 100_000) for number in range(20)]
    data = line(7, events)
    runs = decoded(Layout.BY_BLOCK, data, offset=50).runs

    assert [bytes(raw) for run in runs for raw in run.events] == events
    assert all(run.size_bytes <= RUN_BYTES for run in runs)
    assert [run.skipped for run in runs] == [0, 9, 18]
    assert [(run.end, run.taken) for run in runs] == [(50, 9), (50, 18), (50 + len(data), 0)]


def test_events_that_were_taken_before_are_left_out() -> None:
    runs = decoded(Layout.BY_BLOCK, line(7, [event(1), event(2), event(3)]) + line(8, [event(4)]), skip=2).runs

    assert [[bytes(raw) for raw in run.events] for run in runs] == [[event(3)], [event(4)]]
    assert runs[0].skipped == 2


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

    (damage,) = decoder.damage
    assert (damage.offset, damage.length_bytes) == (10 + len(good), len(bad) + 1)
    assert damage.data == bad + b"\n"
    assert damage.reason
    assert sum(len(run.events) for run in decoder.runs) == 2
    assert decoder.lines == 3


@pytest.mark.parametrize("need", Need)
@pytest.mark.parametrize("odd", [b"{}", b"5", b'"\x7f"', b"null", b'{"user":null,"status":5,"order":[]}'])
def test_an_event_that_cannot_be_routed_is_an_event_all_the_same(odd: bytes, need: Need) -> None:
    decoder = Decoder(ORDERS, Layout.BY_BLOCK, 0, need=need)
    decoder.feed(line(7, [event(1), odd, event(2)]))

    (run,) = decoder.runs
    assert not decoder.damage
    assert [bytes(each) for each in run.events] == [event(1), odd, event(2)]
    assert [key.coin for key in run.keys] == ["BTC", "", "BTC"]
    assert run.keys[1] is ORDERS.nothing
    assert run.unrouted == [1]
    assert run.part(1, 3, 0).unrouted == [0]


@given(odd=st.sets(st.integers(0, 299)), steps=st.integers(0, 3), start=st.integers(0, 299), stop=st.integers(0, 300))
def test_keys_are_those_of_the_events_however_far_they_were_read(
    odd: set[int], steps: int, start: int, stop: int
) -> None:
    events = [b"{}" if number in odd else event(number, coin=f"C{number}") for number in range(300)]
    (run,) = decoded(Layout.BY_BLOCK, line(7, events)).runs
    for _ in itertools.islice(run.read_keys(), steps):
        pass
    part = run.part(start, stop, 0)

    assert [key.coin for key in run.keys] == ["" if number in odd else f"C{number}" for number in range(300)]
    assert run.unrouted == sorted(odd)
    assert [key.coin for key in part.keys] == [key.coin for key in run.keys[start:stop]]
    assert part.unrouted == [number for number, key in enumerate(run.keys[start:stop]) if key is ORDERS.nothing]


def test_keys_that_others_read_meanwhile_are_not_read_twice() -> None:
    (run,) = decoded(Layout.BY_BLOCK, line(7, [event(number, coin=f"C{number}") for number in range(300)])).runs
    steps = run.read_keys()
    next(steps)
    whole = [*run.keys]

    assert [*steps] == []
    assert run.keys == whole
    assert len(whole) == 300


@pytest.mark.parametrize("layout", list(Layout))
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=3))
def test_events_that_were_put_together_are_the_same_ones(layout: Layout, sizes: list[int]) -> None:
    blocks = [[event(number) for number in range(size)] for size in sizes]
    data = lines_of(layout, [*enumerate(blocks, 7)])
    apart, together = (Decoder(ORDERS, layout, 0, need=each) for each in (Need.EACH, Need.TOGETHER))
    apart.feed(data)
    together.feed(data)

    assert [bytes(raw) for run in together.runs for raw in run.events] == [raw for events in blocks for raw in events]
    assert [run.texts for run in together.runs] == [run.texts for run in apart.runs]
    assert [run.keys for run in together.runs] == [run.keys for run in apart.runs]


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

    for cut, uncut in zip(each.runs, few.runs, strict=True):
        assert uncut.keys == cut.keys
        for some in wanted:
            positions = sorted(position for position in some if position < cut.count)
            assert [*map(bytes, uncut.some(positions))] == [bytes(cut.events[position]) for position in positions]
        assert [*map(bytes, uncut.events)] == [*map(bytes, cut.events)]
        assert (uncut.block, uncut.time, uncut.written, uncut.count) == (cut.block, cut.time, cut.written, cut.count)
        assert (uncut.size_bytes, uncut.end) == (cut.size_bytes, cut.end)


@pytest.mark.parametrize("need", Need)
def test_what_was_read_can_be_read_again_from_anywhere_however_deep_it_is(need: Need) -> None:
    def below(frames: int, run: Run) -> list[bytes]:
        return below(frames - 1, run) if frames else [bytes(each) for each in (*run.some([1]), *run.events)]

    decoded = 0
    for depth in range(850, 1_000):
        deep = event(2, deep=0).replace(b'"deep":0', b'"deep":' + b"[" * depth + b"]" * depth)
        decoder = Decoder(ORDERS, Layout.STREAMING, 0, need=need)
        decoder.feed(lines_of(Layout.STREAMING, [(7, [*(event(number) for number in range(9)), deep])]))
        for run in decoder.runs:
            assert below(30, run)[0] == event(1)
            decoded += run.count

    assert decoded >= 9 * 150


def test_what_few_want_is_cut_out_alone_and_what_many_want_at_once() -> None:
    decoder = Decoder(ORDERS, Layout.STREAMING, 0, need=Need.FEW)
    decoder.feed(lines_of(Layout.STREAMING, [(7, [event(number) for number in range(100)])]))
    (run,) = decoder.runs

    alone = run.some([5])[0]
    assert run.some([5])[0] is not alone
    run.some(range(30))
    assert run.some([5])[0] is run.events[5]


@pytest.mark.parametrize("keyed", [True, False])
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=3), odd=st.sets(st.integers(0, 599)))
def test_a_run_that_has_settled_says_the_same_as_before(keyed: bool, sizes: list[int], odd: set[int]) -> None:
    numbers = iter(range(sum(sizes)))
    blocks = [
        [b"{}" if (n := next(numbers)) in odd else event(n, coin=f"C{n % 3}") for _ in range(size)] for size in sizes
    ]
    (run,) = decoded(Layout.STREAMING, b"".join(line(7, events) for events in blocks)).runs
    before = (
        [bytes(each) for each in run.events],
        [key.coin for key in run.keys],
        run.unrouted,
        Counter(run.coin_counts),
    )

    run.settle(keyed=keyed)

    assert len(run.routes.keys) == (run.count if keyed else 0)
    assert before == (
        [bytes(each) for each in run.events],
        [key.coin for key in run.keys],
        run.unrouted,
        run.coin_counts,
    )
    assert b",".join(run.texts) == b",".join(event for events in blocks for event in events)
    assert run.count == sum(sizes)


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
    assert [(each.offset, each.length_bytes) for each in together.damage] == [
        (each.offset, each.length_bytes) for each in alone.damage
    ]
    assert together.lines == alone.lines


def places(decoder: Decoder) -> list[tuple[int | None, bytes, object]]:
    return [
        (run.block, bytes(event), keys)
        for run in decoder.runs
        for event, keys in zip(run.events, run.keys, strict=True)
    ]


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("cut", [1, 30, 200, 400])
def test_a_whole_line_behind_a_torn_one_is_delivered(layout: Layout, cut: int) -> None:
    torn, whole = lines_of(layout, [(7, [event(1)])])[:cut], lines_of(layout, [(8, [event(2)])])
    decoder = decoded(layout, torn + whole + lines_of(layout, [(9, [event(3)])]), offset=5)

    (damage,) = decoder.damage
    assert (damage.offset, damage.data, damage.run) == (5, torn, 0)
    assert "torn" in damage.reason
    assert [bytes(raw) for run in decoder.runs for raw in run.events] == [event(2), event(3)]
    if layout is not Layout.PLAIN:  # there the next event has the same time: one run
        assert decoder.runs[0].end == 5 + len(torn + whole)


def test_an_event_is_not_taken_for_the_line_behind_a_tear() -> None:
    cut = line(7, [event(1), event(2)])[:-10]
    decoder = decoded(Layout.BY_BLOCK, cut + b"\n")

    assert decoder.runs == []
    assert decoder.damage[0].data == cut + b"\n"


def test_unknown_statuses_and_unknown_fields_survive() -> None:
    odd = event(1, status="frozenByTheMoon", newKey={"a": [1.50, 1e3]}).replace(b'"hash"', b'"newer":0.10,"hash"')
    (run,) = decoded(Layout.STREAMING, line(7, [odd])).runs

    assert [bytes(raw) for raw in run.events] == [odd]


@needs_samples
def test_both_recordings_of_the_same_blocks_have_the_same_events() -> None:
    def events(layout: Layout, name: str) -> list[tuple[int | None, bytes]]:
        runs = decoded(layout, sample(name)).runs
        return [(run.block, bytes(raw)) for run in runs for raw in run.events]

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
        assert decoder.damage == []
        assert sum(len(run.events) for run in decoder.runs) == sum(
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
