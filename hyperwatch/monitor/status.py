"""The document at `/status`: what an operator and the page want to know. Reads, and never waits.

Times and spans carry their units; times are UTC milliseconds. Its shape is a promise: see docs/health.md.
"""

from __future__ import annotations

import sys
from collections import Counter

import msgspec

from hyperwatch import __version__
from hyperwatch.feed.subscription import Subscription
from hyperwatch.ingest.counters import Histogram
from hyperwatch.ingest.ring import Ring
from hyperwatch.ledger.state_dir import GapRecord
from hyperwatch.monitor.health import HealthMonitor, Sample, StreamHealth, quantile_ms
from hyperwatch.node.times import ms_of
from hyperwatch.server.connection import Connection

__all__ = ["PROTOCOL", "Status", "status"]

PROTOCOL = 1
"""Of the feed and of this document; another number for what older clients would misread."""

_CLIENTS = 50  # the furthest behind are named
_NEWEST = 20  # gaps and unreadable lines; /gaps has more
_COINS = 12
_COINS_EVENTS = 10_000  # looked at: a millisecond


class _Camel(msgspec.Struct, rename="camel", kw_only=True):
    """Spelled on the wire as the feed's messages are."""


class Latency(_Camel):
    """Since the service started, in milliseconds."""

    median_ms: float | None
    p99_ms: float | None


class StreamStatus(_Camel):
    """One stream."""

    stream: str
    layout: str
    lines: int
    events: int
    repeated: int
    size_bytes: int
    batches: int
    decode_failures: int
    quarantined: int
    deadlines: int
    node_restarts: int
    trades: int
    """Of fills, as the next: pairs of them."""
    one_sided_fills: int
    gaps: dict[str, int]
    classes: dict[str, int]
    statuses: dict[str, int]
    other_statuses: int
    coins: list[tuple[str, int]]
    """The busiest of what was decoded last, and how many events they had of it."""
    block: int | None
    block_time: int | None
    lag_bytes: int
    lag_seconds: float
    node_idle_seconds: float
    block_to_write: Latency
    write_to_read: Latency
    read_to_sent: Latency
    ring_bytes: int
    pending_bytes: int
    workers: int
    workers_busy: int
    moments: dict[str, list[float | None]]
    """The last minutes, a column a figure, oldest first."""


class ClientStatus(_Camel):
    """A client that is not at the head, or one that is."""

    peer: str
    subscriptions: int
    behind: int
    """How many of them are."""
    blocks: int | None
    """How far the last of them is behind, in blocks; None where that cannot be told."""
    seconds: float | None
    """The same in block time."""
    over_budget: bool
    """Whether they are served in turns, for they ask for more of the head's time than is the client's share."""


class Unreadable(_Camel):
    """What could not be read."""

    seen_ms: int
    file: str
    offset: int
    length_bytes: int
    reason: str


class Status(_Camel):
    """All of it."""

    protocol: int
    version: str
    python: str
    time: int
    start_time: int
    ready: bool
    troubles: list[dict[str, str]]
    streams: list[StreamStatus]
    client_count: int
    clients_behind: int
    subscription_count: int
    clients: list[ClientStatus]
    """At most _CLIENTS, those furthest behind first."""
    refusals: dict[str, int]
    gaps: list[GapRecord]
    """The newest, newest first."""
    unreadable: list[Unreadable]


def status(health: HealthMonitor, now_ms: int) -> Status:
    """How the service is."""
    troubles = health.troubles()
    clients = [_client(each, health) for each in health.connections()]
    ledger = health.ledger
    return Status(
        protocol=PROTOCOL,
        version=__version__,
        python=python(),
        time=now_ms,
        start_time=health.started_ms,
        ready=not troubles,
        troubles=[{"kind": trouble.kind, "text": trouble.text} for trouble in troubles],
        streams=[_stream(stream) for stream in health.streams.values()],
        client_count=len(clients),
        clients_behind=sum(client.behind > 0 for client in clients),
        subscription_count=sum(client.subscriptions for client in clients),
        clients=sorted(clients, key=lambda client: -(client.seconds or 0))[:_CLIENTS],
        refusals={why.value: count for why, count in health.admission.refusals.items()},
        gaps=list(ledger.gaps)[: -_NEWEST - 1 : -1],
        unreadable=[
            Unreadable(
                seen_ms=found.seen_ms,
                file=found.file,
                offset=found.offset,
                length_bytes=found.length_bytes,
                reason=found.reason,
            )
            for found in list(ledger.unreadable)[: -_NEWEST - 1 : -1]
        ],
    )


def python() -> str:
    """The interpreter's version."""
    return ".".join(map(str, sys.version_info[:3]))


def _stream(stream: StreamHealth) -> StreamStatus:
    counters, now, probe, end = stream.counters, stream.now, stream.probe, stream.probe.ring.end
    return StreamStatus(
        stream=stream.name,
        layout=stream.probe.log.layout.label,
        lines=counters.lines,
        events=counters.events,
        repeated=counters.repeated,
        size_bytes=counters.size_bytes,
        batches=counters.batches,
        decode_failures=counters.failures,
        quarantined=counters.quarantined,
        deadlines=counters.deadlines,
        node_restarts=counters.restarts,
        trades=counters.trades,
        one_sided_fills=counters.one_sided,
        gaps=dict(counters.gaps),
        classes=dict(+counters.classes()),
        statuses=dict(counters.statuses.most_common()),
        other_statuses=counters.other_statuses,
        coins=_coins(stream.probe.ring),
        block=end.block,
        block_time=_time_ms(end.time),
        lag_bytes=now.lag_bytes if now else 0,
        lag_seconds=round(now.lag_s, 3) if now else 0.0,
        node_idle_seconds=round(now.idle_s, 3) if now else 0.0,
        block_to_write=_latency(counters.block_to_write),
        write_to_read=_latency(counters.write_to_read),
        read_to_sent=_latency(counters.read_to_sent),
        ring_bytes=stream.probe.ring.weight_bytes,
        pending_bytes=probe.in_flight_bytes,
        workers=probe.workers,
        workers_busy=probe.workers_busy,
        moments=_columns(list(stream.samples)),
    )


def _columns(moments: list[Sample]) -> dict[str, list[float | None]]:
    return {
        "time": [moment.time_ms for moment in moments],
        "eventsPerSecond": [round(moment.events / moment.took_s) if moment.took_s else 0 for moment in moments],
        "bytesPerSecond": [round(moment.size_bytes / moment.took_s) if moment.took_s else 0 for moment in moments],
        "lagSeconds": [round(moment.lag_s, 3) for moment in moments],
        "blockToWriteMs": [_rounded(moment.block_to_write_ms) for moment in moments],
        "writeToReadMs": [_rounded(moment.write_to_read_ms) for moment in moments],
        "readToSentMs": [_rounded(moment.read_to_sent_ms) for moment in moments],
    }


def _latency(histogram: Histogram) -> Latency:
    return Latency(
        median_ms=_rounded(quantile_ms(histogram.counts, 0.5)), p99_ms=_rounded(quantile_ms(histogram.counts, 0.99))
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _coins(ring: Ring) -> list[tuple[str, int]]:
    found: Counter[str] = Counter()
    serial = ring.end_serial - 1
    looked = 0
    while looked < _COINS_EVENTS and (entry := ring.at(serial)) is not None:
        found.update(entry.slice.coin_counts)
        looked += entry.slice.count + 1
        serial -= 1
    return found.most_common(_COINS)


def _client(connection: Connection, health: HealthMonitor) -> ClientStatus:
    behind = [subscription for subscription in connection.subscriptions if not subscription.live]
    rings = {stream.probe.ring.end.directory: stream.probe.ring for stream in health.streams.values()}
    far = [_distance(each, rings[each.cursor.directory]) for each in behind if each.cursor.directory in rings]
    return ClientStatus(
        peer=connection.peer,
        subscriptions=len(connection.subscriptions),
        behind=len(behind),
        blocks=max((blocks for blocks, _ in far if blocks is not None), default=None),
        seconds=max((seconds for _, seconds in far if seconds is not None), default=None),
        over_budget=connection.over_budget,
    )


def _distance(subscription: Subscription, ring: Ring) -> tuple[int | None, float | None]:
    """(blocks, seconds) from a subscription's place to the head."""
    here, end = subscription.cursor, ring.end
    blocks = end.block - here.block if end.block is not None and here.block is not None else None
    here_ms, end_ms = _time_ms(here.time), _time_ms(end.time)
    seconds = (end_ms - here_ms) / 1000 if end_ms is not None and here_ms is not None else None
    return blocks, seconds


def _time_ms(text: str) -> int | None:
    try:
        return ms_of(text)
    except ValueError:
        return None  # a client's cursor may say anything
