"""`hyperwatch run`: the sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
import trio

from hyperwatch import service
from hyperwatch.cli.options import DATA_DIR, LAYOUT, log_options, option
from hyperwatch.config import DEFAULT_DEADLINE_S, DEFAULT_RING_BYTES, Address, Config, default_workers
from hyperwatch.logs import to_stderr
from hyperwatch.node.streams import Layout

__all__ = ["command"]


@click.command("run")
@option("--data-dir", type=click.Path(path_type=Path), default=DATA_DIR, help="Where the node writes its data.")
@option("--listen", metavar="HOST:PORT", default="127.0.0.1:8000", help="Where clients connect. Port 0: any free one.")
@option("--workers", type=click.IntRange(1, 64), default=default_workers, show_default="a quarter of the cores, 1 to 4",
        help="Threads that decode.")  # fmt: skip
@option("--layout", type=LAYOUT, default=None, show_default="the one with the newest data", help="Which files to read.")
@option("--ring-bytes", metavar="BYTES", type=click.IntRange(1024 * 1024), default=DEFAULT_RING_BYTES,
        help="Memory for what was decoded last; clients further behind are served from the files.")  # fmt: skip
@option("--deadline", metavar="SECONDS", type=click.FloatRange(0.1), default=DEFAULT_DEADLINE_S,
        help="How long the workers may take over a batch.")  # fmt: skip
@log_options
def command(
    data_dir: Path,
    listen: str,
    workers: int,
    layout: str | None,
    ring_bytes: int,
    deadline: float,
    log_level: str,
    log_format: Literal["text", "json"],
) -> None:
    """Serve a node's order events as a live WebSocket feed.

    Starts at the newest complete line; clients ask for the past with "from". Ends on SIGINT or SIGTERM.
    """
    to_stderr(log_level, log_format)
    config = Config(
        data_dir=data_dir.expanduser(),
        listen=Address.parse(listen),
        layout=None if layout is None else Layout.of_label(layout),
        workers=workers,
        ring_bytes=ring_bytes,
        deadline_s=deadline,
    )
    trio.run(service.run, config)
