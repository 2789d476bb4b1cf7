"""What clients say and hear; filters and views. All pure."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.feed.channels.events import Orders, OrderUpdates, gap, position_message
from hyperwatch.feed.filters.orders import OrderFilter, doubtful_coins
from hyperwatch.feed.messages import Message
from hyperwatch.feed.requests.answers import (
    Ping,
    ProtocolError,
    Subscribe,
    Unsubscribe,
    acknowledgement,
    already_subscribed,
    already_unsubscribed,
)
from hyperwatch.feed.requests.nesting import DEPTH, too_deep
from hyperwatch.feed.requests.parse import parse
from hyperwatch.log.batches import MESSAGE_BYTES, Batch, RawBatch, assemble, decode
from hyperwatch.log.dedupe import Deduplicator
from hyperwatch.log.gaps import Gap
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.node.statuses import OFFICIAL
from hyperwatch.node.streams import ORDERS, Layout
from support import TIME_MS, USER, event, line, needs_samples, sample

OTHER = "0x" + "cd" * 20
NO_POSTS = "nothing is posted here: this is a feed, which takes no orders; /info answers some questions over HTTP"


def ask(**subscription: object) -> str:
    return json.dumps({"method": "subscribe", "subscription": subscription})


def batch_of(data: bytes, layout: Layout = Layout.STREAMING, *, late: bool = False) -> Batch:
    directory = ORDERS.directory(layout)
    span = RawBatch("20260505/9", "", 0, data, (FilePosition("20260505/9", 0),), 0, 0, False, late, 1)
    chunk = decode(ORDERS, layout, span, (0, len(data)), lambda: None)
    return assemble(ORDERS, directory, span, [chunk], Deduplicator(Cursor(directory)))


def whole(message: Message, head: bytes = b"") -> dict[str, Any]:
    start = b'{"channel":"%s","data":{"id":"x","seq":1,' % message.channel if message.channel else head
    document: dict[str, Any] = json.loads(start + message.tail)
    return document


# What clients say.


def test_a_ping_is_a_ping_whatever_else_it_carries() -> None:
    assert parse('{"method":"ping"}') == Ping()
    assert parse('{"method":"ping","id":5}') == Ping()


def test_an_orders_subscription_without_filters_is_everything() -> None:
    request = parse(ask(type="orders"))

    assert request == Subscribe(Orders(OrderFilter()), b'{"type": "orders"}')
    assert isinstance(request.channel, Orders)
    assert request.channel.filter.everything


def test_equal_filters_are_one_view_however_they_are_written() -> None:
    first = parse(ask(type="orders", coins=["BTC", "ETH"], users=[USER.upper().replace("X", "x")], statuses=["open"]))
    second = parse(ask(type="orders", users=[USER], statuses=["open", "open"], coins=["ETH", "BTC"], id="other"))

    assert isinstance(first, Subscribe)
    assert isinstance(second, Subscribe)
    assert first.channel == second.channel
    assert hash(first.channel) == hash(second.channel)


def test_the_official_type_tolerates_unknown_keys_and_ours_does_not() -> None:
    assert isinstance(parse(ask(type="orderUpdates", user=USER, dex="x")), Subscribe)
    with pytest.raises(ProtocolError, match="unknown key 'coin', did you mean 'coins'"):
        parse(ask(type="orders", coin="BTC"))


NO_PLACES: list[object] = [
    {}, [], True, {"time": "now"}, {"time": 1.5}, {"time": True}, {"time": -1}, {"time": 10**14}, {"block": 2**53},
    {"block": None}, {"time": 1, "block": 2}, {"hour": 1}, {"time": 10**30},
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says", "code"),
    [
        ("hello", "Error parsing JSON into valid websocket request: JSON is malformed", "bad-json"),
        ("", "Error parsing JSON into valid websocket request: Input data was truncated", "bad-json"),
        ("[" * 100_000, "Error parsing JSON into valid websocket request: ", "bad-json"),
        ('{"a":1}', 'websocket request: {"a":1}: Object missing required field `method`', "bad-request"),
        ('{"method":"post","id":1}', '{"method":"post","id":1}: unknown method', "unknown-method"),
        ('{"method":"subscribe"}', '{"method":"subscribe"}: a subscription is missing', "bad-request"),
        ('{"method":"subscribe","subscription":7}', "Invalid subscription: no type", "invalid-subscription"),
        (
            ask(type="l2Book", coin="BTC"),
            "'l2Book' is not served here; orders, fills, bookDiffs, orderUpdates",
            "unknown-type",
        ),
        (ask(type="orders", coins="BTC"), "coins must be a list of strings", "invalid-subscription"),
        (ask(type="orders", coins=["BTC", 5]), "coins must be a list of strings", "invalid-subscription"),
        (ask(type="orders", coins=[]), "coins is empty, which no event matches", "invalid-subscription"),
        (ask(type="orders", coins=["B*"]), "'B*' is no coin: a star stands alone", "invalid-subscription"),
        (ask(type="orders", users=["0x12"]), "'0x12' is no address: 0x and 40 hex digits", "invalid-subscription"),
        (ask(type="orders", sides=["buy"]), "'buy' is no side: B (bid) and A (ask)", "invalid-subscription"),
        (ask(type="orders", id=5), "id must be a string", "invalid-subscription"),
        (ask(type="orders", id=""), "id has 0 characters: 1 to 64", "invalid-subscription"),
        (ask(type="orders", id="x" * 65), "id has 65 characters: 1 to 64", "invalid-subscription"),
        (ask(type="orders", compress="br"), "compress must be 'zstd' or 'gzip'", "invalid-subscription"),
        (ask(type="orders", compress=["zstd"]), "compress must be 'zstd' or 'gzip'", "invalid-subscription"),
        (ask(type="orders", **{"from": 5}), 'from must be a cursor, "earliest", an object', "invalid-subscription"),
        *(
            (ask(type="orders", **{"from": start_point}), "from must be a cursor", "invalid-subscription")
            for start_point in NO_PLACES
        ),
        (ask(type="orders", **{"from": "yesterday"}), "the cursor is damaged", "bad-cursor"),
        (ask(type="orders", **{"a{b}c": 5}), "unknown key 'a(b)c'; the keys are type, coins", "invalid-subscription"),
        (ask(type="orderUpdates"), "missing required field `user`", "invalid-subscription"),
        (ask(type="orderUpdates", user="me"), "'me' is no address", "invalid-subscription"),
    ],
)
def test_a_bad_message_gets_an_error_that_says_what_to_do(text: str, says: str, code: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(text)
    answer = json.loads(caught.value.message())

    assert answer["channel"] == "error"
    assert says in answer["data"]
    assert answer["code"] == code
    # Clients take what is between the first and the last brace for the request.
    found = re.search(r"{.*}", answer["data"], re.DOTALL)
    assert found is None or isinstance(json.loads(found[0]), dict)


@pytest.mark.parametrize(
    ("subscription", "says"),
    [
        ({"type": "trades", "coin": "*"}, "'*' is no coin: trades are of one coin; fills takes coins with a star"),
        ({"type": "trades", "coin": "xyz:*"}, "'xyz:*' is no coin"),
        ({"type": "trades", "coin": ""}, "'' is no coin"),
        ({"type": "trades", "coin": "BTC", "from": "earliest"}, "and takes no from; fills does"),
        ({"type": "userFills", "user": USER, "from": None}, "takes no from; fills does"),
        ({"type": "orderUpdates", "user": USER, "from": {"time": 5}}, "takes no from; orders does"),
        ({"type": "orderUpdates", "user": "*"}, "'*' is no address"),
        ({"type": "l2Book", "coin": "BTC"}, "'l2Book' is not served here; orders, fills, bookDiffs, orderUpdates"),
        ({"type": "candle", "coin": "BTC", "interval": "1m"}, "'candle' is not served here"),
        ({"type": "allMids"}, "'allMids' is not served here"),
    ],
)  # fmt: skip
def test_an_official_subscription_that_cannot_be_is_an_error_that_costs_no_other(
    subscription: dict[str, object], says: str
) -> None:
    """Clients that end all that they wait for at an error look for these words, and wait for the second answer."""
    with pytest.raises(ProtocolError) as caught:
        parse(ask(**subscription))
    error, ended = map(json.loads, caught.value.answers())
    assert error["channel"] == "error"
    assert error["data"].startswith(f"Invalid subscription {json.dumps(subscription)}: ")
    assert says in error["data"]
    assert error["data"].endswith(". Already subscribed ones go on")
    assert ended == {
        "channel": "subscriptionResponse", "data": {"method": "unsubscribe", "subscription": subscription},
    }  # fmt: skip


def test_an_error_about_a_type_of_our_own_is_one_answer() -> None:
    for text in (ask(type="orders", coin="BTC"), ask(type="fills", users=["me"]), ask(), ask(type=5), "nonsense"):
        with pytest.raises(ProtocolError) as caught:
            parse(text)
        assert len(caught.value.answers()) == 1
    assert len(already_subscribed(b'{"type":"trades","coin":"BTC"}').answers()) == 1
    assert len(already_unsubscribed(b'{"type":"trades","coin":"BTC"}').answers()) == 2


def test_what_does_nothing_in_an_official_type_is_a_warning() -> None:
    request = parse(ask(type="orderUpdates", user=USER, coin="BTC", compress="zstd", aggregateByTime=True, dex="x"))
    assert isinstance(request, Subscribe)
    assert request.warnings == (
        "'coin' does nothing here: orders has filters", "'compress' does nothing here: orders has filters",
    )  # fmt: skip
    plain = parse(ask(type="userFills", user=USER, aggregateByTime=True))
    assert isinstance(plain, Subscribe)
    assert plain.warnings == ()
    assert isinstance(
        parse('{"method":"unsubscribe","subscription":{"type":"trades","coin":"BTC","from":5}}'), Unsubscribe
    )


@pytest.mark.parametrize(
    ("post", "response"),
    [
        ({"type": "action", "payload": {}}, {"type": "action", "payload": {"status": "err", "response": NO_POSTS}}),
        ({"type": "info", "payload": {}}, {"type": "error", "payload": NO_POSTS}),
    ],
)
def test_a_post_is_refused_as_the_official_api_does_it_by_its_number(post: object, response: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(json.dumps({"method": "post", "id": 7, "request": post}))
    (answer,) = map(json.loads, caught.value.answers())
    assert answer == {"channel": "post", "data": {"id": 7, "response": response}, "code": "unknown-method"}


def test_an_error_names_the_subscription_it_is_about() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(ask(type="orders", id="mine", sides=["?"]))
    assert json.loads(caught.value.message())["id"] == "mine"


def test_an_error_does_not_send_a_megabyte_back() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(ask(type="orders", coin="x" * 1_000_000))
    assert len(caught.value.message()) < 1_000


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)) | st.binary())  # fmt: skip
def test_no_message_of_a_client_raises_anything_but_a_protocol_error(value: object) -> None:
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else json.dumps(value)]
    texts += [json.dumps({"method": "subscribe", "subscription": value})] if not isinstance(value, bytes) else []
    texts += [ask(type="orders", coins=value, users=value, id=value)] if not isinstance(value, bytes) else []
    for text in texts:
        try:
            parse(text)
        except ProtocolError as error:
            json.loads(error.message())


NESTED = [
    "%s",
    '{"method":%s}',
    '{"method":"auth","token":%s}',
    '{"method":"subscribe","subscription":%s}',
    '{"method":"subscribe","subscription":{"type":%s}}',
    '{"method":"subscribe","subscription":{"type":"trades","coin":"BTC","x":%s}}',
    '{"method":"subscribe","subscription":{"type":"orders","from":%s}}',
    '{"method":"unsubscribe","subscription":{"type":"orders","filters":[{"x":%s}]}}',
]


@pytest.mark.parametrize("request_", NESTED)
def test_no_depth_of_nesting_is_more_than_an_error(request_: str) -> None:
    """What a parser bears depends on the stack above it: all around its limit are tried."""
    for depth in (100, *range(900, 1100), 30_000):
        for snapshot, closing in ("[]", ('{"a":', "}")):
            with pytest.raises(ProtocolError) as caught:
                parse(request_ % (snapshot * depth + "1" + closing * depth))
            answer = json.loads(caught.value.message())
            assert answer["code"] == "bad-json"
            assert answer["data"].endswith("lists and objects are nested more than 64 deep")


def test_depth_is_counted_outside_of_strings_only() -> None:
    start_point = json.dumps({"method": "ping", "x": ['[{"' * 500 + "\\", "]" * 100, {"[[": "\\"}]})
    assert parse(start_point) == Ping()
    assert parse(f'{{"method":"ping","x":{"[" * 63 + "]" * 63}}}') == Ping()
    assert parse(f'{{"method":"ping","x":[{",".join(["[{}]"] * 1000)}]}}') == Ping()
    for deep in ("[" * 64 + "]" * 64, '["]\\"]",' * 64 + "1" + "]" * 64):
        with pytest.raises(ProtocolError, match="nested more than 64 deep"):
            parse(f'{{"method":"ping","x":{deep}}}')


LEAVES = st.none() | st.integers(0, 9) | st.text('[]{}"\\,', max_size=8)


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner)),
       st.integers(0, 70))  # fmt: skip
def test_the_depth_of_json_is_told_as_its_parser_finds_it(inner: object, around: int) -> None:
    value = inner
    for number in range(around):
        value = [value, "["] if number % 2 else {"}": value, "x": []}

    def depth(value: object) -> int:
        if not isinstance(value, dict | list):
            return 0
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)

    assert too_deep(json.dumps(value).encode()) is (depth(value) > DEPTH)


def test_numbers_and_words_of_any_length_are_no_more_than_an_error() -> None:
    answers = []
    for odd in (
        "1e400",
        "-1e400",
        "9" * 4300,
        "9" * 4301,
        "9" * 20_000,
        "1e-400",
        '"%s"' % ("x" * 500_000),
        r'"\ud800"',
    ):
        for key in ("coins", "users", "id", "from", "minPx", "oids", "coin", "user", "type", "filters", "compress"):
            for value in (odd, f"[{odd}]", f'{{"time":{odd}}}', f'[{{"oids":[{odd}]}}]'):
                for kind in ("orders", "fills", "trades", "userFills"):
                    try:
                        parse(f'{{"method":"subscribe","subscription":{{"type":"{kind}","{key}":{value}}}}}')
                    except ProtocolError as error:
                        answers.append(len(error.message()))
    assert len(answers) > 1000
    assert max(answers) < 20_000


def test_unsubscribe_takes_the_id_or_an_equal_subscription() -> None:
    by_id = parse('{"method":"unsubscribe","subscription":{"type":"orders","id":"mine"}}')
    equal = parse('{"method":"unsubscribe","subscription":{"type":"orders","coins":["BTC"]}}')

    assert isinstance(by_id, Unsubscribe)
    assert by_id.id == "mine"
    assert isinstance(equal, Unsubscribe)
    assert equal.channel == Orders(OrderFilter.of(coins=["BTC"]))


def test_a_doubtful_status_is_a_warning() -> None:
    request = parse(ask(type="orders", statuses=["opne", "live", "canceled", "newlyCanceled"]))

    assert isinstance(request, Subscribe)
    assert request.warnings == ("no status 'opne' is known; did you mean 'open'?",)


def test_a_coin_never_seen_or_in_the_wrong_case_is_a_warning() -> None:
    wanted = OrderFilter.of(coins=["btc", "ETH", "XYZ"])

    assert doubtful_coins(wanted.coins, frozenset(["BTC", "ETH"]), "order") == [
        "no order of 'XYZ' was seen lately",
        "no order of 'btc' was seen lately; did you mean 'BTC'? Case matters",
    ]
    assert doubtful_coins(wanted.coins, frozenset(), "order") == []


def test_an_acknowledgement_echoes_every_key_and_tells_id_and_cursor() -> None:
    echo = b'{"type":"orders","coins":["BTC"], "x" : 1.50}'
    answer = acknowledgement("subscribe", echo, id="7", cursor="abc", warnings=["w"])

    assert json.loads(answer) == {
        "channel": "subscriptionResponse",
        "data": {"method": "subscribe", "subscription": {"type": "orders", "coins": ["BTC"], "x": 1.5, "id": "7"}},
        "cursor": "abc",
        "warnings": ["w"],
    }
    assert b'"x" : 1.50' in answer
    assert json.loads(acknowledgement("subscribe", b'{"type":"orders","id":"a"}', id="a"))["data"]["subscription"] == {
        "type": "orders",
        "id": "a",
    }
    assert json.loads(already_subscribed(b'{"a":1}').message())["data"] == 'Already subscribed: {"a":1}'


# Views.


def test_a_message_holds_the_nodes_bytes_and_the_place_of_each_event() -> None:
    events = [event(1, limitPx="0.10"), event(2, coin="ETH"), event(3)]
    (entry,) = batch_of(b"".join(line(7, [each]) for each in events)).entries
    (everything,) = Orders(OrderFilter()).messages(entry)
    (some,) = Orders(OrderFilter.of(coins=["BTC"])).messages(entry)

    assert b",".join(events) in everything.tail
    data = whole(everything)["data"]
    assert (data["blockNumber"], data["blockTime"], data["index"]) == (7, TIME_MS, 0)
    assert Cursor.decode(data["cursor"]) == entry.after
    assert whole(some)["data"]["index"] == [0, 2]
    assert whole(some)["data"]["events"] == [json.loads(events[0]), json.loads(events[2])]
    assert not Orders(OrderFilter.of(coins=["XRP"])).messages(entry)


def test_id_and_seq_come_first_and_all_bytes_after_them_are_shared() -> None:
    (entry,) = batch_of(line(7, [event(1)])).entries
    (message,) = Orders(OrderFilter()).messages(entry)

    assert message.tail.startswith(b'"cursor":"')
    assert list(whole(message)["data"]) == ["id", "seq", "cursor", "blockNumber", "blockTime", "index", "events"]


def test_late_lines_say_so() -> None:
    (entry,) = batch_of(line(7, [event(1)]), late=True).entries
    (message,) = Orders(OrderFilter()).messages(entry)

    assert whole(message)["data"]["late"] is True


def test_messages_never_mix_blocks_and_stay_under_the_default_limit_of_clients() -> None:
    events = [event(number, cloid="0x" + "0" * 100_000) for number in range(25)]
    entries = batch_of(line(7, events) + line(8, events), Layout.BY_BLOCK).entries
    messages = [whole(message) for entry in entries for message in Orders(OrderFilter()).messages(entry)]

    assert len(messages) > 2
    assert [len(json.dumps(message)) < 2**20 for message in messages] == [True] * len(messages)
    for block in (7, 8):
        mine = [message["data"] for message in messages if message["data"]["blockNumber"] == block]
        assert [each for data in mine for each in data["events"]] == [json.loads(each) for each in events]
        assert [data["index"] for data in mine] == [0, 9, 18]


def test_so_do_messages_of_very_small_events() -> None:
    entries = batch_of(line(7, [b"{}"] * 500_000), Layout.BY_BLOCK).entries
    messages = [message for entry in entries for message in Orders(OrderFilter()).messages(entry)]

    assert sum(message.tail.count(b"{}") for message in messages) == 500_000
    assert max(len(message.tail) for message in messages) < MESSAGE_BYTES


def test_an_event_too_large_for_a_message_is_a_gap_that_names_its_place() -> None:
    huge = event(1, cloid="0x" + "0" * MESSAGE_BYTES)
    first, second = batch_of(line(7, [event(0), huge]), Layout.BY_BLOCK).entries
    (small,) = Orders(OrderFilter()).messages(first)
    (message,) = Orders(OrderFilter()).messages(second)

    assert small.channel == b"orders"
    data = whole(message)
    assert data["channel"] == "gap"
    assert data["data"]["from"] == {"block": 7, "time": TIME_MS, "index": 1}
    assert data["data"]["readable"] is True
    assert data["data"]["reason"] == "event-too-large"


def test_where_a_subscription_stands_is_told_with_the_nodes_and_our_times() -> None:
    (entry,) = batch_of(line(7, [event(1)])).entries

    live = whole(position_message("live", entry.after, entry))
    assert live["channel"] == "live"
    assert (live["data"]["blockNumber"], live["data"]["writeTime"], live["data"]["readTime"]) == (7, 1778002753500, 1)
    nothing = whole(position_message("cursor", Cursor("x"), None))
    assert (nothing["data"]["blockNumber"], nothing["data"]["writeTime"]) == (None, None)


def test_a_gap_names_both_ends() -> None:
    message = whole(gap(Gap("node_order_statuses", "unreadable", Cursor("x", (), 7, "", 3), Cursor("x", (), 9, "", 0))))

    assert message["data"]["from"] == {"block": 7, "time": None, "index": 3}
    assert message["data"]["to"] == {"block": 9, "time": None, "index": 0}


def test_order_updates_have_the_official_shape() -> None:
    mine = [event(1, cloid="0x" + "0" * 32), event(2, status="canceled")]
    (entry,) = batch_of(line(7, [mine[0], event(9, user=OTHER), mine[1]]), Layout.BY_BLOCK).entries
    (message,) = OrderUpdates(USER).messages(entry)

    assert whole(message) == {
        "channel": "orderUpdates",
        "data": [
            {"order": {"coin": "BTC", "side": "B", "limitPx": "65045.0", "sz": "0.0003", "oid": 1, "timestamp": TIME_MS,
                       "origSz": "0.0003", "cloid": "0x" + "0" * 32}, "status": "open", "statusTimestamp": TIME_MS},
            {"order": {"coin": "BTC", "side": "B", "limitPx": "65045.0", "sz": "0.0003", "oid": 2, "timestamp": TIME_MS,
                       "origSz": "0.0003"}, "status": "canceled", "statusTimestamp": TIME_MS},
        ],
        "user": USER,
    }  # fmt: skip


def test_an_update_whose_status_is_not_official_travels_alone() -> None:
    statuses = ["open", "newThing", "canceled", "filled", "newThing", "newThing"]
    (entry,) = batch_of(
        line(7, [event(number, status=status) for number, status in enumerate(statuses)]), Layout.BY_BLOCK
    ).entries
    messages = [whole(message) for message in OrderUpdates(USER).messages(entry)]

    assert [[update["status"] for update in message["data"]] for message in messages] == [
        ["open"], ["newThing"], ["canceled", "filled"], ["newThing"], ["newThing"],
    ]  # fmt: skip


def test_an_order_that_lacks_a_field_is_still_delivered() -> None:
    odd = event(1).replace(b'"sz":"0.0003",', b"").replace(b"2026-05-05T17:39:13.024084407", b"soon")
    (entry,) = batch_of(line(7, [odd])).entries
    (message,) = OrderUpdates(USER).messages(entry)

    (update,) = whole(message)["data"]
    assert "sz" not in update["order"]
    assert update["statusTimestamp"] == TIME_MS


@needs_samples
def test_every_recorded_event_is_in_the_views_that_want_it() -> None:
    batch = batch_of(sample("node_order_statuses-by_block-btc51.jsonl.gz"), Layout.BY_BLOCK)
    raws = [bytes(raw) for entry in batch.entries for raw in entry.slice.events]
    rejected = OrderFilter.of(statuses=["rejected"])
    others = OrderFilter.of(not_statuses=["rejected"])

    def count(channel: Orders) -> int:
        return sum(len(whole(m)["data"]["events"]) for entry in batch.entries for m in channel.messages(entry))

    assert count(Orders(OrderFilter())) == len(raws) == 41_592
    assert count(Orders(rejected)) + count(Orders(others)) == 41_592
    assert count(Orders(others)) == sum(b'Rejected"' not in raw for raw in raws)
    users = {key.user for entry in batch.entries for key in entry.slice.keys}
    updates = sum(
        len(msgspec.json.decode(m.tail)["data"])
        for user in users
        for e in batch.entries
        for m in OrderUpdates(user).messages(e)
    )
    assert updates == 41_592
    assert {key.status for entry in batch.entries for key in entry.slice.keys} <= OFFICIAL.keys()  # type: ignore[attr-defined]  # keys of orders
