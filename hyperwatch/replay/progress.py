"""Progress on a terminal."""

from __future__ import annotations

import trio
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from hyperwatch.replay.plan import Report
from hyperwatch.replay.playback import TolerantRecording

__all__ = ["bar", "show"]

_EVERY_S = 0.2


def bar() -> Progress:
    """A bar on standard error; a context manager. While it is open, a log sink made of sys.stderr writes above it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[events]:,} events"),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
    )


async def show(progress: Progress, log: TolerantRecording, report: Report) -> None:
    """Keeps the bar up to date: bytes of the files as they are on disk. Does not end."""
    sizes = await trio.to_thread.run_sync(log.sizes)
    task = progress.add_task("replay", total=sum(sizes), events=0)
    done = 0
    while True:
        read = log.files_read()
        # A client that asks for the past opens files again: the bar does not go back for it.
        done = max(done, sum(sizes[: max(0, read - 1)]) + log.bytes_of_newest())
        progress.update(task, completed=done, events=report.written, refresh=True)
        await trio.sleep(_EVERY_S)
