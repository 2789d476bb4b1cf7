"""What the log says every ten seconds."""

from __future__ import annotations

import trio
from loguru import logger

from hyperwatch.monitor.health import HealthMonitor, StreamHealth
from hyperwatch.monitor.probe import ServiceProbe, StreamProbe
from hyperwatch.node.streams import FILLS

__all__ = ["report"]

REPORT_S = 10.0

_OF_FILLS = ("trades", "one_sided")


async def report(service: ServiceProbe, health: HealthMonitor) -> None:
    """Says every REPORT_S what has happened since the last time, of each stream. Does not end."""
    known: dict[StreamProbe, dict[str, int]] = {}
    while True:
        last, known = known, {probe: _counts(probe) for probe in service.probes}
        connections = service.connections
        clients = {"clients": len(connections), "over_share": sum(each.over_budget for each in connections)}
        for probe, before in last.items():
            counts = {name: count - before[name] for name, count in known[probe].items()}
            _say(probe, counts, health.streams.get(probe.log.stream.name), clients)
        await trio.sleep(REPORT_S)


def _counts(probe: StreamProbe) -> dict[str, int]:
    names = ("lines", "events", "failures", "batches", *(_OF_FILLS if probe.log.stream is FILLS else ()))
    return {name: getattr(probe.counters, name) for name in names}


def _say(probe: StreamProbe, counts: dict[str, int], health: StreamHealth | None, clients: dict[str, int]) -> None:
    stream, sample = probe.log.stream, health.now if health is not None else None
    lag_bytes, lag_s = (sample.lag_bytes, sample.lag_s) if sample is not None else (0, 0.0)
    trades = "; {trades} trades, {one_sided} fills without another side" if stream is FILLS else ""
    over = ", {over_share} of them ask for more than their share" if clients["over_share"] else ""
    logger.bind(stream=stream.name, lag_bytes=lag_bytes, lag_s=lag_s, **clients, **counts).info(
        "last {:g} s: {lines} lines, {events} {}s, {failures} failures, {batches} batches; "
        "lag {} bytes, {:.3f} s; {clients} clients" + over + trades,
        REPORT_S, stream.noun, lag_bytes, lag_s, **clients, **counts,
    )  # fmt: skip
