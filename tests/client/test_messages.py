"""Messages and events as objects say what their JSON says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_support import gap, orders, standing
from hyperwatch.client import (
    BookDiffs,
    Diff,
    DiffEvent,
    Edge,
    FeedError,
    Fill,
    Fills,
    Gap,
    Live,
    Message,
    NewSize,
    Orders,
    Position,
    SizeUpdate,
)
from hyperwatch.client.messages import message_of
from support import SAMPLES, USER, event, needs_samples, sample

ORDER_KEYS = [
    "coin", "side", "limitPx", "sz", "oid", "timestamp", "triggerCondition", "isTrigger", "triggerPx", "children",
    "isPositionTpsl", "reduceOnly", "orderType", "origSz", "tif", "cloid",
]  # fmt: skip


def message(channel: str, *events: bytes) -> Message:
    """A message with these events."""
    data = b'{"id":"1","seq":1,"cursor":"c","blockNumber":7,"blockTime":9,"index":4,"events":[%s]}' % b",".join(events)
    return message_of(channel, data)


def recorded(pattern: str) -> Iterator[bytes]:
    """The events of the real recordings, as the node wrote them."""
    texts = [sample(path.name) for path in sorted(SAMPLES.glob(f"{pattern}*.jsonl.gz"))]
    texts += [path.read_bytes() for path in sorted(SAMPLES.glob(f"singles/{pattern}*.jsonl"))]
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    for line in (line for text in texts for line in text.splitlines() if line):
        envelope = decoder.decode(line)
        if "events" in envelope:
            yield from map(bytes, msgspec.json.decode(envelope["events"], type=list[msgspec.Raw]))
        elif "user" in envelope:
            yield line


def agrees(
    value: Any,  # noqa: ANN401  any of our classes
    document: object,
) -> bool:
    """Whether an object says what a document says: all that the document has, and of what it has not, the defaults."""
    if attrs.has(type(value)) and isinstance(document, Mapping):
        fields = {field.name: field for field in attrs.fields(type(value))}
        return all(
            agrees(getattr(value, name), document[name]) if name in document else getattr(value, name) == field.default
            for name, field in fields.items()
        )
    if isinstance(value, tuple) and isinstance(document, list):
        return len(value) == len(document) and all(map(agrees, value, document))
    return type(value) is type(document) and value == document


# Recordings.


@needs_samples
@pytest.mark.parametrize(
    ("pattern", "channel", "count"),
    [
        ("node_order_statuses", "orders", 80_000),
        ("node_fills", "fills", 44),
        ("node_raw_book_diffs", "bookDiffs", 2_664),
    ],
)
def test_every_recorded_event_as_an_object_says_what_its_json_says(pattern: str, channel: str, count: int) -> None:
    raws = list(recorded(pattern))
    assert len(raws) >= count
    found = message(channel, *raws)
    assert isinstance(found, Orders | Fills | BookDiffs)
    assert found.raws == raws
    for value, raw in zip(found.events, raws, strict=True):
        document = json.loads(raw)
        if channel == "fills":
            document = {"user": document[0], "fill": document[1]}
        assert agrees(value, document), raw


@needs_samples
def test_no_key_of_a_recorded_fill_is_unknown() -> None:
    known = {field.name for field in attrs.fields(Fill)}
    assert [raw for raw in recorded("node_fills") if not set(json.loads(raw)[1]) <= known] == []


@needs_samples
def test_no_key_of_a_recorded_order_is_unknown() -> None:
    for raw in recorded("node_order_statuses"):
        document = json.loads(raw)
        assert set(document) <= {"time", "user", "hash", "builder", "status", "order"}
        assert set(document["order"]) <= set(ORDER_KEYS)


# Made-up events.

_TEXT = st.text(max_size=20)
_DECIMAL = st.decimals(allow_nan=False, allow_infinity=False, places=5).map(str)
_UNKNOWN = st.dictionaries(
    st.text(min_size=1, max_size=8).map(lambda name: f"_{name}"),
    st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT, st.lists),
    max_size=3,
)


def order(children: st.SearchStrategy[list[dict[str, Any]]]) -> st.SearchStrategy[dict[str, Any]]:
    whole = {
        "coin": _TEXT, "side": st.sampled_from("AB"), "limitPx": _DECIMAL, "sz": _DECIMAL, "oid": st.integers(0, 2**63),
        "timestamp": st.integers(0, 2**53), "triggerCondition": _TEXT, "isTrigger": st.booleans(),
        "triggerPx": _DECIMAL, "children": children, "isPositionTpsl": st.booleans(), "reduceOnly": st.booleans(),
        "orderType": _TEXT, "origSz": _DECIMAL, "tif": st.none() | _TEXT, "cloid": st.none() | _TEXT,
    }  # fmt: skip
    required = {name: whole[name] for name in ORDER_KEYS[:6]}
    optional = {name: whole[name] for name in ORDER_KEYS[6:]}
    return st.fixed_dictionaries(required, optional=optional)


_EVENT = st.fixed_dictionaries(
    {"user": _TEXT, "status": _TEXT, "order": order(st.lists(order(st.just([])), max_size=2))},
    optional={
        "time": _TEXT,
        "hash": st.none() | _TEXT,
        "builder": st.none() | st.fixed_dictionaries({"b": _TEXT, "f": st.integers(0, 99)}),
    },
)


@given(_EVENT, _UNKNOWN)
def test_any_order_event_as_an_object_says_what_its_json_says(
    document: dict[str, Any], unknown: dict[str, Any]
) -> None:
    raw = json.dumps(document | unknown, ensure_ascii=False).encode()
    found = message("orders", raw)
    assert isinstance(found, Orders)
    assert agrees(found.events[0], document)
    assert json.loads(found.raws[0]) == document | unknown


def test_a_status_and_keys_that_nobody_knows_survive() -> None:
    raw = event(5, status="abducted", planet="Mars")
    found = message("orders", raw)
    assert isinstance(found, Orders)
    assert found.events[0].status == "abducted"
    assert json.loads(found.raws[0])["order"]["planet"] == "Mars"


def test_decimals_stay_the_nodes_own_text() -> None:
    found = message("orders", event(5, limitPx="65045.00", sz="0.10000000000000000000000001"))
    assert isinstance(found, Orders)
    assert (found.events[0].order.limitPx, found.events[0].order.sz) == ("65045.00", "0.10000000000000000000000001")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (b'"remove"', "remove"),
        (b'"vanish"', "vanish"),
        (b'{"new":{"sz":"1.5"}}', Diff(new=NewSize("1.5"))),
        (b'{"new":{"sz":"1.5","insertBefore":7}}', Diff(new=NewSize("1.5", 7))),
        (b'{"update":{"origSz":"2.0","newSz":"1.0"}}', Diff(update=SizeUpdate("2.0", "1.0"))),
        (b'{"moved":{}}', Diff()),
    ],
)
def test_a_diff_is_a_word_or_what_changed(change: bytes, expected: object) -> None:
    head = b'{"user":"%s","oid":5,"coin":"BTC","side":"A","px":"1.0","raw_book_diff":' % USER.encode()
    found = message("bookDiffs", head + change + b"}")
    assert isinstance(found, BookDiffs)
    assert found.events == (DiffEvent(USER, 5, "BTC", "A", "1.0", expected),)  # type: ignore[arg-type]


def test_an_event_of_another_shape_is_an_error_when_it_is_looked_at_and_its_bytes_are_there() -> None:
    found = message("orders", b'{"user":5}')
    assert isinstance(found, Orders)
    assert found.raws == [b'{"user":5}']
    with pytest.raises(FeedError, match=r"an event of orders in block 7 is not what it should be .* raws"):
        _ = found.events


def test_events_are_decoded_once() -> None:
    found = message("orders", event(1), event(2))
    assert isinstance(found, Orders)
    assert found.events is found.events


# Messages.


@pytest.mark.parametrize(("index", "places"), [(b"4", range(4, 7)), (b"[4,6,9]", (4, 6, 9)), (b"null", ())])
def test_places_are_one_for_each_event_or_none_where_nothing_names_them(index: bytes, places: object) -> None:
    data = b'{"cursor":"c","blockNumber":null,"blockTime":null,"late":true,"index":%s,"events":[1,2,3]}' % index
    found = message_of("orders", data)
    assert isinstance(found, Orders)
    assert (found.places, found.late, found.block, found.block_time_ms) == (places, True, None, None)


def data_of(text: bytes) -> bytes:
    return bytes(msgspec.json.decode(text, type=dict[str, msgspec.Raw])["data"])


def test_every_channel_has_its_class() -> None:
    live, position = data_of(standing("live", "1", 1, "c")), data_of(standing("cursor", "1", 1, "c"))
    assert message_of("live", live) == Live("live", live, "c", 7, 1000, 1, 2)
    assert message_of("cursor", position) == Position("cursor", position, "c", 7, 1000, 1, 2)
    hole = data_of(gap("1", 1, "c"))
    expected = Gap("gap", hole, "c", 7, 1000, "s", "unreadable", Edge(5, None, 3), Edge(None, 9, 0), readable=False)
    assert message_of("gap", hole) == expected
    assert type(message_of("orders", data_of(orders("1", 1)))) is Orders
    assert type(message("fills")) is Fills
    assert message_of("l2Book", b"[]") == Message("l2Book", b"[]")


def test_messages_are_values() -> None:
    text = data_of(orders("1", 1, "c", event(1)))
    assert message_of("orders", text) == message_of("orders", text)
    assert len({message_of("live", data_of(standing("live", "1", 1, "c"))) for _ in range(2)}) == 1
