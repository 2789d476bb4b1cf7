"""What the log says every ten seconds."""

from __future__ import annotations

import attrs
import trio
from loguru import logger

from hyperwatch.log.head import Counters
from hyperwatch.lookout import lag
from hyperwatch.pipeline import Pipeline
from hyperwatch.streams import Feed

__all__ = ["report"]

REPORT_S = 10.0


async def report(feed: Feed) -> None:
    """Says every REPORT_S what has happened since the last time, of each stream. Does not end."""
    known: dict[Pipeline, Counters] = {}
    while True:
        last, known = known, {pipeline: attrs.evolve(pipeline.head.counters) for pipeline in feed.pipelines}
        for pipeline in last:
            await _report_one(pipeline, last[pipeline], known[pipeline], len(feed.server.connections))
        await trio.sleep(REPORT_S)


async def _report_one(pipeline: Pipeline, last: Counters, now: Counters, clients: int) -> None:
    newest = pipeline.hub.last
    lag_bytes, lag_s = await lag(pipeline.log, pipeline.ring.end, newest.run.written_ms if newest else None)
    counts = {name: getattr(now, name) - getattr(last, name) for name in ("lines", "events", "failures", "batches")}
    stream = pipeline.log.stream
    logger.bind(stream=stream.name, lag_bytes=lag_bytes, lag_s=lag_s, clients=clients, **counts).info(
        "last {:g} s: {lines} lines, {events} {}s, {failures} failures, {batches} batches; "
        "lag {} bytes, {:.3f} s; {} clients",
        REPORT_S, stream.noun, lag_bytes, lag_s, clients, **counts,
    )  # fmt: skip
