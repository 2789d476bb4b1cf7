"""Fan-out: the same small messages to many clients, beside a bare loop of `sendmsg`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.live import Lane, ours, replaced
from benchmarks.node import Events, market
from benchmarks.processes import Process
from benchmarks.run import Clients, Run

__all__ = ["CLIENTS", "fan_out"]

CLIENTS = (1, 100, 1000)

_TURN_S = 60.0
_SENDS = 100_000  # of all clients together, in a turn: about a second
_MOST = 2_000  # messages: a batch that the head takes at once


def fan_out(run: Run) -> None:
    """Blocks of an event or two: with cursor and numbers, messages of about 1 KB."""
    for clients in CLIENTS[1:2] if run.quick else CLIENTS:
        case = f"fan-out/{clients}"
        messages = min(_MOST, run.few(_SENDS, _SENDS // 5) // clients)
        with run.case(case) as folder:
            _case(run, case, clients, messages, folder)


def _case(run: Run, case: str, clients: int, messages: int, folder: Path) -> None:
    events = market(23_500, 2)[0]
    blocks = [events[at : at + 1 + number % 2] for number in range(messages) for at in [number % (len(events) - 1)]]
    connections: list[list[dict[str, Any]]] = [[{"type": "orders", "id": "x"}] for _ in range(clients)]
    with ExitStack() as stack:
        mine = ours(run, stack, case, folder, connections)
        if run.profiles is not None:
            run.book.add(case, mine.subject, **_push(mine, blocks))
            return
        bare = stack.enter_context(run.baseline("sendmsg", folder, clients))
        listeners = stack.enter_context(run.clients(bare, connections, folder))
        theirs = replaced(run, stack, folder, connections)
        for _ in range(run.rounds):
            run.book.add(case, mine.subject, **(numbers := _push(mine, blocks)))
            run.book.add(case, "sendmsg", **_loop(bare, listeners, messages, int(numbers["bytes_each"])))
            if not run.book.gave_up(case, theirs.subject):
                run.book.add(case, theirs.subject, **_push(theirs, blocks))


def _push(lane: Lane, blocks: Sequence[Events]) -> dict[str, float]:
    """The node writes all at once."""
    with _turn(lane.server, lane.clients, len(blocks)) as numbers:
        lane.node.put(blocks)
    return numbers


def _loop(bare: Process, listeners: Clients, messages: int, size: int) -> dict[str, float]:
    """As many messages of that size, without a node."""
    with _turn(bare, listeners, messages) as numbers:
        bare.tell([messages, size])
    bare.hear(_TURN_S)
    return numbers


@contextmanager
def _turn(server: Process, clients: Clients, messages: int) -> Iterator[dict[str, float]]:
    """From the start of what is done within to the last message at the last client; the numbers are there behind it."""
    server.begin_turn()
    clients.expect(until_messages=messages, within_s=_TURN_S)
    cpu_s, began_ns = server.cpu_s, time.monotonic_ns()
    numbers: dict[str, float] = {}
    yield numbers
    answer = clients.answer(_TURN_S)
    cpu_s, wall_s = server.cpu_s - cpu_s, (answer["ended_ns"] - began_ns) / 1e9
    count = answer["messages"]
    numbers |= {
        "done": answer["done"],
        "messages": count,
        "bytes_each": answer["bytes"] // max(1, count),
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "messages_per_s": count / wall_s,
        "messages_per_cpu_s": count / cpu_s,
        "peak_mib": server.peak_mib,
    }
