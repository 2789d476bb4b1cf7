"""What `hyperwatch doctor` looks at: a setup as its directories, rights and limits show it. Blocking I/O.

Each check yields findings; none of them raises for what it finds.
"""

from __future__ import annotations

import enum
import os
import resource
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import msgspec

from hyperwatch.errors import DataError
from hyperwatch.log.advice import FLAGS, advice_without_orders
from hyperwatch.log.tree import PlainFile, Tree, find_trees, newest_data_ns, read_lines
from hyperwatch.node.streams import ORDERS, STREAMS, Layout
from hyperwatch.node.times import ms_of

__all__ = ["STALE_S", "Finding", "Level", "layouts", "open_files", "reach", "readable", "room", "state"]

STALE_S = 60.0
"""For so long a node may write nothing."""

_HOUR_S = 3600.0
_SHORT_HOURS, _LONG_HOURS = 2, 24
_STATE_BYTES = 256 * 1024 * 1024  # three times what a state directory can hold
_FILES = 4096


class Level(enum.Enum):
    """How a finding is to be taken."""

    GOOD = "ok"
    ADVICE = "advice"
    """It works, and could be better."""
    BAD = "bad"
    """The feed is late, has holes, or is not there."""


@attrs.frozen
class Finding:
    """What was seen, and what to do about it."""

    level: Level
    what: str
    advice: str = ""


def layouts(root: Path) -> Iterator[Finding]:
    """The directory itself, the node's flags as its directories show them, and two layouts at once."""
    trees: dict[str, list[Tree]] = {}
    closed: dict[str, Finding] = {}  # by what they say: of a missing directory, every stream says the same
    for name, stream in STREAMS.items():
        try:
            trees[name] = find_trees(root, stream)
        except DataError as error:
            closed[error.what] = Finding(Level.BAD, error.what, error.remedy)
    yield from closed.values()
    if trees.get(ORDERS.name) == []:
        yield Finding(Level.BAD, f"{root} has no order statuses", advice_without_orders(root))
    for name, found in trees.items():
        for tree in found:
            yield Finding(Level.GOOD, f"{tree.hourly.parent.name}: {STREAMS[name].flag}{FLAGS[tree.layout]}")
        yield from _plain(found)
        yield from _at_once(found)


def _plain(trees: Sequence[Tree]) -> Iterator[Finding]:
    if trees and trees[0].layout is Layout.PLAIN:
        advice = f"start the node with{FLAGS[Layout.STREAMING]}, or with{FLAGS[Layout.BY_BLOCK]}"
        what = (
            f"{trees[0].stream.name} are plain: no blocks, no times of writing, and cursors that hold on this node only"
        )
        yield Finding(Level.ADVICE, what, advice)


def _at_once(trees: Sequence[Tree]) -> Iterator[Finding]:
    for older in trees[1:]:
        apart_s = (newest_data_ns(trees[0]) - newest_data_ns(older)) / 1e9
        names = f"{trees[0].hourly.parent.name} and {older.hourly.parent.name}"
        if apart_s < STALE_S:
            advice = f"run one node on this directory; meanwhile choose with --layout {trees[0].layout.label}"
            yield Finding(Level.ADVICE, f"two layouts are written at once: {names}", advice)
        else:
            yield Finding(Level.GOOD, f"{older.hourly.parent.name} is left from before: it can be removed")


def readable(tree: Tree) -> Iterator[Finding]:
    """Whether this user may read what the node writes: directories, and the newest files."""
    try:
        names = tree.names()
    except DataError as error:
        yield Finding(Level.BAD, error.what, error.remedy)
        return
    for name in names[-2:]:
        try:
            PlainFile(tree.hourly / name).close()
        except (OSError, DataError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.what
            advice = (
                "give that user read access (the node's umask, or an ACL), or run hyperwatch as the user that owns it"
            )
            yield Finding(Level.BAD, f"{tree.hourly / name} cannot be read by uid {os.getuid()}: {reason}", advice)
            return
    if not names:
        yield Finding(Level.BAD, f"{tree.hourly} has no hour files", "start the node, and wait for its first block")
        return
    yield Finding(Level.GOOD, f"uid {os.getuid()} may read {tree.hourly}")


def reach(tree: Tree, wanted_hours: float, *, now_s: float) -> Iterator[Finding]:
    """How far back a client can resume."""
    names = tree.names()
    if not names:
        return
    try:
        source = PlainFile(tree.hourly / names[0])
        try:
            first = read_lines(source, 0, 1)
            began_s = _begin_ms(first) / 1000
        finally:
            source.close()
    except (OSError, DataError, msgspec.MsgspecError, ValueError, RecursionError):
        return  # it is being removed, or is no node's: other checks say so
    hours = (now_s - began_s) / _HOUR_S
    what = f"{tree.hourly} reaches {hours:.1f} hours back"
    if hours >= wanted_hours:
        yield Finding(Level.GOOD, what)
        return
    advice = (
        f"a client that is away longer has a gap: where the node is not that new, keep {wanted_hours:g} hours of files "
        "(--retention says how many your clients want)"
    )
    yield Finding(Level.ADVICE, what, advice)


class _Dated(msgspec.Struct):
    local_time: str = ""
    time: str = ""


def _begin_ms(line: bytes) -> int:
    known = msgspec.json.decode(line, type=_Dated)
    begin_ms = ms_of(known.local_time or known.time)
    if begin_ms is None:
        msg = "undated"
        raise ValueError(msg)
    return begin_ms


def room(trees: Sequence[Tree], root: Path, *, free_bytes: int | None = None) -> Iterator[Finding]:
    """How long the node's disk lasts, by what its last whole hour took."""
    an_hour_bytes = sum(map(_last_hour_bytes, trees))
    free_bytes = shutil.disk_usage(root).free if free_bytes is None else free_bytes
    what = f"{root} has {free_bytes / 1e9:.1f} GB left"
    if not an_hour_bytes:
        yield Finding(Level.GOOD, what)
        return
    hours = free_bytes / an_hour_bytes
    what += f", and the streams take {an_hour_bytes / 1e9:.2f} GB an hour: room for {hours:.0f} hours"
    if hours < _SHORT_HOURS:
        yield Finding(Level.BAD, what, "make room now: a node stops where its disk is full")
    elif hours < _LONG_HOURS:
        yield Finding(Level.ADVICE, what, "remove old hours regularly, as with find -mmin +1440 -delete in a timer")
    else:
        yield Finding(Level.GOOD, what)


def _last_hour_bytes(tree: Tree) -> int:
    """Of the last hour that is over; 0 where there is none."""
    over = tree.names()[-2:-1]
    try:
        return (tree.hourly / over[0]).stat().st_size if over else 0
    except FileNotFoundError:
        return 0  # removed a moment ago


def state(directory: Path) -> Iterator[Finding]:
    """Whether hyperwatch may keep its ledger there."""
    there = directory
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        advice = f"give uid {os.getuid()} the right to write there, or name another with --state-dir"
        yield Finding(Level.BAD, f"the state directory {directory} cannot be written by uid {os.getuid()}", advice)
        return
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < _STATE_BYTES:
        what = f"the state directory {directory} has {free_bytes / 1e6:.0f} MB left"
        yield Finding(Level.ADVICE, what, f"make room: it takes up to {_STATE_BYTES // 3 / 1e6:.0f} MB")
    else:
        yield Finding(Level.GOOD, f"the state directory {directory} can be written")


def open_files() -> Iterator[Finding]:
    """Whether the process may have enough of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= _FILES:
        yield Finding(Level.GOOD, "open files: enough")
        return
    what = f"this user may have {hard} open files, and every client takes one"
    yield Finding(Level.ADVICE, what, f"raise the limit to {_FILES} (LimitNOFILE of a unit, ulimits of a container)")
