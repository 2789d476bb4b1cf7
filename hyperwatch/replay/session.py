"""A replay from its settings to its report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

import attrs
import trio
from loguru import logger

from hyperwatch.config import Address
from hyperwatch.errors import DataError, UsageError
from hyperwatch.feed.filters.orders import OrderFilter, doubtful_coins
from hyperwatch.ingest.watcher import DirectoryWatcher
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.discover import find_recording, find_tree
from hyperwatch.log.tree import Tree
from hyperwatch.node.streams import ORDERS, Layout, Stream
from hyperwatch.replay.formats import OutputFormat, Selection
from hyperwatch.replay.pacing import Pace
from hyperwatch.replay.plan import Job, Report
from hyperwatch.replay.playback import TolerantRecording, beginning, first_inside
from hyperwatch.replay.progress import bar, show
from hyperwatch.replay.range import Bounds
from hyperwatch.replay.to_feed import broadcast
from hyperwatch.replay.to_stdout import play

__all__ = ["Settings", "replay"]


@attrs.frozen(kw_only=True)
class Settings:
    """What a user asked for."""

    paths: Sequence[Path]
    stream: Stream | None = None
    layout: Layout | None = None
    form: OutputFormat = OutputFormat.EVENTS
    filter: OrderFilter = attrs.Factory(OrderFilter)
    bounds: Bounds = attrs.Factory(Bounds)
    speed: float | None = None
    """Recorded seconds in one second; None is as fast as it goes."""
    follow: bool = False
    listen: Address | None = None
    """Where to serve the feed; None: standard output."""
    wait_clients: int = 1


def replay(settings: Settings, *, progress: bool, log_to_stderr: Callable[[], None]) -> Report:
    """Plays what was asked for. Blocks until its end; a signal ends it early.

    Args:
        settings: what.
        progress: whether to draw a bar on standard error.
        log_to_stderr: sends the log to what sys.stderr is at that moment.

    Raises:
        UsageError: where the settings do not fit what there is.
        DataError: where there is nothing to read.
        HyperwatchError: where standard output cannot be written.
    """
    report = Report()
    try:
        job = _prepare(settings)
    except OSError as error:
        what = f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"
        raise DataError(what, "let this user read it, or leave it out") from error
    with ExitStack() as stack:
        drawn = None
        if progress and isinstance(job.log, TolerantRecording):
            stack.callback(log_to_stderr)
            drawn = partial(show, stack.enter_context(bar()), job.log, report)
            log_to_stderr()
        trio.run(_run, job, settings, report, drawn)
    if isinstance(job.log, TolerantRecording) and job.log.faults:
        report.fault = job.log.faults[0]
    if settings.listen is None and not (report.written or report.interrupted or report.cut):
        _doubt_coins(job)
    return report


def _doubt_coins(job: Job) -> None:
    """Warns of coins that are written otherwise than in the log, as far as its beginning shows. After a replay of nothing."""
    wanted = job.wanted.filter.coins
    if not wanted:
        return
    reader = BatchReader(job.log, job.start)
    try:
        batch = reader.next(None, lambda: None)
    except (OSError, DataError):
        return  # which the replay has said
    finally:
        reader.close()
    seen = (
        frozenset(coin for entry in batch.entries for coin in entry.slice.coins) if batch is not None else frozenset()
    )
    for doubt in doubtful_coins(wanted, seen, job.wanted.stream.noun, "where the replay begins"):
        logger.warning(doubt)


def _prepare(settings: Settings) -> Job:
    log = _log(settings)
    if log.stream is not ORDERS:
        _refuse_filters_of_orders(settings.filter, log.stream)
    settings.bounds.check(log.stream, log.layout)
    start = beginning(log, settings.bounds)
    if settings.listen is not None:
        # Clients that are served from the files would read from there, past any gate: so reading begins inside.
        start = first_inside(log, start, settings.bounds, lambda: None)
    pace = None if settings.speed is None else Pace(settings.speed)
    return Job(log, start, Selection(log.stream, settings.bounds, settings.filter), pace)


def _refuse_filters_of_orders(wanted: OrderFilter, stream: Stream) -> None:
    asked = ["--status"] if wanted.statuses is not None else []
    if wanted.details is not None:
        named = attrs.asdict(wanted.details, filter=lambda _, value: value is not None)
        asked += ["--" + name.replace("_", "-").removesuffix("s") for name in named]
    if asked:
        what = f"{asked[0]}: {stream.name} has no {'statuses' if asked[0] == '--status' else 'orders'}"
        raise UsageError(what, "leave it out, or choose --stream node_order_statuses")


def _log(settings: Settings) -> TolerantRecording | Tree:
    if not settings.follow:
        recording = find_recording(settings.paths, settings.stream, settings.layout)
        return TolerantRecording.of(recording, settings.bounds)
    if len(settings.paths) != 1 or settings.paths[0].is_file():
        what = f"--follow: {' '.join(map(str, settings.paths))} is not one directory that a node writes to"
        raise UsageError(what, "give the node's data directory, as in ~/hl/data; recordings do not grow")
    return find_tree(settings.paths[0], settings.stream, settings.layout)


async def _run(
    job: Job, settings: Settings, report: Report, drawn: Callable[[], Awaitable[None]] | None = None
) -> None:
    with DirectoryWatcher() if settings.follow else nullcontext() as watch:
        async with trio.open_nursery() as nursery:
            if drawn is not None:
                nursery.start_soon(drawn)
            if settings.listen is None:
                await play(job, settings.form, report, watch)
            else:
                await broadcast(job, settings.listen, settings.wait_clients, report, watch=watch)
            nursery.cancel_scope.cancel("it has been played")
