"""Writes metrics.md from the code. `tests/monitor/test_metrics.py` fails where the two differ."""

from __future__ import annotations

from pathlib import Path

from hyperwatch.ingest.counters import BOUNDS_MS
from hyperwatch.monitor.metrics import METRICS, Definition

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).with_name("metrics.md")

_HEAD = """# Metrics

This page is made from the code by `docs/make_metrics.py`.

`hyperwatch run` answers `/metrics` on `--metrics-listen`, by default `127.0.0.1:9464`, in the text that Prometheus reads. There is
neither a token nor TLS on that port: keep it on loopback or in a network of your own. Another sidecar on the same machine needs
another port; an empty address turns the metrics off.

```yaml
scrape_configs:
  - job_name: hyperwatch
    static_configs: [{ targets: ["127.0.0.1:9464"] }]
```

Nothing is timed or labelled while lines are read: plain integers are collected when somebody asks. Gauges of lag and idleness are
as they were at the last look, a second ago at most. Counters begin at 0 when the process starts. `stream` is the node's directory
without a layout's suffix, as in `node_order_statuses`; until the node has written, there are no values with a stream.
"""

_TAIL = """
The histograms have their upper ends at {bounds} seconds. What a node wrote a second time, and lines
that appeared late, are in none of them: they would say how long the node was down.

A class is that of the status's name. A rejection of an order that was live counts as `rejected` here, while
[filters](protocol.md#statuses-and-classes) take it for `removed`: to tell, every event would have to be looked at.
"""


def page() -> str:
    """The whole page."""
    rows = ["| name | kind | labels | meaning |", "|---|---|---|---|", *map(_row, METRICS)]
    bounds = ", ".join(f"{bound / 1000:g}" for bound in BOUNDS_MS)
    return "\n".join([_HEAD, *rows]) + "\n" + _TAIL.format(bounds=bounds)


def _row(definition: Definition) -> str:
    labels = ", ".join(f"`{label}`" for label in definition.labels)
    return f"| `{definition.whole_name}` | {definition.kind} | {labels} | {definition.meaning} |"


if __name__ == "__main__":
    PAGE.write_text(page())
