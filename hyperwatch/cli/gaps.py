"""`hyperwatch gaps` and `hyperwatch quarantine`: what a state directory holds."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from hyperwatch.cli.options import F, default_state_dir, option
from hyperwatch.cli.paths import UserPath
from hyperwatch.errors import UsageError
from hyperwatch.ledger import state_dir as states
from hyperwatch.ledger.journal import Journal
from hyperwatch.node.times import iso_of

__all__ = ["gaps", "quarantine"]


def state_dir(command: F) -> F:
    """--state-dir, which must exist."""
    return option("--state-dir", type=UserPath(file_okay=False), default=default_state_dir, show_default="the user's state directory",
                  help="As `hyperwatch run` was told.")(command)  # fmt: skip


@click.command("gaps")
@state_dir
@option("--json", "as_json", is_flag=True, help="One JSON object a line, with everything that is known.")
def gaps(state_dir: Path, as_json: bool) -> int:
    """List what could not be delivered: when it was seen, why, from which block to which.

    Works beside a running service. Exit code 1 where some of the ledger cannot be read: it says how much.
    """
    ledger = states.gaps(_existing(state_dir))
    for number, gap in ledger.read():
        if as_json:
            click.echo(msgspec.json.encode({"number": number} | msgspec.to_builtins(gap)))
            continue
        left = "still in the files" if gap.readable else "gone"
        ends = f"{gap.from_block or gap.from_time or 'the beginning'} to {gap.to_block or gap.to_time or 'the end'}"
        click.echo(f"{number}  {iso_of(gap.seen_ms)}  {gap.stream}  {gap.reason}  {ends}  {left}  {gap.where}".rstrip())
    return _tell_rest(ledger, "gaps", state_dir)


@click.group("quarantine")
def quarantine() -> None:
    """Look at what could not be read.

    The oldest go when there are 64 MiB of them.
    """


@quarantine.command("list")
@state_dir
def list_(state_dir: Path) -> int:
    """List lines that could not be read: when, where, how long, why.

    Exit code 1 where some of the list cannot be read itself: it says how much.
    """
    journal = states.quarantine(_existing(state_dir))
    for number, damage in journal.read():
        where = f"{damage.file} at {damage.offset}, {damage.length_bytes} bytes"
        click.echo(f"{number}  {iso_of(damage.seen_ms)}  {where}  {damage.reason}")
    return _tell_rest(journal, "unreadable lines", state_dir)


@quarantine.command("show")
@click.argument("number", type=click.IntRange(1))
@state_dir
def show(number: int, state_dir: Path) -> None:
    """Write the bytes of one of them to standard output, as they stand in the file."""
    journal = states.quarantine(_existing(state_dir))
    for found, damage in journal.read():
        if found == number:
            click.echo(damage.data, nl=False)
            if len(damage.data) < damage.length_bytes:
                click.echo(f"{damage.length_bytes - len(damage.data)} more bytes were not kept", err=True)
            return
    _tell_troubles(journal)
    what = f"quarantine {number} is not there"
    raise UsageError(what, "`hyperwatch quarantine list` shows which are")


def _existing(directory: Path) -> Path:
    if not os.path.isdir(directory):  # noqa: PTH112  Path.is_dir raises where it may not look
        what = f"--state-dir {directory} does not exist, or uid {os.getuid()} may not look there"
        raise UsageError(what, "name the one that `hyperwatch run` uses")
    return directory


_Journal = Journal[states.GapRecord] | Journal[states.DamageRecord]


def _tell_rest(journal: _Journal, what: str, directory: Path) -> int:
    """Says on standard error what is not in the list, and returns the exit code: standard output is for programs."""
    troubles = _tell_troubles(journal)
    if not troubles and next(iter(journal.read()), None) is None:
        click.echo(f"none: no {what} are noted in {directory}", err=True)
    if dropped := journal.dropped():
        click.echo(f"{dropped} older ones had to go", err=True)
    return int(troubles)


def _tell_troubles(journal: _Journal) -> bool:
    """Says what cannot be read, and whether there is any."""
    troubles = journal.troubles()
    for text in troubles:
        click.echo(text, err=True)
    return bool(troubles)
