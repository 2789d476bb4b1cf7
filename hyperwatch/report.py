"""What the log says every ten seconds."""

from __future__ import annotations

import attrs
import trio
from loguru import logger

from hyperwatch.log.counters import Counters
from hyperwatch.pipeline import Pipeline
from hyperwatch.streams import Feed
from hyperwatch.vitals import Sign, Vitals

__all__ = ["report"]

REPORT_S = 10.0


async def report(feed: Feed, vitals: Vitals) -> None:
    """Says every REPORT_S what has happened since the last time, of each stream. Does not end."""
    known: dict[Pipeline, Counters] = {}
    while True:
        last, known = known, {pipeline: attrs.evolve(pipeline.head.counters) for pipeline in feed.pipelines}
        for pipeline in last:
            sign = vitals.signs.get(pipeline.log.stream.name)
            _report_one(pipeline, sign, last[pipeline], known[pipeline], len(feed.server.connections))
        await trio.sleep(REPORT_S)


def _report_one(pipeline: Pipeline, sign: Sign | None, last: Counters, now: Counters, clients: int) -> None:
    moment = sign.now if sign is not None else None
    lag_bytes, lag_s = (moment.lag_bytes, moment.lag_s) if moment is not None else (0, 0.0)
    counts = {name: getattr(now, name) - getattr(last, name) for name in ("lines", "events", "failures", "batches")}
    stream = pipeline.log.stream
    logger.bind(stream=stream.name, lag_bytes=lag_bytes, lag_s=lag_s, clients=clients, **counts).info(
        "last {:g} s: {lines} lines, {events} {}s, {failures} failures, {batches} batches; "
        "lag {} bytes, {:.3f} s; {} clients",
        REPORT_S, stream.noun, lag_bytes, lag_s, clients, **counts,
    )  # fmt: skip
