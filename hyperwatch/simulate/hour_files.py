"""Blocks into hour files, as a node writes them, with a node's faults on request.

Plain blocking file I/O: no clock and no sleep but those that are passed in. Nothing here deletes or truncates a file.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import FileIO
from itertools import count
from pathlib import Path
from typing import Self

from hyperwatch.node.streams import STREAMS, Layout, Stream
from hyperwatch.simulate.claim import Claim
from hyperwatch.simulate.market import Market
from hyperwatch.simulate.model import BLOCK_GAP_NS, NO_FAULTS, Block, Faults, Summary, stamp

__all__ = ["Writer", "simulate"]

_HOUR_NS = 3_600_000_000_000
_DELAY_NS = 350_000_000  # from a block's time to when it is written, as on a healthy node
_EARLY_NS = 40_000_000  # lines say a time before that: a block's own may be 10 ms past its turn, its lines take 30 ms
_SPAN_NS = 30_000_000
_JITTER_NS = 20_000_000
_STEP_NS = 10_007  # between two lines of a block
_LATE_NS = 200_000_000  # lines of an hour's last 200 ms, about three blocks, are those that come late
_LATE_BLOCKS = 5  # after the new hour's file exists
_SILENT_BLOCKS = range(5, 26)  # before a late file appears
_REWIND_BLOCKS = range(3, 21)
_BUSY = 1_243.0  # statuses in mainnet's median block


class _Lane:
    """One stream in one layout: its open hour file, and what waits to be written."""

    def __init__(self, claim: Claim, folder: str, seed: int, faults: Faults, *, per_line: bool) -> None:
        self._claim = claim
        self._folder = folder
        self._rng = random.Random(f"{seed} {folder}")  # its own: faults of one change nothing of another
        self._faults = faults
        self._per_line = per_line
        self._hour = -1  # of the newest lines: hours since 1970
        self._file: FileIO | None = None
        self._torn = b""
        self._silent = 0  # blocks for which the hour's file does not exist yet
        self._held: list[bytes] = []  # what is written when it does
        self._late: list[bytes] = []
        self._late_hour, self._late_wait = -1, 0  # whose they are, and blocks until they are written
        self.lines = self.size = 0

    def put(self, lines: Sequence[bytes], local_ns: int, step_ns: int) -> None:
        """A block's lines, the first written at `local_ns` and each of the others `step_ns` later; there may be none."""
        self._tick()
        while lines:
            hour = local_ns // _HOUR_NS
            left_ns = (hour + 1) * _HOUR_NS - local_ns
            n = min(len(lines), -(-left_ns // step_ns)) if step_ns else len(lines)
            self._send(hour, lines[:n], late=left_ns <= _LATE_NS)
            lines, local_ns = lines[n:], local_ns + n * step_ns

    def close(self) -> None:
        """Write what waits, so that every file ends with a whole line."""
        self._shut()
        self._write_late()

    def _tick(self) -> None:
        self._mend()
        if self._silent:
            self._silent -= 1
            if not self._silent:
                self._speak()
        elif self._late and self._hour > self._late_hour:
            self._late_wait -= 1
            if self._late_wait <= 0:
                self._write_late()

    def _send(self, hour: int, lines: Sequence[bytes], *, late: bool) -> None:
        self.lines += len(lines)
        self.size += sum(map(len, lines))
        if late and self._faults.late_lines and hour == self._hour:
            self._late += lines
            self._late_hour, self._late_wait = hour, _LATE_BLOCKS
            return
        if hour != self._hour:
            self._turn(hour)
        if self._silent:
            self._held += lines
        else:
            self._append(lines)

    def _turn(self, hour: int) -> None:
        self._shut()
        if self._faults.late_file and self._hour >= 0:
            self._silent = self._rng.choice(_SILENT_BLOCKS)
        self._hour = hour

    def _shut(self) -> None:
        self._mend()
        self._speak()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, lines: Sequence[bytes]) -> None:
        if self._file is None:
            self._file = self._open(self._hour)
        pieces = list(lines) if self._per_line else [b"".join(lines)]
        if self._faults.torn:
            whole = pieces.pop()
            # At least one byte of the last line comes now, and at least its end with the next block.
            cut = len(whole) - self._rng.randrange(1, len(lines[-1]))
            first = self._rng.randrange(cut)
            pieces += [whole[:first], whole[first:cut]]
            self._torn = whole[cut:]
        for piece in pieces:
            _write(self._file, piece)

    def _mend(self) -> None:
        if self._torn and self._file is not None:
            _write(self._file, self._torn)
        self._torn = b""

    def _speak(self) -> None:
        self._silent = 0
        if self._held:
            self._append(self._held)
            self._mend()
        self._held = []

    def _write_late(self) -> None:
        if self._late:
            with self._open(self._late_hour) as file:
                _write(file, b"".join(self._late))
        self._late = []

    def _open(self, hour: int) -> FileIO:
        when = datetime.fromtimestamp(hour * 3600, UTC)
        return self._claim.open(f"{self._folder}/hourly/{when:%Y%m%d}/{when.hour}")


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # an unbuffered write may take less than it is given
        rest = rest[file.write(rest) :]


class Writer:
    """Writes each block to the hour files of its streams, in every layout at once.

    Args:
        claim: the data directory.
        layouts: how lines are arranged.
        streams: which streams are written.
        per_line: one write a line, as a node with --disable-output-file-buffering; otherwise one write a block.
        faults: what goes wrong.
        seed: decides the delays between a block and its lines, and where the faults strike.
    """

    def __init__(
        self,
        claim: Claim,
        layouts: Sequence[Layout],
        *,
        streams: Sequence[Stream] = tuple(STREAMS.values()),
        per_line: bool = False,
        faults: Faults = NO_FAULTS,
        seed: int = 1,
    ) -> None:
        self._rng = random.Random(seed)
        self._local = {stream.name: 0 for stream in streams}
        self._lanes = [
            (stream, layout, _Lane(claim, stream.directory(layout), seed, faults, per_line=per_line))
            for stream in streams
            for layout in layouts
        ]

    def write(self, block: Block) -> None:
        """Append a block; one that was written before comes again at a later local time, as after a restart."""
        delay = _DELAY_NS - _EARLY_NS - self._rng.randrange(_JITTER_NS)
        begun: dict[str, tuple[int, int]] = {}
        for name, last in self._local.items():
            n = len(block.events(STREAMS[name]))
            step = min(_STEP_NS, _SPAN_NS // max(n, 1))
            begin = max(last + _STEP_NS, block.time_ns + delay)
            self._local[name] = begin + step * max(n - 1, 0)
            begun[name] = begin, step
        for stream, layout, lane in self._lanes:
            begin, step = begun[stream.name]
            lines = _lines(block, block.events(stream), layout, begin, step)
            lane.put(lines, begin, step if layout is Layout.STREAMING else 0)

    @property
    def lines(self) -> dict[str, int]:
        """Lines so far, by directory, repeated ones included."""
        return {stream.directory(layout): lane.lines for stream, layout, lane in self._lanes}

    @property
    def size(self) -> int:
        """Bytes so far."""
        return sum(lane.size for _, _, lane in self._lanes)

    def close(self) -> None:
        """Write what faults held back, and close the files."""
        for _, _, lane in self._lanes:
            lane.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _lines(block: Block, events: Sequence[bytes], layout: Layout, local_ns: int, step_ns: int) -> list[bytes]:
    if layout is Layout.PLAIN:
        return [event + b"\n" for event in events]
    rest = f'","block_time":"{stamp(block.time_ns)}","block_number":{block.number},"events":['
    if layout is Layout.BY_BLOCK:
        return [f'{{"local_time":"{stamp(local_ns)}{rest}'.encode() + b",".join(events) + b"]}\n"]
    return [
        b"%b%b]}\n" % (f'{{"local_time":"{stamp(local_ns + at * step_ns)}{rest}'.encode(), event)
        for at, event in enumerate(events)
    ]


def simulate(
    root: Path,
    *,
    layouts: Sequence[Layout] = (Layout.STREAMING,),
    streams: Sequence[Stream] = tuple(STREAMS.values()),
    rate: float = 5000.0,
    blocks: int | None = None,
    seed: int = 1,
    start_ns: int | None = None,
    faults: Faults = NO_FAULTS,
    per_line: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
    stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """Write a node's files until `blocks` are written or `stop()` is true.

    Args:
        root: the data directory: an empty one, or one that only simulators have written to, one after the other.
        layouts: how lines are arranged.
        streams: which of them.
        rate: order statuses a second on average; 0 is as fast as possible, with mainnet's median of statuses a block.
        blocks: how many, None for no end.
        seed: the same seed, rate and start give the same bytes.
        start_ns: the first block's time, UTC ns since 1970; None for now less a node's delay: lines then say now.
        faults: what goes wrong.
        per_line: one write a line instead of one a block.
        clock: seconds, for pacing; block n is due 67 ms x n after the first, however late any other was.
        sleep: waits so many seconds, less where it pleases.
        stop: asked before every block.

    Raises:
        UsageError: where something else is in the directory, or another simulator writes to it.
        OSError: where it cannot be written.
    """
    start_ns = time.time_ns() - _DELAY_NS if start_ns is None else start_ns
    market = Market(seed, rate * BLOCK_GAP_NS / 1e9 if rate else _BUSY, start_ns)
    rng = random.Random(seed)
    recent: deque[Block] = deque(maxlen=_REWIND_BLOCKS.stop if faults.restart_every else 0)
    tally: Counter[str] = Counter()
    begun = clock()
    with (
        Claim(root) as claim,
        Writer(claim, layouts, streams=streams, per_line=per_line, faults=faults, seed=seed) as writer,
    ):
        for made in count():
            if made == blocks or stop():
                break
            wait = begun + made * (BLOCK_GAP_NS / 1e9) - clock() if rate else 0.0
            if wait > 0:
                sleep(wait)
            if faults.restart_every and made and made % faults.restart_every == 0:
                again = list(recent)[-rng.choice(_REWIND_BLOCKS) :]
                tally.update(restarts=1, repeated=len(again))
                for block in again:
                    writer.write(block)
            block = market.next_block()
            writer.write(block)
            recent.append(block)
            tally.update(blocks=1)
    return Summary(tally["blocks"], tally["restarts"], tally["repeated"], writer.lines, writer.size)
