"""Killed and resumed at random while a node rolls over its hours and restarts: exactly the events of the files."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

import attrs
import msgspec
import pytest
import trio

from hyperwatch.client import Gap, Orders, connect, session, websocket
from hyperwatch.log.tree import Tree
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.simulate.claim import Claim
from hyperwatch.simulate.hour_files import simulate
from hyperwatch.simulate.model import BLOCK_GAP_NS, Faults
from support import append, event, next_line, running, until

# Restarts at blocks 25 and 50 of a phase, rollover at 30: what the first writes again comes late in part.
FAULTS = Faults(torn=True, late_file=True, late_lines=True, restart_every=25)
EIGHT_NS = 1_778_054_400_000_000_000  # 2026-05-06 08:00 UTC
HOUR_NS = 3_600_000_000_000
SPEED = 4  # times a node's own
END = event(1, coin="THE-END")


@attrs.define
class Heard:
    """What a client that is killed has dealt with, and noted."""

    events: list[tuple[int | None, int, bytes]] = attrs.field(factory=list)
    cursor: str = "earliest"
    more: trio.Event = attrs.field(factory=trio.Event)

    def take(self, message: object) -> bool:
        """Deals with a message, and notes where it was; whether that was the last one."""
        assert not isinstance(message, Gap), message
        if isinstance(message, Orders):
            self.events += zip([message.block] * len(message.places), message.places, message.raws, strict=True)
            self.more.set()
            self.more = trio.Event()
        self.cursor = getattr(message, "cursor", self.cursor)
        return bool(self.events) and b"THE-END" in self.events[-1][2]

    async def until(self, count: int) -> None:
        while len(self.events) < count:
            await self.more.wait()


@attrs.define
class Cable:
    """The client's newest connection, to be cut."""

    stream: trio.SocketStream | None = None
    cuts: int = 0

    def of(self, dial: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """What dials, with this cable."""

        async def dial_on_it(parts: SplitResult, deadline: float) -> object:
            self.stream = await dial(parts, deadline)
            return self.stream

        return dial_on_it

    def cut(self) -> None:
        """As a machine that goes does: what is on its way is gone."""
        if self.stream is not None and self.stream.socket.fileno() >= 0:
            self.cuts += 1
            self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.stream.socket.close()


def write(root: Path, phase: int) -> None:
    """A node at work through the last blocks of an hour and the first of the next."""
    simulate(
        root, streams=[ORDERS], rate=3_000, blocks=60, seed=phase, faults=FAULTS,
        start_ns=EIGHT_NS + phase * HOUR_NS - 30 * BLOCK_GAP_NS,
        clock=lambda: time.monotonic() * SPEED, sleep=lambda seconds: time.sleep(seconds / SPEED),
    )  # fmt: skip


class _Line(msgspec.Struct):
    block_number: int
    events: list[msgspec.Raw]


def written(tree: Tree) -> tuple[dict[tuple[int, bytes], tuple[int, int]], int]:
    """Every event of the files, with the file and the line where it stands first; and how many lines there are."""
    first: dict[tuple[int, bytes], tuple[int, int]] = {}
    total = 0
    for number, name in enumerate(tree.names()):
        for place, text in enumerate((tree.hourly / name).read_bytes().splitlines()):
            found = msgspec.json.decode(text, type=_Line)
            total += 1
            for raw in found.events:
                first.setdefault((found.block_number, bytes(raw)), (number, place))
    return first, total


@attrs.define
class Trial:
    """A node at work, its service, and a client that is killed so often."""

    root: Path
    kills: int
    tree: Tree
    heard: Heard = attrs.field(factory=Heard)
    cable: Cable = attrs.field(factory=Cable)
    client: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    clients: int = 0
    over: bool = False

    async def work(self) -> None:
        """The node, for at least two hours."""
        phase = 0
        while phase < 2 or not self.over:
            await trio.to_thread.run_sync(write, self.root, phase)
            await self.heard.until(len(written(self.tree)[0]))  # late lines come within the next hour: it is a long one
            phase += 1
        last = self.tree.hourly / self.tree.names()[-1]
        append(last, next_line(last, END))

    async def harass(self) -> None:
        """Half of the times its connection is cut, half of the times all of it is gone."""
        dice = random.Random(self.kills)
        for number in range(self.kills):
            await self.heard.until(len(self.heard.events) + dice.randrange(1, 400))
            for _ in range(dice.randrange(20)):
                await trio.lowlevel.checkpoint()  # anywhere between two messages
            if number % 2:
                clients = self.clients
                self.client.cancel("killed")
                await until(lambda: self.clients > clients)  # noqa: B023  a message that it had in hand it still deals with
            else:
                self.cable.cut()
        self.over = True

    async def listen(self, port: int) -> bool:
        """The client, until it is killed or has heard the end; whether it has."""
        self.clients += 1
        with trio.CancelScope() as self.client:
            async with connect(f"127.0.0.1:{port}", on_break=lambda _error: None) as feed:
                async for message in feed.orders(start=self.heard.cursor, on_gap="raise"):
                    if self.heard.take(message):
                        return True
        return False


async def survive(root: Path, kills: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is killed so often has exactly the events of the files."""
    trial = Trial(root, kills, Tree(root, ORDERS, Layout.STREAMING))
    monkeypatch.setattr(session, "_FIRST_S", 0.001)
    monkeypatch.setattr(session, "_LONGEST_S", 0.01)
    monkeypatch.setattr(websocket, "_dial", trial.cable.of(websocket._dial))
    with Claim(root) as claim:
        claim.open(f"{ORDERS.directory(Layout.STREAMING)}/hourly/20260506/7").close()
    async with running(root, layout=Layout.STREAMING, ring_bytes=2**20) as port, trio.open_nursery() as nursery:
        nursery.start_soon(trial.work)
        nursery.start_soon(trial.harass)
        while not await trial.listen(port):
            pass
    assert trial.clients == 1 + kills // 2
    assert trial.cable.cuts >= kills // 4
    check(trial.heard, trial.tree)


def check(heard: Heard, tree: Tree) -> None:
    """Every event of the files is there once, byte for byte, and in each file's order."""
    first, lines = written(tree)
    assert len(tree.names()) > 2
    assert lines > len(first)  # a restart wrote some again
    assert Counter((block, raw) for block, _, raw in heard.events) == Counter(list(first))
    assert len({(block, place) for block, place, _ in heard.events}) == len(heard.events)
    where = [first[block or 0, raw] for block, _, raw in heard.events]
    for number in range(len(tree.names())):
        places = [place for file, place in where if file == number]
        assert places == sorted(places)


@pytest.mark.timeout(60)
async def test_a_client_killed_and_resumed_10_times_has_exactly_the_events_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(50):
        await survive(tmp_path, 10, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_client_killed_and_resumed_200_times_has_exactly_the_events_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(280):
        await survive(tmp_path, 200, monkeypatch)
