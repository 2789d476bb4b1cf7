"""Decoding alone: bytes of a file to events, beside `json.loads` over the same events, one a line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.baselines.loads import loads
from benchmarks.book import OURS
from benchmarks.node import Backlog, recorded, simulated
from benchmarks.processes import started
from benchmarks.run import Run
from hyperwatch.node.cuts import BATCH_BYTES, pieces
from hyperwatch.node.decoder import Decoder, Need
from hyperwatch.node.streams import ORDERS, Layout

__all__ = ["decode"]

_TURN_S = 60.0


def decode(run: Run) -> None:
    """Three layouts, simulated and, where they are, recorded."""
    sources = {"simulated": simulated(run.few(60_000, 10_000))}
    if run.samples is not None:
        sources["recorded"] = recorded(run.samples)
    for source, backlog in sources.items():
        for layout in Layout:
            with run.case(f"decode/{layout.label}/{source}") as folder:
                _case(run, f"decode/{layout.label}/{source}", backlog, layout, folder)


def _case(run: Run, case: str, backlog: Backlog, layout: Layout, folder: Path) -> None:
    one_a_line = Layout.PLAIN if layout is Layout.PLAIN else Layout.STREAMING
    copies = max(1, run.few(80_000, 10_000) // backlog.events[layout])
    (folder / "ours").write_bytes(backlog.copies(layout, copies, backlog.first)[0])
    (folder / "lines").write_bytes(backlog.copies(one_a_line, copies, backlog.first)[0])
    arguments = (layout.label, folder / "ours", folder / "lines", run.rounds)
    with started("benchmarks.decode", *arguments, log=folder / "log") as process:
        for _ in range(run.rounds):
            run.book.add(case, OURS, **process.hear(_TURN_S))
            run.book.add(case, "json.loads", **process.hear(_TURN_S))


def turn(data: bytes, layout: Layout) -> dict[str, float]:
    """Decodes a file as the head does, 8 MiB at a time, in pieces, keeping one batch's events."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    count = start = 0
    while start < len(data):
        end = len(data) if len(data) - start <= BATCH_BYTES else data.index(b"\n", start + BATCH_BYTES) + 1
        decoder = Decoder(ORDERS, layout, start, need=Need.TOGETHER)
        for first, last in pieces(data, start, end):
            decoder.feed(data[first:last])
        count += sum(each.count for each in decoder.slices)
        start = end
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return {"events_per_s": count / wall_s, "events_per_cpu_s": count / cpu_s, "wall_s": wall_s, "cpu_s": cpu_s}


def main(label: str, ours: str, lines: str, rounds: str) -> None:
    """The process: both in turns."""
    ours_data, lines_data = Path(ours).read_bytes(), Path(lines).read_bytes()
    for _ in range(int(rounds)):
        print(json.dumps(turn(ours_data, Layout.of_label(label))))
        print(json.dumps(loads(lines_data)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
