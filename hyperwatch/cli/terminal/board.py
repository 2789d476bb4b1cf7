"""What a live table shows, and what it counts. Pure: messages of the feed in, rows and numbers out."""

from __future__ import annotations

from collections import Counter, deque

import attrs
import msgspec

__all__ = ["Board", "Row", "gap_text"]

_ROWS = 200  # more than any terminal is high
_NOTICES = 50
_WINDOW_S = 3.0  # over which the rate is taken


class _Order(msgspec.Struct, gc=False):
    coin: str
    side: str = ""
    limitPx: msgspec.Raw = msgspec.Raw(b"")
    sz: msgspec.Raw = msgspec.Raw(b"")
    origSz: msgspec.Raw = msgspec.Raw(b"")


class _Event(msgspec.Struct, gc=False):
    user: str
    status: str
    order: _Order
    time: str = ""


class _Orders(msgspec.Struct):
    events: list[msgspec.Raw]
    blockNumber: int | None = None
    blockTime: int | None = None


class _Standing(msgspec.Struct):
    blockNumber: int | None = None
    writeTime: int | None = None


class _Edge(msgspec.Struct):
    block: int | None = None
    time: int | None = None
    index: int = 0

    def __str__(self) -> str:
        return f"event {self.index} of " + (f"block {self.block}" if self.block is not None else f"time {self.time} ms")


class _Gap(msgspec.Struct, rename={"start": "from"}):
    stream: str
    reason: str
    start: _Edge
    to: _Edge
    readable: bool = False


_ORDERS = msgspec.json.Decoder(_Orders)
_EVENT = msgspec.json.Decoder(_Event)
_STANDING = msgspec.json.Decoder(_Standing)
_GAP = msgspec.json.Decoder(_Gap)
_SIDES = {"B": "bid", "A": "ask"}


@attrs.frozen
class Row:
    """One order event, as a table shows it."""

    time: str
    """Of the event, UTC, `17:39:13.024`."""
    coin: str
    side: str
    status: str
    price: str
    size: str
    """What is left and what it began with, `0.5/1.0`."""
    user: str
    latency_ms: int | None
    """From the block's time until it was here; None where the block has none."""


@attrs.define
class Board:
    """The newest orders, and totals.

    Args:
        limit: how many events are taken at most; None for no end.
    """

    limit: int | None = None
    orders: int = 0
    block: int | None = None
    lag_ms: int | None = None
    """How old the newest line was that the service had read, when it last said so."""
    gaps: int = 0
    statuses: Counter[str] = attrs.field(factory=Counter)
    rows: deque[Row] = attrs.field(factory=lambda: deque(maxlen=_ROWS))
    """Newest first."""
    notices: deque[str] = attrs.field(factory=lambda: deque(maxlen=_NOTICES))
    _samples: deque[tuple[float, int]] = attrs.field(factory=deque)

    @property
    def full(self) -> bool:
        """Whether `limit` is reached."""
        return self.limit is not None and self.orders >= self.limit

    def take(self, channel: str, data: bytes, now_ms: int) -> None:
        """A message of the feed.

        Args:
            channel: its channel; those that are not known are let pass.
            data: its data, JSON.
            now_ms: when it came, UTC ms.

        Raises:
            msgspec.DecodeError: where the data is not what the feed sends on that channel.
        """
        if channel == "orders":
            self._orders(_ORDERS.decode(data), now_ms)
        elif channel in ("cursor", "live"):
            standing = _STANDING.decode(data)
            self.block = standing.blockNumber or self.block
            self.lag_ms = None if standing.writeTime is None else max(0, now_ms - standing.writeTime)
        elif channel == "gap":
            self.gaps += 1

    def tick(self, now_s: float) -> float:
        """Orders a second over the last _WINDOW_S, to be asked for regularly. `now_s` by any steady clock."""
        self._samples.append((now_s, self.orders))
        while len(self._samples) > 2 and now_s - self._samples[1][0] >= _WINDOW_S:  # noqa: PLR2004  a rate needs two
            self._samples.popleft()
        then_s, then = self._samples[0]
        return (self.orders - then) / (now_s - then_s) if now_s > then_s else 0.0

    def _orders(self, message: _Orders, now_ms: int) -> None:
        raws = message.events if self.limit is None else message.events[: self.limit - self.orders]
        self.orders += len(raws)
        events = [_known(raw) for raw in raws]
        self.block = message.blockNumber or self.block
        self.statuses.update(event.status for event in events)
        latency_ms = None if message.blockTime is None else max(0, now_ms - message.blockTime)
        self.rows.extendleft(_row(event, latency_ms) for event in events[-_ROWS:])


def gap_text(data: bytes) -> str:
    """The data of a `gap` message in words. Raises msgspec.DecodeError."""
    gap = _GAP.decode(data)
    kept = "it is still in the node's files" if gap.readable else "it cannot be read any more"
    return f"gap: {gap.stream} from {gap.start} to {gap.to} was not delivered ({gap.reason}); {kept}"


def _known(raw: msgspec.Raw) -> _Event:
    """An event, of which nothing need be known but that it is one."""
    try:
        return _EVENT.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return _Event("?", "?", _Order("?"))


def _row(event: _Event, latency_ms: int | None) -> Row:
    order = event.order
    return Row(
        time=_printable(event.time[11:23]),
        coin=_printable(order.coin),
        side=_SIDES.get(order.side, _printable(order.side)),
        status=_printable(event.status),
        price=_number(order.limitPx),
        size=f"{_number(order.sz)}/{_number(order.origSz)}",
        user=_printable(event.user),
        latency_ms=latency_ms,
    )


def _number(value: msgspec.Raw) -> str:
    """A decimal as the node wrote it, without its quotes."""
    return _printable(bytes(value).decode(errors="replace").strip('"'))


def _printable(text: str) -> str:
    """Text that moves no cursor: names come from the chain."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in text)
