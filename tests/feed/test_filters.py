"""Filters of `orders`: what each key means, several at once, and no order loses its end."""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hyperwatch.cli.main import program
from hyperwatch.feed.channels.events import Orders
from hyperwatch.feed.filters.coins_users import Filter
from hyperwatch.feed.filters.order_details import OrderConditions
from hyperwatch.feed.filters.orders import AnyOf, OrderFilter, doubtful_coins
from hyperwatch.feed.requests.answers import ProtocolError, Subscribe, Unsubscribe
from hyperwatch.feed.requests.parse import parse
from hyperwatch.node.decoder import Decoder
from hyperwatch.node.slices import BlockSlice, Raw
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.simulate.market import Market
from support import (
    SAMPLES,
    TIME_MS,
    USER,
    append,
    connected,
    event,
    hour_file,
    line,
    lines_of,
    needs_samples,
    running,
    sample,
)

OTHER = "0x" + "cd" * 20
CLOID = "0x" + "0f" * 16
KEYS = "coins, users, statuses, notStatuses, sides, minNotional, minPx, maxPx, tifs, orderTypes, oids, cloids, builders"
STOP = {"triggerCondition": "Price above 70000", "isTrigger": True, "triggerPx": "70000.0", "orderType": "Stop Market",
        "tif": None}  # fmt: skip


def ask(**subscription: object) -> str:
    return json.dumps({"method": "subscribe", "subscription": {"type": "orders", **subscription}})


def unask(**subscription: object) -> str:
    return json.dumps({"method": "unsubscribe", "subscription": {"type": "orders", **subscription}})


def view_of(**subscription: object) -> Orders:
    request = parse(ask(**subscription))
    assert isinstance(request, Subscribe)
    assert isinstance(request.channel, Orders)
    return request.channel


def filter_of(**subscription: object) -> Filter:
    return view_of(**subscription).filter


def run_of(events: Iterable[bytes]) -> BlockSlice:
    """Events as the feed meets them."""
    decoder = Decoder(ORDERS, Layout.BY_BLOCK, 0)
    decoder.feed(line(1, events))
    assert not decoder.unreadable
    whole = decoder.slices[0]
    for slice_ in decoder.slices[1:]:  # of a long line
        whole.add(slice_.events, slice_.routes)
    return whole


def refusal(**subscription: object) -> str:
    with pytest.raises(ProtocolError) as caught:
        parse(ask(**subscription))
    answer = json.loads(caught.value.message())
    assert answer["code"] == "invalid-subscription"
    said: str = answer["data"].removeprefix("Invalid subscription")
    if said.startswith(" {"):  # the client's own words, where they are not too long to be said again
        said = said[json.JSONDecoder().raw_decode(said, 1)[1] :]
    return said.removeprefix(": ")


# What each key means.


@pytest.mark.parametrize(
    ("words", "said", "wanted"),
    [
        ({}, {}, True),
        ({"coins": ["BTC"]}, {}, True),
        ({"coins": ["btc"]}, {}, False),
        ({"coins": ["*"]}, {"coin": "anything"}, True),
        ({"coins": ["xyz:*", "ETH"]}, {"coin": "xyz:SP500"}, True),
        ({"coins": ["xyz:*", "ETH"]}, {"coin": "ETH"}, True),
        ({"coins": ["xyz:*", "ETH"]}, {"coin": "abc:SP500"}, False),
        ({"users": [OTHER, USER.upper()]}, {}, True),
        ({"users": [OTHER]}, {}, False),
        ({"sides": ["B"]}, {"side": "Bid"}, True),
        ({"sides": ["A"]}, {"side": "B"}, False),
        ({"statuses": ["open"]}, {}, True),
        ({"statuses": ["rejected"]}, {"status": "badAloPxRejected"}, True),
        ({"statuses": ["removed", "open"]}, {"status": "canceled"}, True),
        ({"statuses": ["unknown"]}, {"status": "newThing"}, True),
        ({"notStatuses": ["rejected"]}, {"status": "badAloPxRejected"}, False),
        ({"notStatuses": ["rejected"]}, {"status": "newThing"}, True),
        ({"statuses": ["live"], "notStatuses": ["triggered"]}, {"status": "triggered"}, False),
        ({"coins": ["BTC"], "sides": ["A"]}, {}, False),
        # Prices and notionals: 65045.0 x 0.0003 is 19.5135.
        ({"minPx": "65045"}, {}, True),
        ({"minPx": 65045}, {}, True),
        ({"minPx": "65045.00000000000000000001"}, {}, False),
        ({"maxPx": "65045.0"}, {}, True),
        ({"maxPx": "65044.99"}, {}, False),
        ({"minPx": "65045.0", "maxPx": "65045"}, {}, True),
        ({"minPx": "9"}, {"limitPx": "10.0"}, True),  # as text it would not be
        ({"minNotional": "19.5135"}, {}, True),
        ({"minNotional": "19.51350000000000000001"}, {}, False),
        ({"minNotional": 20}, {}, False),
        ({"minNotional": "0.1"}, {"limitPx": "0.1", "origSz": "1.0"}, True),
        ({"minNotional": "999"}, {"origSz": "0.0"}, True),
        ({"minNotional": "999"}, {"isPositionTpsl": True}, True),
        ({"minNotional": "19"}, {"sz": "0.0"}, True),  # filled: the size it had counts
        ({"minPx": "999999"}, STOP, False),
        ({"maxPx": "1"}, {"origSz": "0.0", "isPositionTpsl": True}, False),
        ({"minPx": "999999"}, {"limitPx": None}, True),
        ({"minPx": "999999"}, {"limitPx": 1.5}, True),
        ({"minPx": "999999"}, {"limitPx": "NaN"}, True),
        ({"minNotional": "999999"}, {"origSz": "many"}, True),
        # Kinds.
        ({"tifs": ["Alo", "Ioc"]}, {}, True),
        ({"tifs": ["Ioc"]}, {}, False),
        ({"tifs": ["alo"]}, {}, False),
        ({"tifs": ["Gtc"]}, STOP, True),
        ({"tifs": ["Alo"]}, STOP, False),
        ({"tifs": ["newTif"]}, {"tif": "newTif"}, True),
        ({"orderTypes": ["Limit"]}, {}, True),
        ({"orderTypes": ["Stop Market", "Stop Limit"]}, STOP, True),
        ({"orderTypes": ["Limit"]}, STOP, False),
        # Names.
        ({"oids": [6, 7]}, {}, True),
        ({"oids": [8]}, {}, False),
        ({"oids": [7]}, {"oid": "7"}, False),
        ({"oids": [1]}, {"oid": True}, False),
        ({"oids": [2**64 - 1]}, {"oid": 2**64 - 1}, True),
        ({"cloids": [CLOID.upper().replace("X", "x")]}, {"cloid": CLOID}, True),
        ({"cloids": [CLOID]}, {"cloid": CLOID.upper()}, True),
        ({"cloids": [CLOID]}, {}, False),
        ({"minPx": "1", "tifs": ["Alo"], "orderTypes": ["Limit"], "oids": [7], "coins": ["BTC"]}, {}, True),
        ({"minPx": "1", "tifs": ["Alo"], "orderTypes": ["Limit"], "oids": [8], "coins": ["BTC"]}, {}, False),
        ({"minPx": "1", "tifs": ["Alo"], "orderTypes": ["Limit"], "oids": [7], "coins": ["ETH"]}, {}, False),
    ],
)  # fmt: skip
def test_a_filter_wants_what_matches_all_it_asks(*, words: dict[str, Any], said: dict[str, Any], wanted: bool) -> None:
    asked, slice_ = filter_of(**words), run_of([event(7, **said)])

    assert list(asked.select(slice_)) == ([0] if wanted else [])


def built(builder: object) -> bytes:
    return event(7).replace(b'"builder":null', b'"builder":' + json.dumps(builder, separators=(",", ":")).encode())


def test_builders_are_known_by_their_address() -> None:
    asked = filter_of(builders=[OTHER.upper()])
    others = [{"b": USER, "f": 5}, {"f": 5}, {"b": None}, OTHER, None, 5]

    assert list(asked.select(run_of([built({"b": OTHER, "f": 5}), built({"b": OTHER.upper()})]))) == [0, 1]
    assert list(asked.select(run_of(map(built, others)))) == []
    assert list(asked.select(run_of([event(7).replace(b'"builder":null,', b"")]))) == []  # as old nodes wrote it


@pytest.mark.parametrize("key", ["minPx", "maxPx", "minNotional"])
@pytest.mark.parametrize(
    "text",
    ["1e5", "1e999999999", "-1", "+1", " 1", "1_0", "", ".5", "5.", "NaN", "Infinity", "0x10", "\u0663", "1" * 41, "0." + "1" * 41, "9" * 100_000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_is_no_plain_decimal_is_refused(key: str, text: str) -> None:
    said = refusal(**{key: text})

    assert said.startswith(f"{key} '{text[:64]}' is no decimal: ")
    assert len(said) < 200


def test_decimals_are_exact_to_the_last_of_their_digits() -> None:
    most = "9" * 40 + "." + "9" * 40
    product = Fraction(most) ** 2
    scale = 10**80
    assert product.denominator == scale
    whole, part = divmod(product.numerator, scale)
    just, above = (
        OrderConditions(min_notional=Decimal(f"{whole}.{part:080}")),
        OrderConditions(min_notional=Decimal(f"{whole}.{part + 1:080}")),
    )

    assert just.hold(event(1, limitPx=most, origSz=most))
    assert not above.hold(event(1, limitPx=most, origSz=most))


# Filters are values.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"minPx": "1.0"}, {"minPx": "1.00"}),
        ({"minPx": "1.0"}, {"minPx": 1}),
        ({"maxPx": "0"}, {"maxPx": "0.000"}),
        ({"minNotional": "0100"}, {"minNotional": "100.0"}),
        ({"tifs": ["Alo", "Gtc"]}, {"tifs": ["Gtc", "Alo", "Alo"]}),
        ({"oids": [1, 2]}, {"oids": [2, 1]}),
        ({"cloids": [CLOID]}, {"cloids": [CLOID.upper()]}),
        ({"builders": [OTHER]}, {"builders": [OTHER.upper()]}),
        ({"coins": ["BTC"], "minPx": "1"}, {"filters": [{"minPx": "1.0", "coins": ["BTC"]}]}),
        ({"filters": [{"coins": ["A"]}, {"oids": [1]}]}, {"filters": [{"oids": [1]}, {"coins": ["A"]}, {"oids": [1, 1]}]}),
        ({}, {"filters": [{"coins": ["*"]}, {"oids": [1]}]}),
    ],
)  # fmt: skip
def test_equal_filters_are_equal_values_and_share_their_messages(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = view_of(**one, id="a"), view_of(**other, id="b")

    assert first == second
    assert hash(first) == hash(second)


def test_different_filters_are_different_values() -> None:
    asked: list[dict[str, Any]] = [
        {}, {"minPx": "1"}, {"maxPx": "1"}, {"minNotional": "1"}, {"tifs": ["1"]}, {"orderTypes": ["1"]}, {"oids": [1]},
        {"cloids": [CLOID]}, {"builders": [OTHER]}, {"users": [OTHER]}, {"filters": [{"minPx": "1"}, {"maxPx": "1"}]},
        {"minPx": "1", "maxPx": "1"},
    ]  # fmt: skip

    assert len({filter_of(**words) for words in asked}) == len(asked)
    assert [filter_of(**words).everything for words in asked] == [True, *[False] * (len(asked) - 1)]
    assert OrderFilter() == OrderFilter.of()


def test_details_are_looked_up_only_where_all_else_holds() -> None:
    @attrs.frozen(kw_only=True)
    class Listening(OrderConditions):
        heard: list[bytes] = attrs.field(factory=list, eq=False)

        def hold(self, event: Raw) -> bool:
            self.heard.append(bytes(event))
            return True

    details = Listening()
    events = [event(1), event(2, coin="ETH"), event(3, status="canceled"), event(4, user=OTHER), event(5, side="A")]
    asked = OrderFilter.of(["BTC"], [USER], ["open"], None, ["B"], details=details)

    assert list(asked.select(run_of(events))) == [0]
    assert details.heard == [events[0]]


# Several filters.


def test_several_filters_mean_or_and_each_event_comes_once() -> None:
    asked = filter_of(filters=[{"coins": ["BTC"], "sides": ["B"]}, {"oids": [1, 3]}, {"minPx": "70000"}])
    events = [
        event(1),  # the first two
        event(2, side="A"),
        event(3, coin="ETH"),
        event(4, coin="ETH"),
        event(5, coin="ETH", limitPx="70000.0"),
    ]

    assert list(asked.select(run_of(events))) == [0, 2, 4]


def test_what_several_filters_want_comes_in_the_nodes_order() -> None:
    asked = filter_of(filters=[{"oids": [8]}, {"oids": [1], "coins": ["BTC"]}])

    assert isinstance(asked, AnyOf)
    assert not asked.everything
    assert list(asked.select(run_of(map(event, range(9))))) == [1, 8]  # which is not how a set has them


# What is refused.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"minPx": 0.5}, "minPx is 0.5, a JSON number with a point, which is not exact: write it as a string, as in '0.5'"),
        ({"maxPx": 1e300}, "maxPx is 1e+300, a JSON number with a point, which is not exact: write it as a string, as in '0.5'"),
        ({"minNotional": True}, "minNotional must be a decimal in a string, as in '0.5'"),
        ({"minNotional": None}, "minNotional must be a decimal in a string, as in '0.5'"),
        ({"minNotional": ["1"]}, "minNotional must be a decimal in a string, as in '0.5'"),
        ({"minPx": "2", "maxPx": "1.5"}, "minPx 2 is above maxPx 1.5: no price lies between them"),
        ({"tifs": "Alo"}, "tifs must be a list of strings"),
        ({"tifs": []}, "tifs is empty, which no event matches; leave it out to mean all"),
        ({"orderTypes": []}, "orderTypes is empty, which no event matches; leave it out to mean all"),
        ({"oids": []}, "oids is empty, which no event matches; leave it out to mean all"),
        ({"oids": ["7"]}, "oids must be a list of integers"),
        ({"oids": [7.0]}, "oids must be a list of integers"),
        ({"oids": [True]}, "oids must be a list of integers"),
        ({"oids": [-1]}, "-1 is no oid: whole numbers from 0 to 2^64 - 1 are"),
        ({"oids": [2**64]}, f"{2**64} is no oid: whole numbers from 0 to 2^64 - 1 are"),
        ({"oids": [10**3000]}, f"1{'0' * 63} is no oid: whole numbers from 0 to 2^64 - 1 are"),
        ({"cloids": ["0x12"]}, "'0x12' is no cloid: 0x and 32 hex digits are"),
        ({"cloids": ["0x" + "g" * 32]}, f"'0x{'g' * 32}' is no cloid: 0x and 32 hex digits are"),
        ({"builders": ["me"]}, "'me' is no address: 0x and 40 hex digits are"),
        ({"builders": [OTHER + "\n"]}, f"'{OTHER}\\n' is no address: 0x and 40 hex digits are"),
        ({"minpx": "1"}, "unknown key 'minpx', did you mean 'minPx'?"),
        ({"tif": ["Alo"]}, "unknown key 'tif', did you mean 'tifs'?"),
        ({"filters": []}, "filters has 0 objects: 1 to 16 are allowed"),
        ({"filters": [{"oids": [n]} for n in range(17)]}, "filters has 17 objects: 1 to 16 are allowed"),
        ({"filters": {"oids": [1]}}, "filters must be a list of objects"),
        ({"filters": ["BTC"]}, "filters must be a list of objects"),
        ({"filters": None}, "filters must be a list of objects"),
        ({"filters": [{"oids": [1]}, {}]}, "filters[1] is empty, which every event matches; leave filters out to mean all"),
        ({"filters": [{"oids": [1]}], "coins": ["BTC"]},
         "coins stands beside filters: put it into each of their objects, or leave filters out"),
        ({"filters": [{"coins": ["BTC"]}, {"coin": "BTC"}]}, "filters[1]: unknown key 'coin', did you mean 'coins'?"),
        ({"filters": [{"id": "a"}]}, f"filters[0]: unknown key 'id'; the keys are {KEYS}"),
        ({"filters": [{"filters": [{"oids": [1]}]}]}, f"filters[0]: unknown key 'filters'; the keys are {KEYS}"),
        ({"filters": [{"coins": ["BTC"]}, {"coins": "BTC"}]}, "filters[1].coins must be a list of strings"),
        ({"filters": [{"minPx": 1.5}]},
         "filters[0].minPx is 1.5, a JSON number with a point, which is not exact: write it as a string, as in '0.5'"),
        ({"filters": [{"oids": [1]}, {"minPx": "x"}]},
         "filters[1]: minPx 'x' is no decimal: digits are, up to 40 on either side of a point, as in '0.5'"),
        ({"filters": [{"users": ["me"]}]}, "filters[0]: 'me' is no address: 0x and 40 hex digits are"),
        ({"filters": [{"statuses": ["open"] * 101}]},
         "filters[0]: 101 statuses are named: at most 100 may be, and classes name many at once"),
        ({"statuses": ["open"] * 60, "notStatuses": ["open"] * 41},
         "101 statuses are named: at most 100 may be, and classes name many at once"),
    ],
)  # fmt: skip
def test_a_wrong_filter_is_refused_in_words_that_name_it(words: dict[str, Any], says: str) -> None:
    assert refusal(**words) == says


def test_the_protocol_reference_has_every_key_and_what_is_said_to_others() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text()

    assert [key for key in KEYS.split(", ") if f"`{key}`" not in page] == []
    wrong: list[dict[str, Any]] = [
        {"foo": 5}, {"filters": []}, {"minPx": 0.5}, {"filters": [{"minPx": "1e5"}]}, {"minPx": "2", "maxPx": "1.5"},
    ]  # fmt: skip
    for words in wrong:
        assert refusal(**words).replace("has 0", "has 17") + "\n" in page


def test_twenty_thousand_words_fit_into_a_list_and_into_a_message_and_no_more() -> None:
    users = [f"0x{number:040x}" for number in range(20_001)]

    assert len(ask(users=users[:-1])) < 1020 * 1024
    asked = filter_of(users=users[:-1])
    assert isinstance(asked, OrderFilter)
    assert asked.users == frozenset(users[:-1])
    for key, words in (("users", users), ("oids", list(range(20_001))), ("cloids", [CLOID] * 20_001)):
        assert refusal(**{key: words}) == f"{key} has 20001 words: at most 20000 are allowed"


@pytest.mark.parametrize("number", ["1e400", "1" * 5000])
def test_a_number_that_no_computer_holds_is_an_error_like_any_other(number: str) -> None:
    with pytest.raises(ProtocolError, match="out of range") as caught:
        parse(ask(coins=7).replace("7", number))
    assert json.loads(caught.value.message())["code"] == "invalid-subscription"


# What may not be meant.


def warnings_of(**subscription: object) -> tuple[str, ...]:
    request = parse(ask(**subscription))
    assert isinstance(request, Subscribe)
    return request.warnings


def test_a_tif_or_an_order_type_that_is_nearly_a_known_one_is_a_warning() -> None:
    assert warnings_of(tifs=["GTC", "Alo", "Zzz"], orderTypes=["stop market", "Limit", "Iceberg"]) == (
        "no tif 'GTC' is known; did you mean 'Gtc'?",
        "no order type 'stop market' is known; did you mean 'Stop Market'?",
    )


def test_warnings_are_about_all_of_several_filters() -> None:
    filters = [{"statuses": ["opne"]}, {"tifs": ["ALO"]}, {"notStatuses": ["opne", "cancelled"]}]

    assert warnings_of(filters=filters) == (
        "no status 'opne' is known; did you mean 'open'?",
        "no status 'cancelled' is known; did you mean 'canceled'?",
        "no tif 'ALO' is known; did you mean 'Alo'?",
    )
    wanted = filter_of(filters=[{"coins": ["btc", "ETH"]}, {"oids": [1], "coins": ["XYZ", "xyz:*"]}])
    assert doubtful_coins(wanted.coins, frozenset(["BTC", "ETH"]), "order") == [
        "no order of 'XYZ' was seen lately",
        "no order of 'btc' was seen lately; did you mean 'BTC'? Case matters",
    ]
    wanted = filter_of(filters=[{"coins": ["btc"]}, {"coins": ["*"]}])
    assert doubtful_coins(wanted.coins, frozenset(["BTC"]), "order") == []


def test_at_most_five_warnings_of_each_kind_are_given() -> None:
    warnings = warnings_of(
        statuses=[f"odd{number}" for number in range(9)], tifs=[f"Alo{number}" for number in range(7)]
    )

    assert len(warnings) == 12
    assert warnings[5] == "and 4 more"
    assert warnings[11] == "and 2 more"


def test_what_is_compared_with_known_words_is_bounded() -> None:
    many = [{"tifs": [f"Alo{100 * number + each}" for each in range(100)]} for number in range(16)]
    long = "positionIncreaseAtOpenInterestCapRejecte"

    assert warnings_of(filters=many)[5] == "and 95 more"
    assert "did you mean" in warnings_of(statuses=[long])[0]
    assert warnings_of(statuses=[long + "x" * 25]) == (f"no status '{long + 'x' * 24}' is known",)


def test_unsubscribe_takes_an_equal_filter_however_it_is_written() -> None:
    held = view_of(filters=[{"minPx": "1.0", "coins": ["A", "B"]}, {"cloids": [CLOID]}], id="mine")
    equal = parse(unask(filters=[{"cloids": [CLOID.upper()]}, {"coins": ["B", "A"], "minPx": 1}]))
    other = parse(unask(filters=[{"cloids": [CLOID]}, {"coins": ["B", "A"], "minPx": 2}]))

    assert isinstance(equal, Unsubscribe)
    assert isinstance(other, Unsubscribe)
    assert equal.channel == held
    assert other.channel != held


async def test_several_filters_on_the_wire(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, lines_of(Layout.STREAMING, [(7, [event(1)])]))
    subscription = {
        "type": "orders", "id": "mine", "filters": [
            {"coins": ["btc"]}, {"minNotional": "100", "minPx": 5, "maxPx": "99999.50", "tifs": ["alo", "Gtc"], "oids": [2],
             "orderTypes": ["Limit"], "cloids": [CLOID], "sides": ["B"], "users": [USER], "statuses": ["open"]},
            {"builders": [OTHER]},
        ],
    }  # fmt: skip
    events = [
        event(1),
        event(2, cloid=CLOID, tif="Gtc", origSz="1.0"),
        event(2, cloid=CLOID, tif="Gtc"),
        built({"b": OTHER}),
    ]
    with trio.fail_after(20):
        async with running(tmp_path) as port, connected(port) as client:
            answer = await client.subscribe(**subscription)
            append(path, lines_of(Layout.STREAMING, [(8, events)]))
            got = await client.collect(2)
            equal = {key: words for key, words in subscription.items() if key != "id"}
            await client.say({"method": "unsubscribe", "subscription": equal})
            gone = await client.hear("subscriptionResponse", "error")

    assert answer["data"]["subscription"] == subscription
    assert answer["warnings"] == ["no tif 'alo' is known; did you mean 'Alo'?"]
    assert got == [(8, 1, events[1].decode()), (8, 3, events[3].decode())]
    assert gone["data"] == {"method": "unsubscribe", "subscription": equal}


# On command lines.

WANTED = event(7, limitPx="81310.0", origSz="2.0", tif="Gtc", cloid=CLOID).replace(
    b'"builder":null', b'"builder":{"b":"%s"}' % OTHER.encode()
)
UNWANTED = [
    WANTED.replace(b'"oid":7', b'"oid":8'),
    WANTED.replace(b"81310.0", b"81309.0"),
    WANTED.replace(b"81310.0", b"81311.0"),
    WANTED.replace(b'"origSz":"2.0"', b'"origSz":"1.0"'),
    WANTED.replace(b'"Gtc"', b'"Ioc"'),
    WANTED.replace(b'"Limit"', b'"Market"'),
    WANTED.replace(CLOID.encode(), CLOID[:-1].encode() + b"0"),
    WANTED.replace(OTHER.encode(), USER.encode()),
]
OPTIONS = ["--min-notional", "162619.5", "--min-px", "81310", "--max-px", "81310.5", "--tif", "Gtc", "--tif", "Alo",
           "--order-type", "Limit", "--oid", "7", "--cloid", CLOID, "--builder", OTHER]  # fmt: skip


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = hour_file(tmp_path, "20260505/9")
    append(path, lines_of(Layout.STREAMING, [(7, [*UNWANTED, WANTED])]))
    return path


def test_replay_takes_every_filter_as_an_option(recording: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    program(["replay", str(recording), *OPTIONS], standalone_mode=False)
    assert capfdbinary.readouterr().out == WANTED + b"\n"


async def test_watch_takes_every_filter_as_an_option_and_leaves_none_out(recording: Path) -> None:
    with trio.fail_after(20):
        async with running(recording.parents[3]) as port:
            empty = await trio.run_process(
                [sys.executable, "-m", "hyperwatch", "watch", f"127.0.0.1:{port}", "--min-px="],
                check=False, capture_stderr=True,
            )  # fmt: skip
            done = await trio.run_process(
                [sys.executable, "-m", "hyperwatch", "watch", f"127.0.0.1:{port}", "--from", "earliest", "--count", "1", *OPTIONS],
                capture_stdout=True, capture_stderr=True,
            )  # fmt: skip
    assert (done.stdout, done.stderr) == (WANTED + b"\n", b"")
    assert empty.returncode == 2
    assert b"minPx '' is no decimal" in empty.stderr


@pytest.mark.parametrize("command", ["replay", "watch"])
def test_order_types_stand_in_the_environment_with_commas_between(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERWATCH_ORDER_TYPE", "Stop Market,Limit")
    context = program.commands[command].make_context(command, ["somewhere"])
    assert context.params["order_type"] == ("Stop Market", "Limit")


# The shortcuts against the rules, read with the standard library and written anew from the documentation.


def says(words: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Whether an event matches one filter."""
    if "order" not in whole:  # in a file of several streams: nothing that is asked of an order holds of it
        return words.keys() <= {"statuses", "notStatuses", "users"} and "statuses" not in words
    return all(RULES[key](asked, whole, whole["order"]) for key, asked in words.items())


def is_among(whole: dict[str, Any], asked: Sequence[str]) -> bool:
    """Whether its status is; the word `rejected` is a class, and the status of that name may be a `removed` one."""
    return kind_of(whole) in asked or (whole["status"] in asked and whole["status"] not in CLASSES)


def kind_of(whole: dict[str, Any]) -> str:
    status, order = whole["status"], whole["order"]
    if status in ("open", "triggered"):
        return "live"
    if status in ("filled", "canceled") or status.endswith(("Canceled", "Cancel")):
        return "removed"
    if status != "rejected" and not status.endswith("Rejected"):
        return "unknown"
    seconds, _, part = whole["time"].partition(".")
    since = datetime.fromisoformat(seconds).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    now_ms = since // timedelta(milliseconds=1) + int(part.ljust(3, "0")[:3])
    was_live = order.get("isTrigger") or 0 < order.get("timestamp", 0) < now_ms
    return "removed" if was_live else "rejected"


def lower(words: Iterable[str]) -> set[str]:
    return {word.lower() for word in words}


def text_of(part: dict[str, Any], key: str) -> str:
    return part[key] if isinstance(part.get(key), str) else ""


def builder_of(whole: dict[str, Any]) -> str:
    return text_of(whole["builder"], "b") if isinstance(whole.get("builder"), dict) else ""


def amount(order: dict[str, Any], key: str, otherwise: object) -> Fraction:
    text = text_of(order, key)
    return Fraction(text if re.fullmatch("[0-9]{1,40}(\\.[0-9]{1,40})?", text) else str(otherwise))


def has_notional(order: dict[str, Any], least: object) -> bool:
    px, size = amount(order, "limitPx", -1), amount(order, "origSz", -1)
    return px < 0 or size <= 0 or order.get("isPositionTpsl") is True or px * size >= Fraction(str(least))


RULES: dict[str, Callable[[Any, dict[str, Any], dict[str, Any]], bool]] = {
    "coins": lambda asked, _, order: any(
        word == "*" or order["coin"] == word or (word[-2:] == ":*" and order["coin"].startswith(word[:-1]))
        for word in asked
    ),
    "users": lambda asked, whole, _: whole["user"] in lower(asked),
    "statuses": lambda asked, whole, _: is_among(whole, asked),
    "notStatuses": lambda asked, whole, _: not is_among(whole, asked),
    "sides": lambda asked, _, order: order.get("side", "")[:1] in {word[:1] for word in asked},
    "minPx": lambda asked, _, order: amount(order, "limitPx", asked) >= Fraction(asked),
    "maxPx": lambda asked, _, order: amount(order, "limitPx", asked) <= Fraction(asked),
    "minNotional": lambda asked, _, order: has_notional(order, asked),
    "tifs": lambda asked, _, order: (text_of(order, "tif") or "Gtc") in asked,
    "orderTypes": lambda asked, _, order: text_of(order, "orderType") in asked,
    "oids": lambda asked, _, order: type(order.get("oid")) is int and order["oid"] in asked,
    "cloids": lambda asked, _, order: text_of(order, "cloid").lower() in lower(asked),
    "builders": lambda asked, whole, _: builder_of(whole).lower() in lower(asked),
}


def agree(filters: Sequence[dict[str, Any]], slices: Iterable[BlockSlice]) -> int:
    """Asserts that a filter selects what the rules say; returns how many events."""
    asked, count = filter_of(filters=filters), 0
    for slice_ in slices:
        events = [json.loads(bytes(raw)) for raw in slice_.events]
        expected = [number for number, whole in enumerate(events) if any(says(words, whole) for words in filters)]

        assert list(asked.select(slice_)) == expected
        count += len(expected)
    return count


STATUSES = st.sampled_from(
    [
        "open",
        "triggered",
        "filled",
        "canceled",
        "rejected",
        "badAloPxRejected",
        "iocCancelRejected",
        "newThing",
        'x\u00e9"\\',
    ]
)
COINS = st.sampled_from(["BTC", "ETH", "xyz:SP500", "xyz:", "@107", "k\u00c5"])
AMOUNTS = st.sampled_from(
    ["0.0", "0", "1", "1.0", "2.50", "65045.0", "0.0003", "9" * 40 + ".1", "1e3", "-1", "", "NaN", "\u0661"]
)
ODD: st.SearchStrategy[Any] = st.sampled_from([None, True, 1.5, 7, [], {}, "x", {"b": 5}, '\u00fc"', "a\n"])
TIF_WORDS = ["Alo", "Gtc", "Ioc", "new\u20ac"]
TYPE_WORDS = ["Limit", "Stop Market", 'new"Type']
CLOIDS = [CLOID, "0x" + "a" * 32, "0x" + "A" * 32]
ADDRESSES = [USER, OTHER, "0x" + "0" * 40]
OIDS = [0, 1, 7, 2**63, 2**64 - 1]


def usual_or_odd(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(usual, usual, usual, ODD)


PART = st.fixed_dictionaries(
    {"coin": COINS},
    optional={
        "side": st.sampled_from(["B", "A", "Bid", "Ask", "X"]),
        "limitPx": usual_or_odd(AMOUNTS),
        "sz": AMOUNTS,
        "oid": usual_or_odd(st.sampled_from([*OIDS, 2**70, 7.0])),
        "timestamp": st.sampled_from([0, TIME_MS - 1, TIME_MS, TIME_MS + 1]),
        "triggerCondition": usual_or_odd(st.sampled_from(["N/A", "N/A", "Price above 5", "Triggered"])),
        "isTrigger": st.booleans(),
        "children": st.just([{"oid": 7, "tif": "Alo", "limitPx": "1", "cloid": CLOID, "note": '"tif":"Ioc"'}]),
        "isPositionTpsl": usual_or_odd(st.booleans()),
        "orderType": usual_or_odd(st.sampled_from(TYPE_WORDS)),
        "origSz": usual_or_odd(AMOUNTS),
        "tif": usual_or_odd(st.sampled_from(TIF_WORDS)),
        "cloid": usual_or_odd(st.sampled_from(CLOIDS)),
        "builder": st.just({"b": USER}),
        "new\u00fc": ODD,
    },
)
BUILDER: st.SearchStrategy[Any] = usual_or_odd(
    st.fixed_dictionaries({}, optional={"b": usual_or_odd(st.sampled_from(ADDRESSES)), "f": ODD})
)


@st.composite
def written_events(draw: st.DrawFn) -> bytes:
    """An order status in any of the ways that JSON can be written: order of keys, blanks, escapes, more or fewer keys."""
    part = draw(PART)
    whole = {
        "time": draw(st.sampled_from(["2026-05-05T17:39:13.024084407", "2026-05-05T17:39:13"])),
        "user": draw(st.sampled_from(ADDRESSES)),
        "status": draw(STATUSES),
        "order": {key: part[key] for key in draw(st.permutations(list(part)))},
        **draw(st.fixed_dictionaries({}, optional={"builder": BUILDER, "hash": ODD, "tif": ODD, "oid": st.just(1)})),
    }
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    text = json.dumps(whole, ensure_ascii=draw(st.booleans()), separators=separators)
    if draw(st.booleans()):
        text = text.replace("Alo", "\\u0041lo").replace("65045", "6\\u0035045").replace("0x", "\\u0030x")
    return text.encode()


def some(words: Sequence[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(words), min_size=1, max_size=3)


DECIMALS = st.sampled_from(["0", "1.00", "2.5", "65045", "19.5135", "70000.000000000001", 1, 65046, "9" * 40])
CLASSES = ["live", "removed", "rejected", "unknown"]
FILTER: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "coins": some(["BTC", "ETH", "xyz:*", "*", "k\u00c5"]),
        "users": some([*ADDRESSES, OTHER.upper()]),
        "statuses": some([*CLASSES, "open", "canceled", "newThing", 'x\u00e9"\\']),
        "notStatuses": some([*CLASSES, "filled", "badAloPxRejected"]),
        "sides": some(["B", "A", "Bid"]),
        "minNotional": DECIMALS,
        "minPx": DECIMALS,
        "maxPx": DECIMALS,
        "tifs": some(TIF_WORDS),
        "orderTypes": some(TYPE_WORDS),
        "oids": some(OIDS),
        "cloids": some(CLOIDS),
        "builders": some(ADDRESSES),
    },
)


def possible(words: dict[str, Any]) -> bool:
    return bool(words) and Fraction(words.get("minPx", 0)) <= Fraction(words.get("maxPx", "9" * 41))


@given(st.lists(FILTER.filter(possible), min_size=1, max_size=3), st.lists(written_events(), min_size=1, max_size=5))
def test_a_filter_wants_what_the_rules_say_of_any_event(filters: list[dict[str, Any]], events: list[bytes]) -> None:
    agree(filters, [run_of(events)])


def recorded(name: str) -> list[BlockSlice]:
    data = sample(name) if name.endswith(".gz") else (SAMPLES / name).read_bytes()
    layout = Layout.BY_BLOCK if data.startswith(b'{"local_time":') else Layout.PLAIN
    decoder = Decoder(ORDERS, layout, 0)
    decoder.feed(data)
    return decoder.slices


BUILDER_SEEN = "0xc95d92dc8ca672abcc8aaec49a94559bbf481aca"
RECORDED_FILTERS: list[dict[str, Any]] = [
    {"notStatuses": ["rejected"], "minNotional": "100000.0"},
    {"tifs": ["Ioc", "Gtc"], "minPx": "81300", "maxPx": "81301.5"},
    {"builders": [BUILDER_SEEN]},
    {"cloids": ["0x89119db7aae18b90abe620888af9aadc"], "orderTypes": ["Limit"]},
    {"oids": [412036457411, 12212359592], "coins": ["*"]},
    {"statuses": ["filled"], "sides": ["B"]},
]


@needs_samples
@pytest.mark.parametrize(
    "name",
    [
        "node_order_statuses-plain-btc51-thinned.jsonl.gz",
        "node_order_statuses-by_block-btc51.jsonl.gz",
        pytest.param("node_order_statuses-streaming-btc51.jsonl.gz", marks=pytest.mark.slow),  # the same events
        "singles/node_order_statuses-envelope-singles.jsonl",
        "singles/official_docs-event-mode.jsonl",
    ],
)
def test_a_filter_wants_what_the_rules_say_of_every_recorded_event(name: str) -> None:
    slices = recorded(name)

    assert agree(RECORDED_FILTERS, slices)
    if "thinned" in name:
        for words in RECORDED_FILTERS:
            agree([words], slices)


# No filter loses an order's end.

LASTING: list[dict[str, Any]] = [
    {"coins": ["ETH", "xyz:*"]}, {"sides": ["A"]},
    *({"minNotional": least} for least in ("1", "1000", "20000", "100000", "99999999")),
    *({"minPx": px} for px in ("1", "100", "81300", "81320.5", "99999999")),
    *({"maxPx": px} for px in ("1", "100", "81300", "81320.5", "99999999")),
    *({"tifs": [tif]} for tif in ("Alo", "Gtc", "Ioc", "FrontendMarket")),
    *({"orderTypes": [kind]} for kind in ("Limit", "Stop Market", "Stop Limit", "Take Profit Market")),
    {"builders": [BUILDER_SEEN]}, {"minPx": "81300", "tifs": ["Alo"], "orderTypes": ["Limit"], "sides": ["B"]},
]  # fmt: skip


def lives(events: Iterable[bytes]) -> dict[int, list[bytes]]:
    """The events of each order that has several."""
    found: defaultdict[int, list[bytes]] = defaultdict(list)
    for raw in events:
        found[json.loads(raw)["order"]["oid"]].append(raw)
    return {oid: each for oid, each in found.items() if len(each) > 1}


def assert_ends_are_kept(found: dict[int, list[bytes]], filters: Sequence[dict[str, Any]]) -> None:
    slice_ = run_of(raw for each in found.values() for raw in each)
    orders = [oid for oid, each in found.items() for _ in each]
    for words in filters:
        wanted = list(filter_of(**words).select(slice_))
        chosen = {orders[number] for number in wanted}

        assert wanted == [number for number, oid in enumerate(orders) if oid in chosen], words


@needs_samples
def test_no_filter_loses_an_orders_end_on_the_recordings() -> None:
    slices = recorded("node_order_statuses-by_block-btc51.jsonl.gz")
    found = lives(bytes(raw) for slice_ in slices for raw in slice_.events)
    oids = sorted(found)
    named = [json.loads(each[0]) for each in found.values()]
    users = [whole["user"] for whole in named]
    cloids = [whole["order"]["cloid"] for whole in named if whole["order"]["cloid"]]

    assert len(found) > 300
    assert_ends_are_kept(found, [*LASTING, {"oids": oids[::3]}, {"users": users[::3]}, {"cloids": cloids[::3]}])


def test_no_filter_loses_an_orders_end_in_a_simulated_market() -> None:
    market = Market(5, 300.0)
    found = lives(raw for _ in range(60) for raw in market.next_block().orders)
    statuses = {json.loads(raw)["status"] for each in found.values() for raw in each}

    assert {"open", "triggered", "filled", "canceled"} <= statuses
    assert_ends_are_kept(found, LASTING)


@st.composite
def any_life(draw: st.DrawFn) -> list[bytes]:
    """One order from its beginning to its end, with everything changed on the way that may change."""
    amounts = st.sampled_from(["0.5", "100.0", "81310.0", "999999.0"])
    trigger = draw(st.booleans())
    constant = {
        "coin": "BTC", "limitPx": draw(amounts), "origSz": draw(amounts), "tif": draw(st.sampled_from(["Alo", "Ioc", "Gtc"])),
        "orderType": draw(st.sampled_from(["Stop Market", "Stop Limit", "Take Profit Market"])) if trigger else "Limit",
        "isPositionTpsl": draw(st.booleans()), "cloid": draw(st.sampled_from([None, CLOID])),
    }  # fmt: skip
    builder = draw(st.sampled_from([None, {"b": BUILDER_SEEN, "f": 5}]))
    events = []
    for status in draw(st.permutations(["open", "filled", "canceled", "minTradeNtlRejected"])):
        part: dict[str, Any] = {**constant, "sz": draw(amounts)}
        if constant["isPositionTpsl"]:
            part["origSz"] = draw(st.sampled_from(["0.0", "999999.0"]))  # by the position
        if trigger:
            waiting = draw(st.booleans())
            part |= {"triggerCondition": "Price below 5" if waiting else "Triggered", "isTrigger": waiting,
                     "triggerPx": "5.0" if waiting else "0.0", "tif": None if waiting else "Gtc"}  # fmt: skip
        whole = json.loads(event(7, status=status, **part)) | {"builder": builder}
        events.append(json.dumps(whole, separators=(",", ":")).encode())
    return events


@given(any_life())
def test_no_filter_loses_an_orders_end_whatever_changes_on_the_way(events: list[bytes]) -> None:
    assert_ends_are_kept({7: events}, [*LASTING, {"oids": [7]}, {"cloids": [CLOID]}, {"users": [USER]}])
