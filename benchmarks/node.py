"""What a node writes, made beforehand so that making it costs nothing while it is measured, and when it was written.

Blocks are numbered on and on: what has been written once would be known as a restarted node's repeat.
"""

from __future__ import annotations

import gc
import gzip
import re
import time
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Self

import attrs

from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.simulate.market import Market
from hyperwatch.simulate.model import BLOCK_GAP_NS, stamp

__all__ = ["Backlog", "Node", "Sheet", "market", "recorded", "simulated"]

_HOUR = "20260505/17"
_ANCHOR_NS = 1_778_002_000_000_000_000  # block 0's time, some time in 2026: all that matters is that lines are as long
_FIRST = 985_000_000
_NUMBER = re.compile(rb'"block_number":(\d+)')
_SAMPLES = {
    Layout.STREAMING: "node_order_statuses-streaming-btc51.jsonl.gz",
    Layout.BY_BLOCK: "node_order_statuses-by_block-btc51.jsonl.gz",
    Layout.PLAIN: "node_order_statuses-plain-btc51-thinned.jsonl.gz",
}
_SENTINEL = (
    b'{"time":"2026-05-05T17:39:13.024084407","user":"0x5e17151e15e17151e15e17151e15e17151e15e17","hash":null,'
    b'"builder":null,"status":"open","order":{"coin":"BTC","side":"B","limitPx":"65045.0","sz":"0.0003","oid":1,'
    b'"timestamp":1778002753024,"triggerCondition":"N/A","isTrigger":false,"triggerPx":"0.0","children":[],'
    b'"isPositionTpsl":false,"reduceOnly":false,"orderType":"Limit","origSz":"0.0003","tif":"Alo","cloid":null}}'
)

Events = Sequence[bytes]


def market(lines_per_s: float, blocks: int, seed: int = 1) -> list[Events]:
    """The events of so many simulated blocks, 67 ms apart; those of empty blocks are left out."""
    made = Market(seed, lines_per_s * BLOCK_GAP_NS / 1e9)
    return [events for _ in range(blocks) if (events := list(made.next_block().orders))]


def lines(layout: Layout, number: int, events: Events) -> list[bytes]:
    """A block as the node writes it."""
    if layout is Layout.PLAIN:
        return [event + b"\n" for event in events]
    time_ns = _ANCHOR_NS + (number - _FIRST) * BLOCK_GAP_NS + 84_407
    head = (
        f'{{"local_time":"{stamp(time_ns + 325_000_001)}","block_time":"{stamp(time_ns)}","block_number":{number},"events":['
    ).encode()
    if layout is Layout.BY_BLOCK:
        return [head + b",".join(events) + b"]}\n"]
    return [b"%b%b]}\n" % (head, event) for event in events]


@attrs.frozen
class Backlog:
    """The same events in several layouts, to be written as often as wanted."""

    data: dict[Layout, bytes]
    events: dict[Layout, int]
    first: int
    blocks: int

    def copies(self, layout: Layout, count: int, number: int) -> tuple[bytes, int]:
        """The events `count` times, in blocks from `number` on, and the block of the one event behind them."""
        parts = [self._at(layout, number + copy * self.blocks) for copy in range(count)]
        number += count * self.blocks
        return b"".join([*parts, *lines(layout, number, [_SENTINEL])]), number

    def _at(self, layout: Layout, number: int) -> bytes:
        shift = number - self.first

        def moved(found: re.Match[bytes]) -> bytes:
            return b'"block_number":%d' % (int(found[1]) + shift)

        return _NUMBER.sub(moved, self.data[layout])


def simulated(events: int) -> Backlog:
    """About so many simulated events, in blocks of a busy day."""
    blocks = market(23_500, events // 1_575)
    numbered = list(enumerate(blocks, _FIRST))
    data = {layout: b"".join(line for each in numbered for line in lines(layout, *each)) for layout in Layout}
    total = sum(map(len, blocks))
    return Backlog(data, dict.fromkeys(Layout, total), _FIRST, len(blocks))


def recorded(folder: Path) -> Backlog:
    """Recordings of mainnet, where they are: the same 51 blocks in two layouts, and some of their events in the third."""
    data = {layout: gzip.decompress((folder / name).read_bytes()) for layout, name in _SAMPLES.items()}
    numbers = {int(number) for number in _NUMBER.findall(data[Layout.BY_BLOCK])}
    count = data[Layout.STREAMING].count(b"\n")
    events = {Layout.STREAMING: count, Layout.BY_BLOCK: count, Layout.PLAIN: data[Layout.PLAIN].count(b"\n")}
    return Backlog(data, events, min(numbers), len(numbers))


@attrs.frozen
class Sheet:
    """What is to be written."""

    writes: list[list[bytes]]
    """Of each block."""
    ends: dict[int, int]
    """Of each block: where it ends in the file."""
    lines: int

    @property
    def last(self) -> int:
        """The block that ends the turn."""
        return max(self.ends)


class Node:
    """Writes one hour file. A context manager: it owns the file.

    Args:
        root: the data directory.
        layout: how it writes.
    """

    def __init__(self, root: Path, layout: Layout = Layout.STREAMING) -> None:
        self.root = root
        self.layout = layout
        self.path = root / ORDERS.directory(layout) / "hourly" / _HOUR
        self.path.parent.mkdir(parents=True)
        self.block = _FIRST  # that comes next
        self._file = FileIO(self.path, "ab")

    def __enter__(self) -> Self:
        self.append(b"".join(lines(self.layout, self.block, [_SENTINEL])))
        self.block += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self.path.unlink()

    def append(self, data: bytes) -> None:
        """Writes."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def put(self, blocks: Sequence[Events]) -> int:
        """Writes blocks at once; returns the last one's number."""
        self.append(
            b"".join(
                line for number, each in enumerate(blocks, self.block) for line in lines(self.layout, number, each)
            )
        )
        self.block += len(blocks)
        return self.block - 1

    def put_backlog(self, backlog: Backlog, count: int) -> int:
        """Writes a backlog so many times, and one event behind it, whose block is returned."""
        data, last = backlog.copies(self.layout, count, self.block)
        self.append(data)
        self.block = last + 1
        return last

    def prepare(self, blocks: Sequence[Events], *, per_line: bool) -> Sheet:
        """What `pace` is to write: these blocks, each in one write or each line in its own, and one event at the end."""
        size, ends = self._file.tell(), dict[int, int]()
        writes: list[list[bytes]] = []
        for number, events in enumerate([*blocks, [_SENTINEL]], self.block):
            each = lines(self.layout, number, events)
            size += sum(map(len, each))
            ends[number] = size
            writes.append(each if per_line else [b"".join(each)])
        self.block += len(writes)
        return Sheet(writes, ends, sum(map(len, blocks)))

    def pace(self, sheet: Sheet) -> dict[int, int]:
        """Writes blocks 67 ms apart. Returns for each, but the event at the end, when its last write began, ns."""
        at_ns: dict[int, int] = {}
        gc.collect()
        gc.disable()
        begun_s = time.monotonic()
        for turn, (number, (*before, last)) in enumerate(zip(sheet.ends, sheet.writes, strict=True)):
            time.sleep(max(0.0, begun_s + turn * BLOCK_GAP_NS / 1e9 - time.monotonic()))
            for piece in before:
                self._file.write(piece)
            at_ns[number] = time.monotonic_ns()
            self.append(last)
        gc.enable()
        del at_ns[sheet.last]
        return at_ns
