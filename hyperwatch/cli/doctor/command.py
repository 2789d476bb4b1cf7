"""`hyperwatch doctor`: looks at a real setup and says what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

from hyperwatch.cli.doctor import setup
from hyperwatch.cli.doctor.inotify import InotifyProbe, file_system, limits
from hyperwatch.cli.doctor.setup import Finding, Level
from hyperwatch.cli.doctor.writing import Growth, observe, times
from hyperwatch.cli.options import DATA_DIR, NumberRange, default_state_dir, option
from hyperwatch.cli.paths import UserPath
from hyperwatch.errors import DataError
from hyperwatch.log.tree import Tree, find_trees
from hyperwatch.node.streams import STREAMS

__all__ = ["command"]


@click.command("doctor")
@option("--data-dir", type=UserPath(), default=DATA_DIR, help="Where the node writes its data.")
@option("--state-dir", type=UserPath(file_okay=False), default=default_state_dir,
        show_default="the user's state directory", help="As `hyperwatch run` is told.")  # fmt: skip
@option("--retention", metavar="HOURS", type=NumberRange(0), default=24.0,
        help="How far back clients may want to resume.")  # fmt: skip
@option("--seconds", type=NumberRange(0, 86_400), default=3.0, help="How long to look at what the node writes.")
def command(data_dir: Path, state_dir: Path, retention: float, seconds: float) -> int:
    """Check a setup and say what to do: exit code 0 where it works, 1 where it does not.

    Run it as the user, and in the container, that `hyperwatch run` runs in; beside a running one, too. It only reads.
    """
    worst = Level.GOOD
    for finding in _findings(data_dir, state_dir, retention, seconds):
        worst = Level.BAD if finding.level is Level.BAD else worst
        click.echo(
            f"{finding.level.value: <7} {finding.what}" + (f"\n        -> {finding.advice}" if finding.advice else "")
        )
    return int(worst is Level.BAD)


def _findings(data_dir: Path, state_dir: Path, retention: float, seconds: float) -> Iterator[Finding]:
    yield from setup.layouts(data_dir)
    may_read = []
    for tree in _newest(data_dir):
        seen = list(setup.readable(tree))
        yield from seen
        if all(finding.level is Level.GOOD for finding in seen):
            may_read.append(tree)
    for tree in may_read[:1]:  # the order statuses where there are any: the others are written in the same way
        yield from _look(tree, seconds)
    for tree in may_read:
        yield from setup.reach(tree, retention, now_s=time.time())
    if may_read:
        yield from setup.room(may_read, data_dir)
    yield from limits()
    yield from setup.open_files()
    yield from setup.state(state_dir)


def _newest(data_dir: Path) -> Iterator[Tree]:
    """Of each stream, the layout that is written."""
    for stream in STREAMS.values():
        with suppress(DataError):  # named by `layouts`
            yield from find_trees(data_dir, stream)[:1]


def _look(tree: Tree, seconds: float) -> Iterator[Finding]:
    directory = (tree.hourly / tree.names()[-1]).parent
    ear, growth = InotifyProbe(directory), Growth()
    try:
        growth = observe(tree, seconds)
        yield from times(tree, growth, now_ns=time.time_ns())
        yield from ear.findings(directory, grew=bool(growth.size_bytes), kind=file_system(directory))
    except (OSError, DataError) as error:
        yield Finding(Level.BAD, f"{directory} could be read, and cannot any more: {error}", "try again")
    finally:
        ear.close()
