"""What Prometheus reads. Nothing is counted here: plain integers are collected when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from itertools import accumulate
from typing import Literal

import attrs
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from hyperwatch import __version__
from hyperwatch.ingest.counters import BOUNDS_MS, Counters, Histogram
from hyperwatch.log.gaps import REASONS
from hyperwatch.monitor.health import HealthMonitor, StreamHealth
from hyperwatch.monitor.status import python
from hyperwatch.node.statuses import StatusClass
from hyperwatch.node.streams import FILLS, ORDERS
from hyperwatch.runtime import logs
from hyperwatch.server.admission import Admission
from hyperwatch.server.http import Answer, Request, Route
from hyperwatch.server.refusals import Reason
from hyperwatch.server.server import Server

__all__ = ["METRICS", "PREFIX", "Definition", "exposition", "metrics_server"]

PREFIX = "hyperwatch_"

_EVICTIONS = frozenset({Reason.RATE, Reason.SIZE, Reason.PROTOCOL, Reason.SILENT, Reason.STALLED})
"""Why a client that was in is put out. All else is a refusal."""

_Values = Iterable[tuple[tuple[str, ...], float | Histogram]]


@attrs.frozen
class Definition:
    """A metric."""

    name: str
    """Without the prefix and, of a counter, without `_total`."""
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    values: Callable[[HealthMonitor], _Values]
    labels: tuple[str, ...] = ()

    @property
    def whole_name(self) -> str:
        """As it is in queries."""
        return PREFIX + self.name + ("_total" if self.kind == "counter" else "")


def _free(health: HealthMonitor) -> _Values:
    return [((stream.name,), stream.free_bytes) for stream in health.streams.values() if stream.free_bytes is not None]


def _every(value: Callable[[StreamHealth], float | Histogram]) -> Callable[[HealthMonitor], _Values]:
    """One value a stream."""
    return lambda health: [((stream.name,), value(stream)) for stream in health.streams.values()]


def _classes(health: HealthMonitor) -> _Values:
    """Every class from the start, so that an increase from nothing is one; a stream without statuses has none."""
    for stream in health.streams.values():
        if stream.name != ORDERS.name:
            yield (stream.name, ""), stream.counters.events
            continue
        classes = stream.counters.classes()
        for each in StatusClass:
            yield (stream.name, each.value), classes[each.value]


def _gaps(health: HealthMonitor) -> _Values:
    for stream in health.streams.values():
        found = dict(stream.counters.gaps)  # threads add to it
        for reason in {**dict.fromkeys(REASONS), **found}:
            yield (stream.name, reason), found.get(reason, 0)


def _refusals(health: HealthMonitor) -> _Values:
    return [((why.value,), health.admission.refusals[why]) for why in Reason if why not in _EVICTIONS]


def _evictions(health: HealthMonitor) -> _Values:
    return [((), sum(health.admission.refusals[why] for why in _EVICTIONS))]


def _subscriptions(health: HealthMonitor) -> _Values:
    counts = {stream.probe.ring.end.directory: 0 for stream in health.streams.values()}
    for connection in health.connections():
        for subscription in connection.subscriptions:
            if subscription.cursor.directory in counts:
                counts[subscription.cursor.directory] += 1
    return [((stream.name,), counts[stream.probe.ring.end.directory]) for stream in health.streams.values()]


def _clients_behind(health: HealthMonitor) -> _Values:
    late = [any(not each.live for each in connection.subscriptions) for connection in health.connections()]
    return [((), sum(late))]


def _work(health: HealthMonitor) -> _Values:
    admission = health.admission
    return [(("share",), admission.budget.paid_us / 1e6), (("turns",), admission.turnstile.worked_us / 1e6)]


def _of_fills(value: Callable[[Counters], int]) -> Callable[[HealthMonitor], _Values]:
    """Of the one stream that has it; there from the start, and where the node writes no fills."""
    return lambda health: [((), value(health.counters[FILLS.name]))]


_STREAM = ("stream",)

METRICS = (
    Definition("lines", "counter", "Lines read, with those that could not be.", _every(lambda stream: stream.counters.lines), _STREAM),
    Definition("events", "counter", "Events read, by the class of their status (by its name alone); without what the node wrote a second time.",
               _classes, ("stream", "class")),
    Definition("duplicate_events", "counter", "Events that the node wrote a second time, left out.", _every(lambda stream: stream.counters.repeated), _STREAM),
    Definition("bytes", "counter", "Bytes read.", _every(lambda stream: stream.counters.size_bytes), _STREAM),
    Definition("batches", "counter", "Batches taken from the files.", _every(lambda stream: stream.counters.batches), _STREAM),
    Definition("batch_deadlines", "counter", "Times that a batch was not decoded within --deadline.", _every(lambda stream: stream.counters.deadlines), _STREAM),
    Definition("decode_failures", "counter", "Lines that could not be read.", _every(lambda stream: stream.counters.failures), _STREAM),
    Definition("unkeyed_events", "counter", "Events whose account, coin or status could not be read: filters see them as of none.",
               _every(lambda stream: stream.counters.unkeyed), _STREAM),
    Definition("quarantined", "counter", "Pieces that could not be read and are kept in the quarantine; a piece may be several lines.",
               _every(lambda stream: stream.counters.quarantined), _STREAM),
    Definition("node_restarts", "counter", "Times that the node went back and wrote blocks again.", _every(lambda stream: stream.counters.restarts), _STREAM),
    Definition("trades", "counter", "Trades: pairs of fills, one for each side.", _of_fills(lambda counters: counters.trades)),
    Definition("one_sided_fills", "counter", "Fills of which no other side came: in no trade.", _of_fills(lambda counters: counters.one_sided)),
    Definition("gaps", "counter", "What could not be delivered, by reason.", _gaps, ("stream", "reason")),
    Definition("lag_bytes", "gauge", "What lies in the files and has not been delivered.", _every(lambda stream: stream.now.lag_bytes if stream.now else 0), _STREAM),
    Definition("lag_seconds", "gauge", "How long ago the node wrote what was read last, where more lies in the files; else 0.",
               _every(lambda stream: stream.now.lag_s if stream.now else 0), _STREAM),
    Definition("node_idle_seconds", "gauge", "How long the node has written nothing.", _every(lambda stream: stream.now.idle_s if stream.now else 0), _STREAM),
    Definition("disk_free_bytes", "gauge", "What is left on the disk with the node's files, as it was at the last look.", _free, _STREAM),
    Definition("block_to_write_seconds", "histogram", "From a block's time to the node's writing it. None in the plain layout.",
               _every(lambda stream: stream.counters.block_to_write), _STREAM),
    Definition("write_to_read_seconds", "histogram", "From the node's writing to our reading. None in the plain layout.",
               _every(lambda stream: stream.counters.write_to_read), _STREAM),
    Definition("read_to_sent_seconds", "histogram", "From our reading to having sent to every client at the head that wants it.",
               _every(lambda stream: stream.counters.read_to_sent), _STREAM),
    Definition("in_flight_bytes", "gauge", "Taken from the files, and on the way through the workers.", _every(lambda stream: stream.probe.in_flight_bytes), _STREAM),
    Definition("ring_bytes", "gauge", "What the warm head of the log weighs in memory.", _every(lambda stream: stream.probe.ring.weight_bytes), _STREAM),
    Definition("worker_tokens", "gauge", "Workers.", _every(lambda stream: stream.probe.workers), _STREAM),
    Definition("worker_tokens_used", "gauge", "Those at work.", _every(lambda stream: stream.probe.workers_busy), _STREAM),
    Definition("subscriptions", "gauge", "Subscriptions of all clients.", _subscriptions, _STREAM),
    Definition("clients", "gauge", "WebSocket clients.", lambda health: [((), len(health.connections()))]),
    Definition("clients_behind", "gauge", "Those with a subscription that is not at the head.", _clients_behind),
    Definition("clients_over_budget", "gauge", "Those of them that ask for more of the head's time than is their share: served in turns.",
               lambda health: [((), sum(connection.over_budget for connection in health.connections()))]),
    Definition("head_work_seconds", "counter", "Work done for clients, as security.md counts it: within their share, and in turns.", _work, ("in",)),
    Definition("filter_words", "gauge", "Words in the filters of all clients, as security.md counts them.", lambda health: [((), health.admission.words.held)]),
    Definition("evictions", "counter", "Clients that were put out: silent, stalled, or sending too much or nonsense.", _evictions),
    Definition("refusals", "counter", "What clients were refused, by reason; see security.md.", _refusals, ("reason",)),
    Definition("log_lines_dropped", "counter", "Lines that the log had no room for: standard error was not read, or could not be written.",
               lambda _: [((), logs.dropped())]),
    Definition("ready", "gauge", "1 where /readyz says so, else 0.", lambda health: [((), not health.troubles())]),
    Definition("start_time_seconds", "gauge", "When the service started, in seconds since 1970.", lambda health: [((), health.started_ms / 1000)]),
    Definition("build_info", "gauge", "Always 1.", lambda _: [((__version__, python()), 1)], ("version", "python")),
)  # fmt: skip
"""All of them; docs/metrics.md is made of this."""


class _Collected(Collector):
    """Every metric as it is now."""

    def __init__(self, health: HealthMonitor) -> None:
        self._vitals = health

    def collect(self) -> Iterator[Metric]:
        return (_family(definition, self._vitals) for definition in METRICS)


def _family(definition: Definition, health: HealthMonitor) -> Metric:
    name, meaning, labels = PREFIX + definition.name, definition.meaning, definition.labels
    if definition.kind == "histogram":
        histograms = HistogramMetricFamily(name, meaning, labels=labels)
        for label, value in definition.values(health):
            if isinstance(value, Histogram):
                histograms.add_metric(label, buckets=_buckets(value), sum_value=value.sum_ms / 1000)
        return histograms
    family = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    numbers = family(name, meaning, labels=labels)
    for label, value in definition.values(health):
        if not isinstance(value, Histogram):
            numbers.add_metric(label, value)
    return numbers


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    ends = [*(f"{bound / 1000:g}" for bound in BOUNDS_MS), "+Inf"]
    return list(zip(ends, accumulate(histogram.counts), strict=True))


def exposition(health: HealthMonitor) -> Callable[[], bytes]:
    """What makes the text that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(health))
    return lambda: generate_latest(registry)


def metrics_server(health: HealthMonitor) -> Server:
    """A server of nothing but `/metrics`, with an admission of its own: clients of the feed cannot take its places."""
    text = exposition(health)

    async def answer(_: Request) -> Answer:
        await trio.lowlevel.checkpoint()
        return Answer(HTTPStatus.OK, text(), CONTENT_TYPE_LATEST)

    return Server({}, Admission(), {"/metrics": Route(answer, free=True)})
