"""A bare `json.loads` loop over a file of one event a line: `python -m benchmarks.baselines.loads FILE`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

__all__ = ["loads"]


def loads(data: bytes) -> dict[str, float]:
    """Parses every line and drops what it says."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    count = 0
    for line in data.splitlines():
        json.loads(line)
        count += 1
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return {"events_per_s": count / wall_s, "events_per_cpu_s": count / cpu_s, "wall_s": wall_s, "cpu_s": cpu_s}


if __name__ == "__main__":
    print(json.dumps(loads(Path(sys.argv[1]).read_bytes())))
