"""Catching up: a backlog in a file, to one client's socket.

Two ways: a client that asks for the past is read to from the files (`reader`); a service that was held up reads what the
node has written meanwhile, and its client, live until then, gets it from there (`head`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs

from benchmarks.book import OURS
from benchmarks.node import Backlog, Node, recorded, simulated
from benchmarks.processes import started
from benchmarks.run import Run
from hyperwatch.node.streams import Layout

__all__ = ["FILTERS", "catch_up"]

_TURN_S = 60.0

FILTERS: dict[str, dict[str, Any]] = {
    "everything": {},
    "no rejections": {"notStatuses": ["rejected"]},
    "one coin": {"coins": ["BTC"]},
}
_JUDGED = (
    ("everything", Layout.STREAMING),
    ("no rejections", Layout.STREAMING),
    ("everything", Layout.BY_BLOCK),
)


@attrs.frozen
class _Case:
    run: Run
    name: str
    backlog: Backlog
    layout: Layout
    wanted: dict[str, Any]

    @property
    def copies(self) -> int:
        return max(1, self.run.few(300_000, 40_000) // self.backlog.events[self.layout])

    def events(self, copies: int) -> int:
        return copies * self.backlog.events[self.layout] + 1

    def subscription(self, **more: object) -> dict[str, Any]:
        return {"type": "orders", "id": "x", **self.wanted, **more}

    def add(self, subject: str, copies: int, began_ns: int, answer: dict[str, Any], **numbers: float) -> None:
        wall_s = (answer["ended_ns"] - began_ns) / 1e9
        self.run.book.add(
            self.name, subject, done=answer["done"], events_per_s=self.events(copies) / wall_s, wall_s=wall_s,
            events_per_cpu_s=self.events(copies) / numbers["cpu_s"],
            bytes=answer["bytes"], messages=answer["messages"], **numbers,
        )  # fmt: skip


def catch_up(run: Run) -> None:
    """Everything, no rejections, one coin; from both ends; recorded (one coin is all they hold) and simulated."""
    made = simulated(run.few(60_000, 10_000))
    real = recorded(run.samples) if run.samples is not None else made
    for words, layout in _JUDGED:
        for way in (_reader, _head):
            way(_Case(run, f"catch-up/{layout.label}/{words}/{way.__name__[1:]}/judged", real, layout, FILTERS[words]))
    for words, wanted in FILTERS.items():
        if real is not made or words == "one coin":
            name = f"catch-up/streaming/{words}/reader/simulated"
            _reader(_Case(run, name, made, Layout.STREAMING, wanted))


def _reader(case: _Case) -> None:
    run = case.run
    with run.case(case.name) as folder, Node(folder, case.layout) as node:
        last = node.put_backlog(case.backlog, case.copies)
        with run.server(case.name, folder) as server:
            turn = {"until_block": last, "within_s": _TURN_S}
            server.port()  # its start is none of the turn's
            for _ in range(run.rounds):
                server.begin_turn()
                cpu_s = server.cpu_s
                subscription = case.subscription(**{"from": "earliest"})
                with run.clients(server, [[subscription]], folder, turn=turn) as clients:
                    answer = clients.answer(_TURN_S)
                numbers = {"cpu_s": server.cpu_s - cpu_s, "peak_mib": server.peak_mib}
                case.add(OURS, case.copies, answer["began_ns"], answer, **numbers)
                if run.profiles is None:
                    _loads(case, folder)
                    _replaced(case, folder)


def _head(case: _Case) -> None:
    run = case.run
    copies = max(1, case.copies // 2)
    with (
        run.case(case.name) as folder,
        Node(folder, case.layout) as node,
        run.server(case.name, folder) as server,
        run.clients(server, [[case.subscription()]], folder) as clients,
    ):
        for _ in range(run.rounds):
            server.begin_turn()
            with server.paused():
                last = node.put_backlog(case.backlog, copies)
                clients.expect(until_block=last, within_s=_TURN_S)
                cpu_s, began_ns = server.cpu_s, time.monotonic_ns()
            answer = clients.answer(_TURN_S)
            numbers = {"cpu_s": server.cpu_s - cpu_s, "peak_mib": server.peak_mib}
            case.add(OURS, copies, began_ns, answer, **numbers)
            if run.profiles is None:
                _loads(case, folder)


def _loads(case: _Case, folder: Path) -> None:
    path = folder / "one-a-line"
    if not path.exists():
        copies = max(1, 80_000 // case.backlog.events[Layout.STREAMING])
        path.write_bytes(case.backlog.copies(Layout.STREAMING, copies, case.backlog.first)[0])
    with started("benchmarks.baselines.loads", path, log=folder / "loads.log") as process:
        case.run.book.add(case.name, "json.loads", **process.hear(_TURN_S))


def _replaced(case: _Case, folder: Path) -> None:
    """It gets one copy: it is that much slower."""
    root = folder / "replaced"
    if case.run.book.gave_up(case.name, "replaced"):
        return
    with Node(root, case.layout) as node:
        last = node.put_backlog(case.backlog, 1)
        with case.run.baseline("replaced", folder, node.path, "begin") as server:
            turn = {"until_block": last, "within_s": _TURN_S}
            server.port()  # its start is none of the turn's
            cpu_s = server.cpu_s
            with case.run.clients(server, [[case.subscription()]], folder, turn=turn) as clients:
                answer = clients.answer(_TURN_S)
            numbers = {"cpu_s": server.cpu_s - cpu_s, "peak_mib": server.peak_mib}
            case.add("replaced", 1, answer["began_ns"], answer, **numbers)
    node.path.parent.rmdir()
