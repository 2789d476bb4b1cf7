"""What `hyperwatch doctor` sees of a node's writing while it looks: whether it is at once, in time, and by the same clock. Blocking I/O."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import attrs
import msgspec

from hyperwatch.cli.doctor.setup import STALE_S, Finding, Level
from hyperwatch.log.advice import UNBUFFERED
from hyperwatch.log.tree import PlainFile, Tree, newest_data_ns
from hyperwatch.node.times import ms_of

__all__ = ["Growth", "observe", "times"]

_LOOK_S = 0.005
_READ_BYTES = 4 * 1024 * 1024
_BUFFERED_MS = 100  # unbuffered lines are seen after a look's time and what a busy machine adds
_LATE_NODE_MS = 2000  # a healthy node writes 0.1 to 0.6 s after its blocks
_SKEW_MS = 1000


class _Envelope(msgspec.Struct):
    local_time: str
    block_time: str


_ENVELOPE = msgspec.json.Decoder(_Envelope)


@attrs.define
class Growth:
    """What was written while somebody looked."""

    looked_s: float = 0
    size_bytes: int = 0
    seen_after_ms: list[int] = attrs.Factory(list)
    """Of each line, how long after the node's time for it it was in the file."""
    written_after_ms: list[int] = attrs.Factory(list)
    """Of each line, how long after its block the node wrote it."""
    ends_in_line: bool = False
    """Whether the file ended in the middle of a line, more often than not."""


def observe(
    tree: Tree,
    seconds: float,
    *,
    sleep: Callable[[float], object] = time.sleep,
    now_ns: Callable[[], int] = time.time_ns,
    now_s: Callable[[], float] = time.monotonic,
) -> Growth:
    """Looks at the newest file for a while, by a clock that does not jump. Raises OSError, DataError."""
    growth = Growth(seconds)
    names = tree.names()
    if not names:
        return growth
    source = PlainFile(tree.hourly / names[-1])
    try:
        offset = begun = source.size_bytes()
        torn = looks = 0
        ends_s = now_s() + seconds
        while now_s() < ends_s:
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
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue  # plain, or begun before we looked
        if written_ms is not None and block_ms is not None:
            growth.seen_after_ms.append(now_ms - written_ms)
            growth.written_after_ms.append(written_ms - block_ms)
    return length


def times(tree: Tree, growth: Growth, *, now_ns: int) -> Iterator[Finding]:
    """Whether the node writes, at once and in time, and whether the clocks agree."""
    idle_s = (now_ns - newest_data_ns(tree)) / 1e9
    if idle_s > STALE_S:
        what = f"the node has written no {tree.stream.noun} for {idle_s:.0f} s"
        yield Finding(Level.BAD, what, "see whether it runs, and has peers")
    elif growth.looked_s and not growth.size_bytes:
        what = f"the node wrote no {tree.stream.noun} in {growth.looked_s:g} s, the last {max(0.0, idle_s):.0f} s ago"
        yield Finding(Level.ADVICE, what, "look for longer, as with --seconds 60: nodes pause, and buffer their output")
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
