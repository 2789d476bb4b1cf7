"""What `hyperwatch doctor` looks at: a real setup, from its directories and from what is written while it looks. Blocking I/O.

Each check yields findings; none of them raises for what it finds.
"""

from __future__ import annotations

import enum
import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import msgspec

from hyperwatch.errors import DataError
from hyperwatch.log.files import PlainFile, Tree, find_trees, newest_data_ns, read_lines
from hyperwatch.node.streams import ORDERS, STREAMS, Layout
from hyperwatch.node.times import ms_of

__all__ = [
    "Finding",
    "Growth",
    "Level",
    "layouts",
    "observe",
    "open_files",
    "reach",
    "readable",
    "room",
    "state",
    "times",
]

FLAGS = {Layout.PLAIN: "", Layout.BY_BLOCK: " --batch-by-block", Layout.STREAMING: " --stream-with-block-info"}
UNBUFFERED = "--disable-output-file-buffering"

_LOOK_S = 0.005
_READ_BYTES = 4 * 1024 * 1024
_BUFFERED_MS = 100  # unbuffered lines are seen after a look's time and what a busy machine adds
_LATE_NODE_MS = 2000  # a healthy node writes 0.1 to 0.6 s after its blocks
_SKEW_MS = 1000
_STALE_S = 60.0
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


class _Envelope(msgspec.Struct):
    local_time: str
    block_time: str


_ENVELOPE = msgspec.json.Decoder(_Envelope)


@attrs.define
class Growth:
    """What was written while somebody looked."""

    size_bytes: int = 0
    seen_after_ms: list[int] = attrs.Factory(list)
    """Of each line, how long after the node's time for it it was in the file."""
    written_after_ms: list[int] = attrs.Factory(list)
    """Of each line, how long after its block the node wrote it."""
    ends_in_line: bool = False
    """Whether the file ended in the middle of a line, more often than not."""


def layouts(root: Path) -> Iterator[Finding]:
    """The directory itself, the node's flags as its directories show them, and two layouts at once."""
    try:
        trees = {name: find_trees(root, stream) for name, stream in STREAMS.items()}
    except DataError as error:
        yield Finding(Level.BAD, error.what, error.remedy)
        return
    if not trees[ORDERS.name]:
        advice = f"start the node with {ORDERS.flag}{FLAGS[Layout.STREAMING]} {UNBUFFERED}, and see that --data-dir is its own"
        yield Finding(Level.BAD, f"{root} has no order statuses", advice)
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
        if apart_s < _STALE_S:
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


def observe(
    tree: Tree,
    seconds: float,
    *,
    sleep: Callable[[float], object] = time.sleep,
    now_ns: Callable[[], int] = time.time_ns,
) -> Growth:
    """Looks at the newest file for a while. Raises OSError, DataError."""
    growth = Growth()
    names = tree.names()
    if not names:
        return growth
    source = PlainFile(tree.hourly / names[-1])
    try:
        offset = begun = source.size_bytes()
        torn = looks = 0
        ends_ns = now_ns() + int(seconds * 1e9)
        while now_ns() < ends_ns:
            sleep(_LOOK_S)
            size_bytes = source.size_bytes()
            if size_bytes == offset:
                continue
            looks += 1
            torn += source.read(size_bytes - 1, 1) != b"\n"
            data = source.read(offset, min(size_bytes - offset, _READ_BYTES))
            offset += _take(growth, data, now_ns() // 1_000_000)
        growth.size_bytes = source.size_bytes() - begun
        growth.ends_in_line = 2 * torn > looks
    finally:
        source.close()
    return growth


def _take(growth: Growth, data: bytes, now_ms: int) -> int:
    """Adds the whole lines of what has appeared. Returns how many bytes they are."""
    length = data.rfind(b"\n") + 1
    for line in data[:length].splitlines():
        try:
            envelope = _ENVELOPE.decode(line)
            written_ms, block_ms = ms_of(envelope.local_time), ms_of(envelope.block_time)
        except (msgspec.MsgspecError, ValueError):
            continue  # plain, or begun before we looked
        if written_ms is not None and block_ms is not None:
            growth.seen_after_ms.append(now_ms - written_ms)
            growth.written_after_ms.append(written_ms - block_ms)
    return length


def times(tree: Tree, growth: Growth, *, now_ns: int) -> Iterator[Finding]:
    """Whether the node writes, at once and in time, and whether the clocks agree."""
    idle_s = (now_ns - newest_data_ns(tree)) / 1e9
    if idle_s > _STALE_S:
        what = f"the node has written no {tree.stream.noun} for {idle_s:.0f} s"
        yield Finding(Level.BAD, what, "see whether it runs, and has peers")
    if idle_s < -_SKEW_MS / 1000:
        what = f"{tree.hourly} was written {-idle_s:.1f} s in the future"
        yield Finding(
            Level.BAD, what, "set the clocks of this machine and of the file server (chrony, or systemd-timesyncd)"
        )
    if not growth.size_bytes:
        return
    if growth.seen_after_ms:
        yield from _clocks(growth)
        yield from _buffering(growth)
    elif growth.ends_in_line:
        yield Finding(Level.ADVICE, _half_lines(tree), f"start the node with {UNBUFFERED}")


def _clocks(growth: Growth) -> Iterator[Finding]:
    ahead_ms = -min(growth.seen_after_ms)
    if ahead_ms > _SKEW_MS:
        what = f"the node's clock is {ahead_ms / 1000:.1f} s ahead of ours"
        yield Finding(Level.BAD, what, "let one time service set both clocks; latencies are wrong until then")
    written_ms = int(statistics.median(growth.written_after_ms))
    if written_ms < 0:
        what = f"blocks are {-written_ms / 1000:.1f} s newer than the node's clock"
        yield Finding(Level.BAD, what, "set this machine's clock (chrony, or systemd-timesyncd)")
    elif written_ms > _LATE_NODE_MS:
        what = f"the node writes {written_ms / 1000:.1f} s after the blocks (0.1 to 0.6 s are usual)"
        yield Finding(
            Level.ADVICE, what, "it may be catching up; else give it more cores, a faster disk, or better peers"
        )
    else:
        yield Finding(Level.GOOD, f"the node writes {written_ms} ms after the blocks (median)")


def _buffering(growth: Growth) -> Iterator[Finding]:
    seen_ms = int(statistics.median(growth.seen_after_ms))
    if seen_ms > _BUFFERED_MS:
        what = f"lines are in the file {seen_ms} ms after the node's own time for them: its output is buffered"
        yield Finding(Level.ADVICE, what, f"start the node with {UNBUFFERED}")
    else:
        yield Finding(
            Level.GOOD, f"lines are in the file {max(0, seen_ms)} ms after the node's own time for them (median)"
        )


def _half_lines(tree: Tree) -> str:
    return f"{tree.hourly} ends in the middle of a line, more often than not: the node's output is buffered"


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
    except (OSError, DataError, msgspec.MsgspecError, ValueError):
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
    while not there.exists() and there != there.parent:
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
