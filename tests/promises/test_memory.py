"""Memory does not depend on how much there is to read, nor on who does not read it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Tree, backlog
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.runtime import memory
from hyperwatch.simulate.claim import Claim
from hyperwatch.simulate.hour_files import simulate
from processes import port_of, resident_bytes
from support import Client, append, connected, event, line, next_line

LINES = 10_000_000
AHEAD_BYTES = 200 * 2**20  # how far the node may be ahead of the service, so that pruning takes nothing unread
LIMIT_BYTES = 200 * 10**6
TIMES = 40  # of the curve


def test_the_c_library_takes_the_settings() -> None:
    assert memory.keep_flat() or "musl" in Path("/proc/self/maps").read_text()


@attrs.define
class Node:
    """Writes six hours at full speed, waits for the service to keep up, and prunes all but two hours."""

    tree: Tree
    reached: Cursor
    pruned: int = 0
    turns: int = 0
    over: bool = False

    def write(self) -> None:
        summary = simulate(
            self.tree.root, layouts=[self.tree.layout], streams=[ORDERS], rate=500, blocks=LINES // 33,
            clock=lambda: 0.0, sleep=self.rest, stop=lambda: self.over,
        )  # fmt: skip
        assert self.over or sum(summary.lines.values()) > LINES * 0.9
        last = self.tree.hourly / self.tree.names()[-1]
        append(last, next_line(last, event(1, coin="THE-END")))

    def rest(self, _: float) -> None:
        self.turns += 1
        if self.turns % 500:
            return
        while backlog(self.tree, self.reached).size_bytes > AHEAD_BYTES and not self.over:
            time.sleep(0.01)
        for name in self.tree.names()[:-2]:
            (self.tree.hourly / name).unlink()
            self.pruned += 1


async def follow(client: Client, node: Node) -> None:
    """Keeps the node's place until THE-END is heard."""
    while True:
        message: dict[str, Any] = await client.hear("cursor", "orders", "gap")
        assert message["channel"] != "gap", message
        node.reached = Cursor.decode(message["data"]["cursor"])
        if message["channel"] == "orders":
            return


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_memory_stays_flat_over_ten_million_lines_that_are_pruned_and_a_client_that_reads_nothing(
    tmp_path: Path,
) -> None:
    root = tmp_path / "node"
    with Claim(root) as claim, claim.open(f"{ORDERS.directory(Layout.STREAMING)}/hourly/20200101/0") as file:
        file.write(line(1, [event(1)]))
    command = [
        sys.executable,
        "-m",
        "hyperwatch",
        "run",
        "--metrics-listen=",
        "--data-dir",
        str(root),
        "--listen",
        "127.0.0.1:0",
    ]
    command += ["--state-dir", str(tmp_path / "state"), "--log-level", "INFO"]
    log = (tmp_path / "log").open("w+")
    process = await trio.to_thread.run_sync(partial(subprocess.Popen, command, stderr=log))
    curve: list[int] = []
    try:
        port = await port_of(tmp_path / "log")
        node = Node(Tree(root, ORDERS, Layout.STREAMING), Cursor("node_order_statuses_streaming"))
        async with connected(port) as stalled, connected(port) as client, trio.open_nursery() as nursery:
            await stalled.say({"method": "subscribe", "subscription": {"type": "orders"}})
            await client.subscribe(type="orders", coins=["THE-END"])
            nursery.start_soon(sample, process.pid, curve)
            nursery.start_soon(trio.to_thread.run_sync, node.write)
            await follow(client, node)
            assert node.pruned >= 4
            gone = [fd for fd in Path(f"/proc/{process.pid}/fd").iterdir() if "(deleted)" in str(fd.readlink())]
            nursery.cancel_scope.cancel("the end")
        process.terminate()
        assert await trio.to_thread.run_sync(process.wait, 10) == 0
    finally:
        node.over = True
        process.kill()
        process.wait()
        log.close()
    show(curve)
    assert len(gone) <= 2, "pruned files leave the disk"
    assert max(curve) < LIMIT_BYTES
    early, late = curve[len(curve) // 2 : -len(curve) // 4], curve[-len(curve) // 4 :]
    # Medians: what is read at once, and let go again, moves it by 15 MiB up and down. Not the first half: the heap takes a
    # minute to the size at which it stays over forty million lines. Seven bytes a line would be found.
    assert statistics.median(late) < 1.1 * statistics.median(early), "flat"


async def sample(pid: int, curve: list[int]) -> None:
    while True:
        await trio.sleep(0.5)
        curve.append(resident_bytes(pid))


def show(curve: list[int]) -> None:
    step = max(1, len(curve) // TIMES)
    for number in range(0, len(curve), step):
        mib = max(curve[number : number + step]) / 2**20
        print(f"{number / 2:6.1f} s {mib:6.1f} MiB {'#' * int(mib / 4)}")  # noqa: T201  the curve is what is shown
    print(json.dumps({"peak_mib": round(max(curve) / 2**20, 1), "seconds": len(curve) / 2}))  # noqa: T201  as above
