"""The streams of a node, their three layouts, and where each hour of them lives.

A stream is a value: its directory's name and what of an event the feed routes by. Source of every name: the flags of
the official node and real data directories (`{root}/{stream}{suffix}/hourly/{YYYYMMDD}/{H}`, H without zero padding).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date, timedelta
from operator import attrgetter
from typing import Literal

import attrs
import msgspec

from hyperwatch.node.envelopes import Envelope, bare, number_of
from hyperwatch.node.json_lines import Lines, again
from hyperwatch.node.keys import DiffKeys, FillKeys, FillPart, Keys, OrderKeys, OrderPart
from hyperwatch.node.lenient_keys import UNREADABLE, diff_of, fill_of, order_of

__all__ = [
    "DIFFS",
    "FILLS",
    "ORDERS",
    "STREAMS",
    "Layout",
    "Stream",
    "day_before",
    "hour_end_ms",
    "hour_follows",
    "hour_name",
    "hour_rank",
    "sniff",
]


class Layout(enum.Enum):
    """How a node arranges events in lines. The value is the suffix of the stream's directory."""

    PLAIN = ""
    BY_BLOCK = "_by_block"
    STREAMING = "_streaming"

    @property
    def label(self) -> str:
        """The layout's name as options spell it: plain, by-block, streaming."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def of_label(cls, label: str) -> Layout:
        """The layout that options call `label`. Raises ValueError for any other word."""
        for layout in cls:
            if layout.label == label:
                return layout
        msg = f"no layout is called {label!r}"
        raise ValueError(msg)


@attrs.frozen
class Stream:
    """One kind of output that a node writes."""

    name: str
    """The directory's name without a layout's suffix, as in `node_order_statuses`."""
    keys: msgspec.json.Decoder[Keys]
    """Decodes an event to what the feed routes by; raises msgspec.DecodeError for what is no event of this stream."""
    many: msgspec.json.Decoder[list[Keys]]
    """The same for an array of them, at half the cost of one after the other."""
    lines: Lines[Keys]
    """The same for lines of one each."""
    envelopes: Lines[Envelope[Keys]]
    """The same for lines of one each in an envelope."""
    loose: Callable[[msgspec.Raw | bytes], Keys | None]
    """Reads each key of an event by itself; None for what has not even the shape of this stream's events."""
    coin: Callable[[Keys], str]
    """An event's coin, by its keys: in C, where their property is a call for every event."""
    nothing: Keys
    """Stands for the keys of an event of which they cannot be read: of no account, coin, or known status."""
    opening: bytes
    """How an event begins: by that a whole one is found behind one that was cut."""
    noun: str
    """What people call one of its events."""
    flag: str
    """With this flag a node writes it."""

    def directory(self, layout: Layout) -> str:
        """The directory's name under the node's data directory."""
        return self.name + layout.value


ORDERS = Stream(
    name="node_order_statuses",
    keys=msgspec.json.Decoder(OrderKeys),
    many=msgspec.json.Decoder(list[OrderKeys]),
    lines=msgspec.json.Decoder(list[OrderKeys | Literal["\x7f"]]),
    envelopes=msgspec.json.Decoder(list[Envelope[OrderKeys] | Literal["\x7f"]]),
    loose=order_of,
    coin=attrgetter("order.coin"),
    nothing=OrderKeys("", "", OrderPart("")),
    opening=b'{"time":',
    noun="order",
    flag="--write-order-statuses",
)
FILLS = Stream(
    name="node_fills",
    keys=msgspec.json.Decoder(FillKeys),
    many=msgspec.json.Decoder(list[FillKeys]),
    lines=msgspec.json.Decoder(list[FillKeys | Literal["\x7f"]]),
    envelopes=msgspec.json.Decoder(list[Envelope[FillKeys] | Literal["\x7f"]]),
    loose=fill_of,
    coin=attrgetter("fill.coin"),
    nothing=FillKeys("", FillPart("")),
    opening=b'["0x',
    noun="fill",
    flag="--write-fills",
)
DIFFS = Stream(
    name="node_raw_book_diffs",
    keys=msgspec.json.Decoder(DiffKeys),
    many=msgspec.json.Decoder(list[DiffKeys]),
    lines=msgspec.json.Decoder(list[DiffKeys | Literal["\x7f"]]),
    envelopes=msgspec.json.Decoder(list[Envelope[DiffKeys] | Literal["\x7f"]]),
    loose=diff_of,
    coin=attrgetter("coin"),
    nothing=DiffKeys("", "", 0, msgspec.Raw(b"null")),
    opening=b'{"user":',
    noun="book diff",
    flag="--write-raw-book-diffs",
)

STREAMS: dict[str, Stream] = {stream.name: stream for stream in (ORDERS, FILLS, DIFFS)}

_DAY = re.compile(r"20\d{6}")
_HOUR = re.compile(r"\d|1\d|2[0-3]")


def hour_name(day: str, hour: str) -> str | None:
    """`day/hour` where both are what a node calls its directories and files, else None.

    Other names in a data directory (temporary files, compressed copies) are not the log's.
    """
    if _DAY.fullmatch(day) and _HOUR.fullmatch(hour):
        with suppress(ValueError):
            _date(day)
            return f"{day}/{hour}"
    return None


def hour_rank(name: str) -> int:
    """A number that orders hour files by time: hours without padding do not sort as text."""
    day, _, hour = name.partition("/")
    return int(day) * 100 + int(hour)


def hour_follows(older: str, newer: str) -> bool:
    """Whether no hour lies between the hours of two files."""
    return _hours(newer) - _hours(older) <= 1


def hour_end_ms(name: str) -> int | None:
    """When the hour ends that a file is called by, UTC ms; None where its name is no hour's."""
    day, _, hour = name.partition("/")
    if hour_name(day, hour) is None:
        return None
    return (_hours(name) + 1) * 3_600_000 - _EPOCH_HOURS * 3_600_000


def day_before(name: str) -> str:
    """The file of the same hour, a day before."""
    day, _, hour = name.partition("/")
    return f"{_date(day) - timedelta(days=1):%Y%m%d}/{hour}"


_EPOCH_HOURS = date(1970, 1, 1).toordinal() * 24


def _hours(name: str) -> int:
    day, _, hour = name.partition("/")
    return _date(day).toordinal() * 24 + int(hour)


def _date(day: str) -> date:
    return date(int(day[:4]), int(day[4:6]), int(day[6:]))


class _Probe(msgspec.Struct):
    """Keys by which a recorded line shows its layout and, through its first event, its stream."""

    block_number: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    events: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


class _Marks(msgspec.Struct):
    """Keys that only one stream's events have."""

    order: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    status: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    raw_book_diff: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_PROBE, _MARKS = msgspec.json.Decoder(_Probe), msgspec.json.Decoder(_Marks)


def sniff(lines: list[bytes]) -> tuple[Stream | None, Layout] | None:
    """What the first lines of a recording are: (stream, layout), or None where they are no node output.

    The stream is None where no line holds an event (by-block files of a quiet stream). One event a line could be
    either envelope layout. More than one in any line, or none, is by-block, unless a block has several lines.
    """
    layout = Layout.STREAMING
    blocks: list[int] = []
    stream: Stream | None = None
    lines = [line for each in lines if (line := bare(each))]
    for line in lines:
        try:
            probe = again(_PROBE, line)
        except UNREADABLE:
            stream = stream or _stream_of(line)
            if stream is None:
                return None
            return stream, Layout.PLAIN
        if probe.block_number is msgspec.UNSET or probe.events is msgspec.UNSET:
            plain = _stream_of(line)
            return None if plain is None else (plain, Layout.PLAIN)
        number = number_of(probe.block_number)
        if number is None:
            return None
        if len(probe.events) != 1:
            layout = Layout.BY_BLOCK
        blocks.append(number)
        if probe.events and stream is None:
            stream = _stream_of(bytes(probe.events[0]))
            if stream is None:
                return None
    if len(set(blocks)) < len(blocks):
        layout = Layout.STREAMING  # by-block files have one line for a block
    return (stream, layout) if lines else None


def _stream_of(event: bytes) -> Stream | None:
    for stream in STREAMS.values():
        try:
            again(stream.keys, event)
        except UNREADABLE:
            continue
        return stream
    return _marked(event)


def _marked(event: bytes) -> Stream | None:
    """By the marks alone: some other key may be of no known type."""
    try:
        marks = again(_MARKS, event)
    except UNREADABLE:
        fill = fill_of(event)
        return FILLS if fill is not None and fill.user and fill.coin else None
    if msgspec.UNSET not in (marks.order, marks.status):
        return ORDERS
    return None if marks.raw_book_diff is msgspec.UNSET else DIFFS
