"""`hyperwatch replay PATH...`: recorded files, to standard output or as the feed."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from hyperwatch.cli.options import DETAILS, LAYOUT, detail_options, log_options, option
from hyperwatch.cli.paths import UserPath
from hyperwatch.cli.terminal.output import is_tty
from hyperwatch.config import Address
from hyperwatch.errors import DataError, UsageError
from hyperwatch.feed.requests.filter_keys import FilterKeys
from hyperwatch.node.streams import STREAMS, Layout
from hyperwatch.replay.formats import OutputFormat
from hyperwatch.replay.range import Bound, Bounds
from hyperwatch.replay.session import Settings, replay
from hyperwatch.runtime.logs import say, to_stderr

__all__ = ["command"]

_INTERRUPTED = 130

_FILTERS = {"coin": "coins", "user": "users", "status": "statuses", **DETAILS}
_DECIMAL = "write it without an exponent or a sign"
_ADDRESS = "write an address of 0x and 40 hex digits"
_REMEDIES = {
    "coin": "name a coin, or every coin of a dex as in xyz:*",
    "user": _ADDRESS,
    "builder": _ADDRESS,
    "min_notional": _DECIMAL,
    "min_px": _DECIMAL,
    "max_px": _DECIMAL,
    "oid": "write the order's id as the node does",
    "cloid": "write 0x and 32 hex digits",
}


def _bound(_context: click.Context, parameter: click.Parameter, text: str | None) -> Bound | None:
    try:
        return None if text is None else Bound.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def _speed(_context: click.Context, parameter: click.Parameter, text: str) -> float | None:
    if text == "max":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        msg = f"{text!r} is neither max nor a factor of recorded time; write max, 1 or 10"
        raise click.BadParameter(msg, param=parameter)
    return factor


@click.command("replay", short_help="Play recorded files, to standard output or as the feed.")
@click.argument("path", metavar="PATH...", nargs=-1, required=True, type=UserPath())
@option("--to", type=click.Choice(["stdout", "ws"]), default="stdout", help="Where it goes; ws serves the feed.")
@option("--format", type=click.Choice([form.value for form in OutputFormat]), default="events",
        help="The node's events, its lines (envelopes), both byte for byte; or flat objects of stream, block_number, "
             "block_time, local_time, index and event. One JSON document a line.")  # fmt: skip
@option("--coin", multiple=True, metavar="COIN", help="Only these; case matters. xyz:* is every coin of a dex.")
@option("--user", multiple=True, metavar="ADDRESS", help="Only these accounts.")
@option("--status", multiple=True, metavar="STATUS",
        help="Only these order statuses, by name or class: live, removed, rejected, unknown.")  # fmt: skip
@detail_options
@option("--from", metavar="WHEN", callback=_bound,
        help="Begin there: block time as 2026-05-05T17:39:13 (UTC) or in ms since 1970, or block:N.")  # fmt: skip
@option("--until", metavar="WHEN", callback=_bound, help="End before there. As --from.")
@option("--speed", metavar="max|FACTOR", default="max", callback=_speed,
        help="1 is as recorded by block time, 10 ten times as fast.")  # fmt: skip
@option("--stream", type=click.Choice(list(STREAMS)), default=None,
        show_default="node_order_statuses, else the only one there", help="Which stream to read.")  # fmt: skip
@option("--layout", type=LAYOUT, default=None, show_default="the one with the newest data", help="Which files to read.")
@option("--follow", is_flag=True, show_default=False,
        help="Do not end: go on with what a node writes to PATH, its data directory, until a signal.")  # fmt: skip
@option("--listen", metavar="HOST:PORT", default="127.0.0.1:8000",
        help="With --to ws: where clients connect. Port 0: any free one.")  # fmt: skip
@option("--wait-clients", metavar="N", type=click.IntRange(0), default=1,
        help="With --to ws: begin when so many clients have a live subscription.")  # fmt: skip
@log_options
@click.pass_context
def command(context: click.Context, /, **_: object) -> int:
    """Play recorded files or trees, plain, .gz, .lz4 or .zst, in time order.

    PATH is a file, a node's data directory, one stream's directory, a day, or any folder of files. Progress and a
    summary go to standard error.
    """
    given = context.params
    log_to_stderr = partial(to_stderr, given["log_level"], given["log_format"])
    log_to_stderr()
    _refuse_misplaced(context)
    if given["to"] == "stdout" and sys.stdout is None:
        what = "--to stdout: standard output is closed"
        raise UsageError(what, "leave it open, or send it to a file")
    # A bar and events on one terminal would overwrite each other.
    progress = is_tty(sys.stderr) and not (given["to"] == "stdout" and is_tty(sys.stdout))
    report = replay(_settings(given), progress=progress, log_to_stderr=log_to_stderr)
    if report.cut:
        return 0
    say(report.text())
    if report.fault is not None:
        raise report.fault
    if report.mostly_unreadable and not report.interrupted:
        what = f"{report.unreadable:,} of {report.lines:,} lines cannot be read"
        raise DataError(
            what, "see whether these are a node's files, and whether they are packed in a way that is not known here"
        )
    return _INTERRUPTED if report.interrupted else 0


def _refuse_misplaced(context: click.Context) -> None:
    """Raises UsageError for options that mean nothing together. Of those with a default only what was typed counts."""
    to = context.params["to"]
    for name in _FILTERS:
        given = context.params[name]
        if to == "ws" and given not in (None, ()):
            what = f"{_option(name)} {given if isinstance(given, str) else given[0]!r} with --to ws"
            raise UsageError(what, "leave it out: clients filter by their subscriptions")
    for name in ("format",) if to == "ws" else ("listen", "wait_clients"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            other = "stdout" if to == "ws" else "ws"
            what = f"--{name.replace('_', '-')} with --to {to}"
            raise UsageError(what, f"leave it out, or write --to {other}")


def _settings(given: dict[str, Any]) -> Settings:
    try:
        wanted = _words(given, _FILTERS).filter()
    except ValueError as error:
        raise _bad_filter(given, error) from None
    return Settings(
        paths=given["path"],
        stream=STREAMS.get(given["stream"]),
        layout=None if given["layout"] is None else Layout.of_label(given["layout"]),
        form=OutputFormat(given["format"]),
        filter=wanted,
        bounds=Bounds(given["from"], given["until"]),
        speed=given["speed"],
        follow=given["follow"],
        listen=Address.parse(given["listen"]) if given["to"] == "ws" else None,
        wait_clients=given["wait_clients"],
    )


def _words(given: dict[str, Any], names: Iterable[str]) -> FilterKeys:
    """The filter keys that some of the options stand for."""
    return FilterKeys(**{_FILTERS[name]: given[name] for name in names if given[name] not in (None, ())})


def _bad_filter(given: dict[str, Any], error: ValueError) -> UsageError:
    """Names the first option that is wrong by itself; where all are right, what they are together."""
    for name in _FILTERS:
        try:
            _words(given, [name]).filter()
        except ValueError as alone:
            return UsageError(f"{_option(name)}: {alone}", _REMEDIES.get(name, "see the help of the filters"))
    return UsageError(f"--min-px with --max-px: {error}", "swap them, or leave one out")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
