"""`hyperwatch simulate DIR`: write what a node would write, where there is no node."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from hyperwatch.cli.options import NumberRange, option
from hyperwatch.cli.paths import UserPath
from hyperwatch.errors import UsageError
from hyperwatch.node.streams import STREAMS, Layout, Stream
from hyperwatch.runtime.logs import say
from hyperwatch.simulate.hour_files import simulate
from hyperwatch.simulate.model import Faults

__all__ = ["command"]

T = TypeVar("T")

_LAYOUTS = {layout.label: layout for layout in Layout}
_LAST_YEAR = 9999  # that calendars have
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _each(names: dict[str, T]) -> Callable[[click.Context, click.Parameter, str], tuple[T, ...]]:
    """A click callback for words between commas, each of which names one of `names`."""

    def read(_context: click.Context, parameter: click.Parameter, text: str) -> tuple[T, ...]:
        words = [word.strip() for word in text.split(",")]
        for word in words:
            if word not in names:
                msg = f"{word!r} is none of {', '.join(names)}; separate several by commas"
                raise click.BadParameter(msg, param=parameter)
        return tuple(names[word] for word in dict.fromkeys(words))

    return read


def _start_ns(_context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{text!r} is no time; write it like 2026-05-05T23:59:58, in UTC"
        raise click.BadParameter(msg, param=parameter) from None
    if when.year >= _LAST_YEAR:
        msg = f"{text!r} is too late: the market would run out of years; write an earlier time"
        raise click.BadParameter(msg, param=parameter)
    since = (when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH
    if since.days < 0:
        msg = f"{text!r} is before 1970; write a later time"
        raise click.BadParameter(msg, param=parameter)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


class _Stop:
    """A flag that a signal sets. No threading.Event: its lock may be held by the very code that the signal interrupts."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def ask(self, *_signal: object) -> None:
        self.asked = True


@contextlib.contextmanager
def _signals(stop: _Stop) -> Iterator[None]:
    """SIGINT and SIGTERM ask to stop: at most one block, 67 ms, later the files are closed at a line's end."""
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.command("simulate", short_help="Write files as a node would.")
@click.argument("directory", metavar="DIR", type=UserPath(file_okay=False))
@option(
    "--layout",
    "layouts",
    default="streaming",
    callback=_each(_LAYOUTS),
    help="How lines are arranged: plain, by-block, streaming, or several of them with commas between.",
)
@option(
    "--stream",
    "streams",
    default=",".join(STREAMS),
    callback=_each(STREAMS),
    help="Which streams are written, with commas between.",
)
@option(
    "--rate",
    type=NumberRange(min=0, max=1_000_000),
    default=5000.0,
    help="Order statuses a second, on average. 0 writes as fast as possible, 1,243 statuses a block, and needs --blocks.",
)
@option("--blocks", type=click.IntRange(min=1), help="End after so many blocks, 67 ms apart. Default: no end.")
@option("--seed", type=int, default=1, help="The same seed, rate and start give the same bytes.")
@option(
    "--start",
    "start_ns",
    callback=_start_ns,
    help="Time of the first block, UTC ISO 8601, as in 2026-05-05T23:59:58. Default: now.",
)
@option(
    "--write",
    "unit",
    type=click.Choice(["blocks", "lines"]),
    default="blocks",
    help="What one write holds; lines is a node with --disable-output-file-buffering.",
)
@option("--torn", is_flag=True, help="Cut writes inside lines; the rest of a line comes with the next block.")
@option("--late-file", is_flag=True, help="Create each new hour's file 5 to 25 blocks after the hour began.")
@option("--late-lines", is_flag=True, help="Append an hour's last lines after the next hour's file exists.")
@option(
    "--restart-every",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="After every N blocks write the last 3 to 20 once more, as a restarted node does; 0 is never.",
)
def command(
    *,
    directory: Path,
    layouts: tuple[Layout, ...],
    streams: tuple[Stream, ...],
    rate: float,
    blocks: int | None,
    seed: int,
    start_ns: int | None,
    unit: str,
    torn: bool,
    late_file: bool,
    late_lines: bool,
    restart_every: int,
) -> None:
    """Write a made-up market to DIR in the files of a Hyperliquid node, until --blocks or a signal ends it.

    Orders, fills and book diffs go to hour files of the current hour in real time. Nothing is ever deleted: at the
    default rate DIR grows by about 12 GB an hour. DIR must be empty or only simulators' own, and one writes at a time.
    """
    if not rate and blocks is None:
        msg = "0 without --blocks would fill the disk; add --blocks N"
        raise click.BadParameter(msg, param_hint="--rate")
    stop = _Stop()
    try:
        with _signals(stop):
            done = simulate(
                directory,
                layouts=layouts,
                streams=streams,
                rate=rate,
                blocks=blocks,
                seed=seed,
                start_ns=start_ns,
                faults=Faults(torn, late_file, late_lines, restart_every),
                per_line=unit == "lines",
                stop=stop,
            )
    except OSError as error:
        what = f"DIR {str(directory)!r} cannot be written ({error.strerror or error})"
        raise UsageError(what, "give a directory that you may write to, with room on its disk") from error
    lines = ", ".join(f"{n:,} {name}" for name, n in done.lines.items())
    again = f", {done.restarts} restarts" if done.restarts else ""
    say(f"wrote {done.blocks:,} blocks{again}: {lines} lines, {done.size / 1e6:,.1f} MB to {directory}")
