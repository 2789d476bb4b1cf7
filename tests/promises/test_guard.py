"""The hot path costs no more than it did: what it does for an event is counted, never timed.

The input is made up from a fixed seed, and nothing that is counted depends on the machine: Python functions and built-ins
called, instructions of the interpreter, blocks of memory that stay as long as the result is kept. Where a change makes
one of them larger by a fifth, or adds an object or a call to every event, its test fails and says the new figures. Put
those here only for a reason that is worth it, and put them here too when the path gets cheaper: the guard holds only what
it is told.
"""

from __future__ import annotations

import gc
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from types import FrameType
from typing import Any, cast
from unittest.mock import patch

import attrs
import pytest

from hyperwatch.feed import hub as hub_module
from hyperwatch.feed.budget import Allowance, Budget
from hyperwatch.feed.channels.events import Orders
from hyperwatch.feed.filters.order_details import OrderConditions
from hyperwatch.feed.filters.orders import OrderFilter
from hyperwatch.feed.hub import Hub
from hyperwatch.feed.subscription import Subscription
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.batches import Batch, DecodedChunk, Entry, RawBatch, assemble, decode
from hyperwatch.log.dedupe import Deduplicator
from hyperwatch.log.positions import Cursor, FilePosition
from hyperwatch.node.decoder import Need
from hyperwatch.node.streams import ORDERS, Layout, Stream
from hyperwatch.server.framing import FrameCache
from hyperwatch.simulate.market import Market
from hyperwatch.simulate.model import COINS
from support import lines_of

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the figures are those of Python 3.11; others count differently"
)

SHARE = 1.2
EACH = 0.5  # of an object or a call: more than that is one for every event, however many there are already
NONE = 0.05  # beside nothing, a fifth is nothing
BLOCKS = [(number, block.orders) for number in range(10) for block in [Market(number, 200).next_block()]]
EVENTS = sum(len(events) for _, events in BLOCKS)


@attrs.frozen
class Cost:
    """Of one event."""

    calls: float
    instructions: float
    blocks: float


STORED = {
    "decode plain": Cost(calls=1.3, instructions=7.28, blocks=8.04),
    "decode by-block": Cost(calls=0.19, instructions=2.68, blocks=0.06),
    "decode streaming": Cost(calls=0.53, instructions=28.97, blocks=0.1),
    "decode by-block with keys": Cost(calls=0.21, instructions=3.29, blocks=9.07),
    "decode streaming with keys": Cost(calls=0.57, instructions=29.81, blocks=9.1),
    "decode streaming with keys, few wanted": Cost(calls=0.54, instructions=25.94, blocks=8.13),
    "messages without rejections, of lines": Cost(calls=5.59, instructions=89.77, blocks=1.16),
    "assemble": Cost(calls=0.26, instructions=4.99, blocks=0.03),
    "messages of everything": Cost(calls=0.25, instructions=4.96, blocks=0.02),
    "messages of one coin": Cost(calls=1.34, instructions=21.53, blocks=0.08),
    "messages of one user": Cost(calls=1.29, instructions=21.52, blocks=0.09),
    "messages without rejections": Cost(calls=2.26, instructions=60.95, blocks=0.05),
    "messages of large orders": Cost(calls=9.28, instructions=151.41, blocks=0.02),
    "push everything to 100 clients": Cost(calls=2.23, instructions=52.36, blocks=0.03),
    "push to 200 filters": Cost(calls=16.88, instructions=313.31, blocks=0.06),
    "push to 10,000 filters that want what does not occur": Cost(calls=0.04, instructions=1.62, blocks=0.02),
}


def span(layout: Layout) -> RawBatch:
    data = lines_of(layout, BLOCKS)
    return RawBatch("20260505/17", "head", 0, data, (FilePosition("20260505/17", 0, 0, "head"),), 0, 0, False, False, 0)


def decoded(layout: Layout, stream: Stream = ORDERS, need: Need = Need.TOGETHER) -> Callable[[], DecodedChunk]:
    whole = span(layout)
    cut = 0, len(whole.data)
    return lambda: decode(stream, layout, whole, cut, lambda: None, need=need)


def assembled(need: Need = Need.ROUTED) -> Callable[[], Batch]:
    layout = Layout.STREAMING
    chunk, whole = decoded(layout, need=need)(), span(layout)
    start = Cursor(ORDERS.directory(layout), whole.places)
    return lambda: assemble(ORDERS, start.directory, whole, [chunk], Deduplicator(start))


def messages(wanted: OrderFilter) -> Callable[[], object]:
    channel = Orders(wanted)

    def work() -> object:
        return [channel.messages(unseen(entry)) for entry in assembled_now.entries]

    assembled_now = assembled()()
    return work


def messages_of_lines(wanted: OrderFilter) -> Callable[[], object]:
    """The same by a reader, which has left the events in their lines."""
    channel, unseen_batches = Orders(wanted), [assembled(Need.FEW)() for _ in range(4)]
    numbers = itertools.count()

    def work() -> object:
        return [channel.messages(entry) for entry in unseen_batches[next(numbers)].entries]

    return work


def unseen(entry: Entry) -> Entry:
    """The same, of which no view has looked anything up yet."""
    slice_ = entry.slice
    return attrs.evolve(entry, slice=slice_.part(0, len(slice_.events), slice_.size_bytes))


@attrs.define(eq=False)
class Taking:
    """A client that takes everything."""

    allowance: Allowance = attrs.Factory(lambda: Budget(math.inf).open("a fake", 0))

    def offer(self, parts: Sequence[bytes], size: int) -> bool:  # noqa: ARG002  it looks at nothing
        return True

    def wake(self) -> None:
        """It has nothing to do."""


def pushed(wanted: Sequence[OrderFilter]) -> Callable[[], object]:
    """A batch through the hub, to a client for each filter."""
    batch = assembled()()
    hub = Hub(Ring(batch.before, 10**9), FrameCache, lambda: 0.0)
    for filter_ in wanted:
        hub.join(Subscription(Orders(filter_), "x", Taking(), batch.before, 0))
    hub.ring.append(batch)

    def work() -> object:
        with patch.object(hub_module, "AT_ONCE_US", 10**9), pytest.raises(StopIteration):  # it lets nobody run
            hub.publish(batch).send(None)
        return None

    return work


def two_hundred() -> list[OrderFilter]:
    """The coins that trade, with and without rejections, and some that do not."""
    coins = [OrderFilter.of(coins=[coin.name]) for coin in COINS]
    rest = [OrderFilter.of(coins=[coin.name], not_statuses=["rejected"]) for coin in COINS]
    return [*coins, *rest, *quiet(200 - 2 * len(COINS))]


def quiet(count: int) -> list[OrderFilter]:
    return [OrderFilter.of(coins=[f"QUIET{number}"]) for number in range(count)]


PATHS: dict[str, Callable[[], Callable[[], object]]] = {
    "decode plain": lambda: decoded(Layout.PLAIN),
    "decode by-block": lambda: decoded(Layout.BY_BLOCK),
    "decode streaming": lambda: decoded(Layout.STREAMING),
    "decode by-block with keys": lambda: decoded(Layout.BY_BLOCK, need=Need.ROUTED),
    "decode streaming with keys": lambda: decoded(Layout.STREAMING, need=Need.ROUTED),
    "decode streaming with keys, few wanted": lambda: decoded(Layout.STREAMING, need=Need.FEW),
    "assemble": assembled,
    "messages of everything": lambda: messages(OrderFilter()),
    "messages of one coin": lambda: messages(OrderFilter.of(coins=["BTC"])),
    "messages of one user": lambda: messages(OrderFilter.of(users=["0x" + "ab" * 20])),
    "messages without rejections": lambda: messages(OrderFilter.of(not_statuses=["rejected"])),
    "messages without rejections, of lines": lambda: messages_of_lines(OrderFilter.of(not_statuses=["rejected"])),
    "messages of large orders": lambda: messages(
        OrderFilter.of(details=OrderConditions(min_notional=Decimal(100_000)))
    ),
    "push everything to 100 clients": lambda: pushed([OrderFilter()] * 100),
    "push to 200 filters": lambda: pushed(two_hundred()),
    "push to 10,000 filters that want what does not occur": lambda: pushed(quiet(10_000)),
}


@contextmanager
def counted(opcodes: bool) -> Iterator[list[int]]:
    """Counts calls, or instructions, of what runs inside."""
    count = [0]

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        count[0] += event in {"call", "c_call"}

    def trace(frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401  itself
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count[0] += event == "opcode"
        return trace

    before = sys.gettrace(), sys.getprofile()
    try:
        sys.settrace(trace if opcodes else None)
        sys.setprofile(None if opcodes else profile)
        yield count
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])


def cost_of(work: Callable[[], object]) -> Cost:
    work()  # what is made once and kept is none of an event's
    with counted(opcodes=False) as calls:
        work()
    with counted(opcodes=True) as instructions:
        work()
    gc.collect()
    gc.disable()
    before = sys.getallocatedblocks()
    kept = work()
    blocks = sys.getallocatedblocks() - before
    gc.enable()
    del kept
    return Cost(round(calls[0] / EVENTS, 2), round(instructions[0] / EVENTS, 2), round(blocks / EVENTS, 2))


def too_much(now: Cost, then: Cost) -> list[str]:
    """What has grown."""
    each = {"calls": EACH, "instructions": math.inf, "blocks": EACH}
    return [
        name
        for name, before in attrs.asdict(then).items()
        if getattr(now, name) > min(SHARE * before + NONE, before + each[name])
    ]


@pytest.mark.parametrize("name", PATHS)
def test_an_event_costs_no_more_than_it_did(name: str) -> None:
    cost = cost_of(PATHS[name]())
    assert too_much(cost, STORED[name]) == [], f'"{name}": {cost}'


@pytest.mark.parametrize("layout", [Layout.BY_BLOCK, Layout.STREAMING])
def test_an_object_more_for_every_event_is_found(layout: Layout) -> None:
    class KeysAndAnother:
        @staticmethod
        def decode(events: bytes) -> Any:  # noqa: ANN401  what a decoder of keys must not return
            return [(keys, object()) for keys in ORDERS.many.decode(events)]

    now = cost_of(decoded(layout, attrs.evolve(ORDERS, many=cast("Any", KeysAndAnother)), Need.ROUTED))

    assert "blocks" in too_much(now, STORED[f"decode {layout.label} with keys"])


def test_a_fifth_more_is_found() -> None:
    then = Cost(calls=1, instructions=100, blocks=1)

    assert too_much(attrs.evolve(then, instructions=119), then) == []
    assert too_much(attrs.evolve(then, instructions=121), then) == ["instructions"]
    assert too_much(attrs.evolve(then, calls=11), attrs.evolve(then, calls=10)) == ["calls"]
