"""What several tests use: made-up node lines, the real recordings where they are, and a client."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio_websocket

from hyperwatch.config import Address, Config
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Batch
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Tree
from hyperwatch.node.streams import ORDERS, Layout, Stream
from hyperwatch.server.http import Exchange
from hyperwatch.server.transport import Transport
from hyperwatch.server.websocket import ServerWebSocket, accept
from hyperwatch.service import service

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
needs_samples = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="the real recordings are not part of the repository; beside it they are tested against"
)

USER = "0x" + "ab" * 20


@cache
def works(*command: str) -> bool:
    """Whether a tool does what it is asked, tried once a session: one that is there may lack a plugin, a right or a library."""
    try:
        # No pipes: where it is ended, what it has started may hold them open for ever.
        asked = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def needs(package: str, *command: str) -> pytest.MarkDecorator:
    """Skips a test where a tool of a Debian package does not do what it is asked here."""
    reason = f"needs Debian's package {package}: here `{' '.join(command)}` does not work"
    return pytest.mark.skipif(not works(*command), reason=reason)


TIME = "2026-05-05T17:39:13.024084407"
TIME_MS = 1778002753024


def sample(name: str) -> bytes:
    """The contents of a recording."""
    return gzip.decompress((SAMPLES / name).read_bytes())


def event(number: int = 0, *, status: str = "open", coin: str = "BTC", user: str = USER, **order: object) -> bytes:
    """One order status as a node writes it; `number` is its oid."""
    body = {
        "coin": coin, "side": "B", "limitPx": "65045.0", "sz": "0.0003", "oid": number, "timestamp": TIME_MS,
        "triggerCondition": "N/A", "isTrigger": False, "triggerPx": "0.0", "children": [], "isPositionTpsl": False,
        "reduceOnly": False, "orderType": "Limit", "origSz": "0.0003", "tif": "Alo", "cloid": None, **order,
    }  # fmt: skip
    whole = {"time": TIME, "user": user, "hash": None, "builder": None, "status": status, "order": body}
    return json.dumps(whole, separators=(",", ":")).encode()


def fill(
    tid: int, side: str = "B", *, user: str = USER, coin: str = "BTC", crossed: bool = False, **more: object
) -> bytes:
    """One fill as a node writes it."""
    body = {
        "coin": coin, "px": "81308.0", "sz": "0.00033", "side": side, "time": TIME_MS, "startPosition": "0.20486",
        "dir": "Open Long", "closedPnl": "0.0", "hash": "0x" + "1f" * 32, "oid": tid + 1000, "crossed": crossed,
        "fee": "0.010866", "tid": tid, "feeToken": "USDC", "twapId": None, **more,
    }  # fmt: skip
    return json.dumps([user, body], separators=(",", ":")).encode()


def diff(oid: int, *, user: str = USER, coin: str = "BTC", change: object = "remove") -> bytes:
    """One raw book diff as a node writes it."""
    body = {"user": user, "oid": oid, "coin": coin, "side": "B", "px": "81308.0", "raw_book_diff": change}
    return json.dumps(body, separators=(",", ":")).encode()


def line(block: int, events: Iterable[bytes]) -> bytes:
    """An envelope with its newline."""
    head = f'{{"local_time":"2026-05-05T17:39:13.5","block_time":"{TIME}","block_number":{block},"events":['
    return head.encode() + b",".join(events) + b"]}\n"


def next_line(path: Path, event: bytes) -> bytes:
    """A line of the block, or in the plain layout of the time, that comes after the last one of an hour file."""
    last = json.loads(path.read_bytes().splitlines()[-1])
    made = line(last["block_number"] + 1, [event]) if "block_number" in last else event + b"\n"
    return made.replace(TIME.encode(), last.get("block_time", last.get("time")).encode())


def lines_of(layout: Layout, blocks: Sequence[tuple[int, Sequence[bytes]]]) -> bytes:
    """The same blocks in one of the layouts."""
    if layout is Layout.BY_BLOCK:
        return b"".join(line(number, events) for number, events in blocks)
    if layout is Layout.STREAMING:
        return b"".join(line(number, [each]) for number, events in blocks for each in events)
    return b"".join(each + b"\n" for _, events in blocks for each in events)


def hour_file(root: Path, name: str, layout: Layout = Layout.STREAMING, stream: Stream = ORDERS) -> Path:
    """The path of an hour file, its directory made."""
    path = root / stream.directory(layout) / "hourly" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def append(path: Path, data: bytes) -> None:
    """As a node does."""
    with path.open("ab") as file:
        file.write(data)


def batches(root: Path, blocks: list[list[bytes]]) -> tuple[Tree, list[Batch]]:
    """One batch of each list of lines."""
    path = hour_file(root, "20260505/9")
    append(path, b"")
    log = Tree(root, ORDERS, Layout.STREAMING)
    reader = BatchReader(log, Cursor(ORDERS.directory(Layout.STREAMING)))
    made = []
    for lines in blocks:
        append(path, b"".join(lines))
        batch = reader.next(None, lambda: None)
        assert batch is not None
        made.append(batch)
    reader.close()
    return log, made


def read_all(log: Tree, cursor: Cursor | None = None) -> list[Batch]:
    reader = BatchReader(log, cursor or Cursor(log.stream.directory(log.layout)))
    batches = []
    while batch := reader.next(None, lambda: None):
        batches.append(batch)
    reader.close()
    return batches


def events_of(batches: Iterable[Batch]) -> list[tuple[int | None, int, bytes]]:
    """(block, index, event) of everything in some batches."""
    return [
        (entry.slice.block, entry.first_index + number, bytes(raw))
        for batch in batches
        for entry in batch.entries
        for number, raw in enumerate(entry.slice.events)
    ]


@attrs.define
class Client:
    """A plain WebSocket client of the feed."""

    socket: trio_websocket.WebSocketConnection

    async def say(self, message: object) -> None:
        await self.socket.send_message(json.dumps(message))

    async def hear(self, *channels: str) -> dict[str, Any]:
        """The next message on one of these channels; of any where none is named."""
        while True:
            message: dict[str, Any] = json.loads(await self.socket.get_message())
            if not channels or message["channel"] in channels:
                return message

    async def subscribe(self, **subscription: object) -> dict[str, Any]:
        """Subscribes and returns the answer."""
        await self.say({"method": "subscribe", "subscription": subscription})
        return await self.hear("subscriptionResponse", "error")

    async def collect(self, count: int, channel: str = "orders") -> list[tuple[int | None, int, str]]:
        """(block, index, event as text) of the next `count` events of `orders`, or of another channel."""
        got: list[tuple[int | None, int, str]] = []
        while len(got) < count:
            got += places_of((await self.hear(channel))["data"])
        return got


def places_of(data: dict[str, Any]) -> list[tuple[int | None, int, str]]:
    """(block, index, event as text) of one `orders` message."""
    index = data["index"]
    places = index if isinstance(index, list) else range(index, index + len(data["events"]))
    return [
        (data["blockNumber"], place, json.dumps(each, separators=(",", ":")))
        for place, each in zip(places, data["events"], strict=True)
    ]


@asynccontextmanager
async def connected(port: int, *, path: str = "/ws") -> AsyncIterator[Client]:
    """A client of a server on this machine."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)  # open_websocket leaves its own open where the server closes
    try:
        async with trio.open_nursery() as nursery:
            socket = await trio_websocket.wrap_client_stream(
                nursery, stream, f"127.0.0.1:{port}", path, max_message_size=2**21, message_queue_size=8
            )
            yield Client(socket)
            with trio.move_on_after(2):
                await socket.aclose()
            nursery.cancel_scope.cancel("the client is done")
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def accepted(stream: trio.SocketStream) -> AsyncIterator[ServerWebSocket]:
    """The server's side of a WebSocket, whoever wants one."""
    line = Transport(stream)
    try:
        request = await Exchange(line).head()
        async with accept(line, request.websocket_key()) as socket:
            yield socket
    finally:
        line.close()


@asynccontextmanager
async def running(data_dir: Path, **settings: Any) -> AsyncIterator[int]:  # noqa: ANN401  Config checks them
    """The sidecar in this process, on any free port, which is yielded."""
    config = Config(**{"data_dir": data_dir, "listen": Address("127.0.0.1", 0), "workers": 2, **settings})
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(partial(service.run, config))
        yield port
        nursery.cancel_scope.cancel("the test is over")


def messages_in(data: bytes) -> list[bytes]:
    """What is in a server's whole frames."""
    found = []
    while data:
        start = 2 + {126: 2, 127: 8}.get(data[1], 0)
        end = start + (int.from_bytes(data[2:start], "big") if start > 2 else data[1])
        found.append(data[start:end])
        data = data[end:]
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what other tasks do; the test's own timeout bounds it."""
    while not condition():  # noqa: ASYNC110  threads and other tasks do not announce it
        await trio.lowlevel.checkpoint()
