"""`python -m benchmarks`: measures, prints the table, writes JSON."""

from __future__ import annotations

import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import click

from benchmarks.catch_up import catch_up
from benchmarks.decode import decode
from benchmarks.fan_out import fan_out
from benchmarks.filters import filters
from benchmarks.live import live
from benchmarks.processes import Others
from benchmarks.run import Run
from benchmarks.table import page, rows

__all__ = ["command"]

_BENCHMARKS: dict[str, Callable[[Run], None]] = {
    "decode": decode,
    "catch-up": catch_up,
    "live": live,
    "fan-out": fan_out,
    "filters": filters,
}
_BUILD = Path(__file__).resolve().parents[1] / "build"


@click.command()
@click.option("--quick", is_flag=True, help="One round of little: shows that all of it runs, and nothing about speed.")
@click.option("--only", multiple=True, type=click.Choice(list(_BENCHMARKS)), help="Of all benchmarks. May be repeated.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), default=_BUILD / "bench.json",
              help="Where every number goes. Default: build/bench.json.")  # fmt: skip
@click.option("--samples", type=click.Path(exists=True, file_okay=False, path_type=Path), envvar="HYPERWATCH_SAMPLES",
              help="A folder with recordings of mainnet; without one, everything is simulated.")  # fmt: skip
@click.option(
    "--profile", is_flag=True, help="Instead of measuring, write what hyperwatch does in each case to build/profiles."
)
def command(*, quick: bool, only: tuple[str, ...], path: Path, samples: Path | None, profile: bool) -> None:
    """Measure hyperwatch beside baselines, in turns. A few minutes; end what else runs on the machine first."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a thousand clients in a process
    profiles = _BUILD / "profiles" if profile else None
    if profiles is not None:
        profiles.mkdir(parents=True, exist_ok=True)
    began_s, others = time.monotonic(), Others()
    with tempfile.TemporaryDirectory(prefix="hyperwatch-bench-") as folder:
        run = Run(folder=Path(folder), quick=quick, samples=samples, profiles=profiles)
        for name in only or _BENCHMARKS:
            _BENCHMARKS[name](run)
    if profiles is not None:
        click.echo(f"profiles are in {profiles}")
        return
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "others_used_cores": others.cores()}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = [attrs.asdict(row) for row in rows(run.book)]
    whole = {"machine": machine, "rounds": run.rounds, "quick": quick, "recordings": samples is not None,
             "seconds": time.monotonic() - began_s, "table": table, "book": attrs.asdict(run.book)}  # fmt: skip
    path.write_text(json.dumps(whole, indent=1))
    click.echo(page(run.book))
    click.echo(f"others used {machine['others_used_cores']} of {machine['cores']} cores meanwhile")
    click.echo(f"{run.rounds} rounds, {time.monotonic() - began_s:.0f} s; every number is in {path}")


command()
