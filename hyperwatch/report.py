"""What the log says every ten seconds."""

from __future__ import annotations

import trio
from loguru import logger

from hyperwatch.node.streams import FILLS
from hyperwatch.pipeline import Pipeline
from hyperwatch.streams import Feed
from hyperwatch.vitals import Sign, Vitals

__all__ = ["report"]

REPORT_S = 10.0

_OF_FILLS = ("trades", "one_sided")


async def report(feed: Feed, vitals: Vitals) -> None:
    """Says every REPORT_S what has happened since the last time, of each stream. Does not end."""
    known: dict[Pipeline, dict[str, int]] = {}
    while True:
        last, known = known, {pipeline: _counts(pipeline) for pipeline in feed.pipelines}
        connections = feed.server.connections
        clients = {"clients": len(connections), "over_share": sum(each.over_budget for each in connections)}
        for pipeline, before in last.items():
            counts = {name: count - before[name] for name, count in known[pipeline].items()}
            _say(pipeline, counts, vitals.signs.get(pipeline.log.stream.name), clients)
        await trio.sleep(REPORT_S)


def _counts(pipeline: Pipeline) -> dict[str, int]:
    names = ("lines", "events", "failures", "batches", *(_OF_FILLS if pipeline.log.stream is FILLS else ()))
    return {name: getattr(pipeline.head.counters, name) for name in names}


def _say(pipeline: Pipeline, counts: dict[str, int], sign: Sign | None, clients: dict[str, int]) -> None:
    stream, moment = pipeline.log.stream, sign.now if sign is not None else None
    lag_bytes, lag_s = (moment.lag_bytes, moment.lag_s) if moment is not None else (0, 0.0)
    trades = "; {trades} trades, {one_sided} fills without another side" if stream is FILLS else ""
    over = ", {over_share} of them ask for more than their share" if clients["over_share"] else ""
    logger.bind(stream=stream.name, lag_bytes=lag_bytes, lag_s=lag_s, **clients, **counts).info(
        "last {:g} s: {lines} lines, {events} {}s, {failures} failures, {batches} batches; "
        "lag {} bytes, {:.3f} s; {clients} clients" + over + trades,
        REPORT_S, stream.noun, lag_bytes, lag_s, **clients, **counts,
    )  # fmt: skip
