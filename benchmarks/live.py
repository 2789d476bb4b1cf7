"""Live: blocks 67 ms apart, from the write of each to its receipt."""

from __future__ import annotations

import bisect
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import attrs

from benchmarks.book import OURS, percentile
from benchmarks.node import Events, Node, Sheet, market
from benchmarks.processes import Process
from benchmarks.run import Clients, Run
from hyperwatch.simulate.model import BLOCK_GAP_NS

__all__ = ["RATES", "Lane", "live", "ours", "relay", "replaced", "turns"]

RATES = (5_000, 23_500, 92_000)

_EVERYTHING = [[{"type": "orders", "id": "x"}]]
_GRACE_S = 8.0  # after the last block, for what is behind: past that a turn is not finished


@attrs.frozen
class Lane:
    """A server with a node's directory and clients of its own; while others have their turn it is idle."""

    subject: str
    server: Process
    clients: Clients
    node: Node
    raw: bool = False

    def turn(self, blocks: Sequence[Events], *, per_line: bool) -> dict[str, float]:
        """Writes the blocks and says how late they came."""
        sheet = self.node.prepare(blocks, per_line=per_line)
        within_s = len(blocks) * BLOCK_GAP_NS / 1e9 + _GRACE_S
        until = {"until_bytes": sheet.ends[sheet.last]} if self.raw else {"until_block": sheet.last}
        self.server.begin_turn()
        self.clients.expect(**until, within_s=within_s, receipts=True)
        cpu_s, wall_s = self.server.cpu_s, time.monotonic()
        at_ns = self.node.pace(sheet)
        answer = self.clients.answer(within_s)
        cpu_s, wall_s = self.server.cpu_s - cpu_s, time.monotonic() - wall_s
        return {
            **_latencies(at_ns, _receipts(answer, sheet) if self.raw else answer["receipts"]),
            "done": answer["done"],
            "lines": sheet.lines,
            "messages": answer["messages"],
            "wall_s": wall_s,
            "cpu_s": cpu_s,
            "cpu_percent": 100 * cpu_s / wall_s,
            "peak_mib": self.server.peak_mib,
        }


def live(run: Run) -> None:
    """One client that wants everything, beside a bare relay and the replaced system's shape."""
    for rate in RATES[1:2] if run.quick else RATES:
        blocks = market(rate, run.few(30, 10))
        for unit in ("block", "line"):
            case = f"live/{rate}/{unit}"
            with run.case(case) as folder, ExitStack() as stack:
                lanes = [ours(run, stack, case, folder, _EVERYTHING)]
                if run.profiles is None:
                    lanes += [relay(run, stack, folder), replaced(run, stack, folder, _EVERYTHING)]
                turns(run, case, lanes, blocks, per_line=unit == "line")


def turns(run: Run, case: str, lanes: Sequence[Lane], blocks: Sequence[Events], *, per_line: bool = False) -> None:
    """Every lane's turn, in every round."""
    for _ in range(run.rounds):
        for lane in lanes:
            if not run.book.gave_up(case, lane.subject):
                run.book.add(case, lane.subject, **lane.turn(blocks, per_line=per_line))


def ours(
    run: Run, stack: ExitStack, case: str, folder: Path, connections: list[list[dict[str, Any]]], *, subject: str = OURS
) -> Lane:
    """The sidecar itself."""
    node = stack.enter_context(Node(folder / subject))
    server = stack.enter_context(run.server(case, node.root))
    clients = stack.enter_context(run.clients(server, connections, node.root))
    return Lane(subject, server, clients, node)


def relay(run: Run, stack: ExitStack, folder: Path) -> Lane:
    """From inotify to one client's socket."""
    node = stack.enter_context(Node(folder / "relay"))
    server = stack.enter_context(run.baseline("relay", node.root, node.path))
    clients = stack.enter_context(run.clients(server, [[]], node.root, raw=True))
    return Lane("relay", server, clients, node, raw=True)


def replaced(run: Run, stack: ExitStack, folder: Path, connections: list[list[dict[str, Any]]]) -> Lane:
    """The shape of the system that hyperwatch replaces."""
    node = stack.enter_context(Node(folder / "replaced"))
    server = stack.enter_context(run.baseline("replaced", node.root, node.path, "end"))
    clients = stack.enter_context(run.clients(server, connections, node.root))
    return Lane("replaced", server, clients, node)


def _receipts(answer: dict[str, Any], sheet: Sheet) -> list[list[tuple[int, int]]]:
    """When each block's last byte was there."""
    (arrivals,) = answer["arrivals"]
    sizes = [size for _, size in arrivals]
    found = [(block, bisect.bisect_left(sizes, end)) for block, end in sheet.ends.items()]
    return [[(block, arrivals[at][0]) for block, at in found if at < len(arrivals)]]


def _latencies(at_ns: dict[int, int], receipts: list[list[tuple[int, int]]]) -> dict[str, float]:
    """Of all blocks and clients."""
    late = sorted(
        (at_ns[block], (received_ns - at_ns[block]) / 1e6)
        for client in receipts
        for block, received_ns in client
        if block in at_ns
    )
    values = [ms for _, ms in late] or [float("inf")]
    third = max(1, len(values) // 3)
    return {
        "p50_ms": percentile(values, 0.5),
        "p99_ms": percentile(values, 0.99),
        "max_ms": max(values),
        "grew_ms": median(values[-third:]) - median(values[:third]),
    }
