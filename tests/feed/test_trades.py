"""Two fills make a trade: pairing, the official messages made of it, and the real recordings."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.derive.trades import HELD, HOLD_MS, OpenFills, PairedTrades, pair
from hyperwatch.feed.channels.events import BookDiffs, Fills
from hyperwatch.feed.channels.trades import TradePairing, Trades, UserFills, paired
from hyperwatch.feed.filters.coins_users import CoinUserFilter
from hyperwatch.ingest.counters import Counters
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Batch
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Recording, Tree
from hyperwatch.node.decoder import Decoder
from hyperwatch.node.keys import FillKeys
from hyperwatch.node.streams import DIFFS, FILLS, Layout, Stream
from hyperwatch.simulate.hour_files import simulate
from hyperwatch.simulate.model import Faults
from support import SAMPLES, TIME_MS, USER, append, events_of, fill, hour_file, line, needs_samples, sample

SELLER = "0x" + "cd" * 20
BLOCK_MS = 67


def keys(raw: bytes) -> FillKeys:
    return cast("FillKeys", FILLS.keys.decode(raw))


@attrs.frozen
class Piece:
    """Fills that were read together, of one block."""

    block: int
    fills: tuple[bytes, ...]

    def pair(self, held: OpenFills) -> PairedTrades:
        decoder = Decoder(FILLS, Layout.BY_BLOCK, 0)
        time = b"2026-05-05T17:39:%02d.%03d" % divmod(13_024 + self.block * BLOCK_MS, 1000)
        data = line(self.block, self.fills).replace(b"2026-05-05T17:39:13.024084407", time)
        decoder.feed(data)
        (slice_,) = decoder.slices
        return pair(held, slice_, cast("list[FillKeys]", slice_.keys))


def played(pieces: list[Piece]) -> tuple[list[tuple[str, str, int | None]], int, OpenFills]:
    """((buyer, seller, tid) of every trade, how many fills were given up, what still waits)."""
    held, trades, one_sided = OpenFills(), [], 0
    for piece in pieces:
        made = piece.pair(held)
        held, one_sided = made.after, one_sided + made.one_sided
        trades += [(trade.buyer, trade.seller, trade.taker.tid) for trade in made.trades]
    return trades, one_sided, held


# Pairing.


@pytest.mark.parametrize("first", ["A", "B"])
def test_opposite_sides_of_a_block_coin_and_tid_are_a_trade_whichever_comes_first(first: str) -> None:
    fills = [fill(1, "B", user=USER), fill(1, "A", user=SELLER)]
    if first == "A":
        fills.reverse()
    assert played([Piece(7, tuple(fills))]) == ([(USER, SELLER, 1)], 0, OpenFills((), TIME_MS + 7 * BLOCK_MS))


def test_a_trade_is_told_from_the_side_that_crossed() -> None:
    fills = (
        fill(1, "A", user=SELLER, crossed=False, hash="0x1"),
        fill(1, "B", user=USER, crossed=True, px="1.50", hash="0x2"),
    )
    (trade,) = Piece(7, fills).pair(OpenFills()).trades

    assert (trade.taker.side, bytes(trade.taker.px), bytes(trade.taker.hash)) == ("B", b'"1.50"', b'"0x2"')


@pytest.mark.parametrize("other", [{"tid": 2}, {"coin": "ETH"}, {"side": "B"}, {"side": "?"}])
def test_another_tid_coin_or_the_same_side_is_no_other_side(other: dict[str, Any]) -> None:
    trades, _, held = played([Piece(7, (fill(1, "B"), fill(**{"tid": 1, "side": "A", **other})))])

    assert trades == []
    assert len(held.halves) == 2


def test_fills_of_no_known_side_are_never_paired() -> None:
    assert played([Piece(7, (fill(1, "?"), fill(1, "?")))])[0] == []


def test_another_block_is_no_other_side() -> None:
    assert played([Piece(7, (fill(1, "B"),)), Piece(8, (fill(1, "A"),))])[0] == []


def test_fills_of_one_key_are_paired_first_in_first_out() -> None:
    users = ["0x" + f"{number:040x}" for number in range(4)]
    sides = [("B", users[0]), ("B", users[1]), ("A", users[2]), ("A", users[3])]
    trades, _, _ = played([Piece(7, tuple(fill(1, side, user=user) for side, user in sides))])

    assert trades == [(users[0], users[2], 1), (users[1], users[3], 1)]


def test_a_fill_waits_for_its_other_side_over_reads_until_the_log_has_gone_on_by_a_second() -> None:
    blocks = HOLD_MS // BLOCK_MS
    late = [Piece(7, (fill(1, "B"),)), Piece(7 + blocks, (fill(9),)), Piece(7, (fill(1, "A"),))]
    too_late = [Piece(7, (fill(1, "B"),)), Piece(8 + blocks, (fill(9),)), Piece(7, (fill(1, "A"),))]

    assert played(late)[:2] == ([(USER, USER, 1)], 0)
    assert played(too_late)[:2] == ([], 1)


def test_lines_that_come_late_are_paired_as_any_others() -> None:
    trades, _, _ = played([Piece(500, (fill(9),)), Piece(7, (fill(1, "B"),)), Piece(7, (fill(1, "A"),))])

    assert trades == [(USER, USER, 1)]


def test_of_fills_that_wait_the_oldest_are_given_up_beyond_a_bound() -> None:
    trades, one_sided, held = played([Piece(7, tuple(fill(number) for number in range(HELD + 10)))])

    assert (trades, one_sided, len(held.halves)) == ([], 10, HELD)
    assert held.halves[0].fill.fill.tid == 10


def test_what_waits_holds_nothing_of_the_bytes_that_were_read() -> None:
    data = line(7, [fill(1, padding="x" * 1_000_000)])
    tracemalloc.start()
    try:
        decoder = Decoder(FILLS, Layout.BY_BLOCK, 0)
        decoder.feed(data)
        held = pair(OpenFills(), decoder.slices[0], cast("list[FillKeys]", decoder.slices[0].keys)).after
        reading_bytes, _ = tracemalloc.get_traced_memory()
        del decoder
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(held.halves) == 1
    assert reading_bytes > 1_000_000
    assert held_bytes < 100_000


fills_of_a_block = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("AB"), st.sampled_from(["BTC", "ETH"])), max_size=20
)


def expected_trades(blocks: list[list[tuple[int, str, str]]]) -> Counter[tuple[str, str, int]]:
    """By the rule's own words, over each whole block."""
    trades: Counter[tuple[str, str, int]] = Counter()
    for block, fills in enumerate(blocks):
        waiting: dict[tuple[int, str, str], deque[str]] = defaultdict(deque)
        for number, (tid, side, coin) in enumerate(fills):
            user = f"0x{block:020x}{number:020x}"
            if others := waiting[(tid, coin, "A" if side == "B" else "B")]:
                other = others.popleft()
                trades[(user, other, tid) if side == "B" else (other, user, tid)] += 1
            else:
                waiting[(tid, coin, side)].append(user)
    return trades


@given(st.lists(fills_of_a_block, max_size=6), st.data())
def test_however_fills_are_cut_into_reads_the_trades_are_the_same(
    blocks: list[list[tuple[int, str, str]]], data: st.DataObject
) -> None:
    pieces = []
    for block, fills in enumerate(blocks):
        raws = [
            fill(tid, side, coin=coin, user=f"0x{block:020x}{number:020x}")
            for number, (tid, side, coin) in enumerate(fills)
        ]
        cuts = sorted(data.draw(st.sets(st.integers(0, len(raws)))) | {0, len(raws)})
        pieces += [Piece(block, tuple(raws[start:end])) for start, end in itertools.pairwise(cuts)]
    trades, one_sided, held = played(pieces)

    assert Counter(trades) == expected_trades(blocks)
    assert 2 * len(trades) + one_sided + len(held.halves) == sum(map(len, blocks))


# Messages.


def batch_of(root: Path, data: bytes, layout: Layout = Layout.STREAMING, stream: Stream = FILLS) -> Batch:
    append(hour_file(root, "20260505/9", layout, stream), data)
    reader = BatchReader(Tree(root, stream, layout), Cursor(stream.directory(layout)))
    batch = reader.next(None, lambda: None)
    reader.close()
    assert batch is not None
    return batch


def test_trades_are_official_one_coin_a_message_with_the_nodes_own_strings(tmp_path: Path) -> None:
    sides = [("B", USER, True), ("A", SELLER, False)]
    raws = [
        fill(tid, side, user=user, crossed=crossed, coin=coin, px="81308.00", sz="1e-5")
        for tid, coin in ((1, "BTC"), (2, "ETH"), (3, "BTC"))
        for side, user, crossed in sides
    ]
    batch = TradePairing(Counters()).complete(batch_of(tmp_path, line(7, raws)))
    messages = [message for entry in batch.entries for message in Trades("BTC").messages(entry)]

    assert [message.channel for message in messages] == [b""]
    said = json.loads(messages[0].tail)
    trade = {
        "coin": "BTC", "side": "B", "px": "81308.00", "sz": "1e-5", "time": TIME_MS, "hash": "0x" + "1f" * 32,
        "tid": 1, "users": [USER, SELLER],
    }  # fmt: skip
    assert said == {"channel": "trades", "data": [trade, {**trade, "tid": 3}]}
    assert list(said["data"][0]) == list(trade)
    assert not [message for entry in batch.entries for message in Trades("btc").messages(entry)]


def test_user_fills_begin_with_an_empty_snapshot_and_go_on_with_the_nodes_own_objects(tmp_path: Path) -> None:
    mine, other = fill(1, "B", user=USER, px="1.50"), fill(1, "A", user=SELLER)
    (entry,) = batch_of(tmp_path, line(7, [other, mine, mine])).entries
    (snapshot,) = UserFills(USER).snapshot
    (message,) = UserFills(USER).messages(entry)

    assert json.loads(snapshot.tail) == {
        "channel": "userFills",
        "data": {"isSnapshot": True, "user": USER, "fills": []},
    }
    body = mine[mine.index(b"{") : -1]
    assert message.tail == b'{"channel":"userFills","data":{"user":"%s","fills":[%s,%s]}}' % (USER.encode(), body, body)
    assert not UserFills("0x" + "ee" * 20).messages(entry)


def test_a_fill_without_another_side_is_in_user_fills_and_never_in_trades_and_is_counted(tmp_path: Path) -> None:
    late = line(900, [fill(5)]).replace(b"17:39:13.024084407", b"17:39:15.024084407")
    batch = batch_of(tmp_path, line(7, [fill(1), fill(2), fill(2, "A")]) + late)
    counters = Counters()
    pairing = TradePairing(counters)
    entries = pairing.complete(batch).entries

    assert (counters.trades, counters.one_sided) == (1, 1)
    assert [trade.taker.tid for entry in entries if entry.paired for trade in entry.paired.trades] == [2]
    (message,) = UserFills(USER).messages(entries[0])
    assert [each["tid"] for each in json.loads(message.tail)["data"]["fills"]] == [1, 2, 2]


def test_from_any_place_the_trades_behind_it_are_complete_with_what_was_held_there(tmp_path: Path) -> None:
    raws = [fill(number // 2, "AB"[number % 2]) for number in range(20)]
    entries = TradePairing(Counters()).complete(batch_of(tmp_path, line(7, raws[:9]) + line(8, raws[9:]))).entries
    for number, entry in enumerate(entries):
        assert entry.paired is not None
        assert paired(entry, entry.paired.before)[1].trades == entry.paired.trades
        assert number == 0 or entry.paired.before == entries[number - 1].paired.after  # type: ignore[union-attr]


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("faults", [Faults(), Faults(torn=True, late_file=True, late_lines=True, restart_every=15)])
def test_of_the_simulated_market_every_fill_is_half_a_trade(tmp_path: Path, layout: Layout, faults: Faults) -> None:
    start_ns = 1_778_003_998_000_000_000  # two seconds before an hour's end
    simulate(tmp_path, layouts=(layout,), streams=(FILLS,), rate=0, blocks=60, seed=3, start_ns=start_ns, faults=faults)
    counters = Counters()
    pairing = TradePairing(counters)
    fills = sum(pairing.complete(batch).events for batch in batches_of(Tree(tmp_path, FILLS, layout)))

    assert fills > 100
    assert (2 * counters.trades, counters.one_sided) == (fills, 0)


# The real recordings.


def batches_of(log: Recording | Tree) -> list[Batch]:
    reader = BatchReader(log, Cursor(log.stream.directory(log.layout)))
    batches = []
    while batch := reader.next(None, lambda: None):
        batches.append(batch)
    reader.close()
    return batches


def recording(stream: Stream, layout: Layout) -> list[Batch]:
    name = f"{stream.name}-{layout.value.removeprefix('_')}-btc51.jsonl.gz"
    return batches_of(Recording([SAMPLES / name], stream, layout))


def trades_of(batches: list[Batch]) -> list[dict[str, Any]]:
    counters = Counters()
    pairing = TradePairing(counters)
    messages = [
        message
        for batch in batches
        for entry in pairing.complete(batch).entries
        for message in Trades("BTC").messages(entry)
    ]
    assert counters.one_sided == 0
    return [trade for message in messages for trade in json.loads(message.tail)["data"]]


def plain(stream: Stream) -> bytes:
    """The recording's bare events, as the plain layout would have them."""
    name = f"{stream.name}-by_block-btc51.jsonl.gz"
    rows = map(json.loads, sample(name).splitlines())
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for row in rows for each in row["events"])


@needs_samples
def test_the_trades_of_all_layouts_of_the_recording_agree_and_each_is_two_of_its_fills(tmp_path: Path) -> None:
    streaming, by_block = (trades_of(recording(FILLS, layout)) for layout in (Layout.STREAMING, Layout.BY_BLOCK))
    bare = trades_of([batch_of(tmp_path, plain(FILLS), Layout.PLAIN)])
    assert streaming == by_block == bare
    assert len(streaming) == 11

    fills = [json.loads(raw) for _, _, raw in events_of(recording(FILLS, Layout.STREAMING))]
    halves = Counter((trade["tid"], user) for trade in streaming for user in trade["users"])
    assert halves == Counter((each["tid"], user) for user, each in fills)
    for trade in streaming:
        two = {each["side"]: (user, each) for user, each in fills if each["tid"] == trade["tid"]}
        (taker,) = (each for _, each in two.values() if each["crossed"])
        assert trade["users"] == [two["B"][0], two["A"][0]]
        assert {key: trade[key] for key in trade if key != "users"} == {
            key: taker[key] for key in ("coin", "side", "px", "sz", "time", "hash", "tid")
        }


@needs_samples
@pytest.mark.parametrize(("stream", "count"), [(FILLS, 22), (DIFFS, 1332)])
def test_every_event_of_the_recordings_is_once_in_its_stream_with_one_name_in_both_layouts(
    stream: Stream, count: int
) -> None:
    channel = (Fills if stream is FILLS else BookDiffs)(CoinUserFilter())
    named = []
    for layout in (Layout.STREAMING, Layout.BY_BLOCK):
        batches = recording(stream, layout)
        heard = [
            json.loads(b'{"channel":"%s","data":{' % message.channel + message.tail)
            for batch in batches
            for entry in batch.entries
            for message in channel.messages(entry)
        ]
        assert {message["channel"] for message in heard} == {"fills" if stream is FILLS else "bookDiffs"}
        events = [
            (message["data"]["blockNumber"], message["data"]["index"] + place, each)
            for message in heard
            for place, each in enumerate(message["data"]["events"])
        ]
        assert [each for _, _, each in events] == [json.loads(raw) for _, _, raw in events_of(batches)]
        named.append(events)
    assert named[0] == named[1]
    assert len(named[0]) == count
