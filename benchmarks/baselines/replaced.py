"""The shape of the system that hyperwatch replaces, written anew: `python -m benchmarks.baselines.replaced FILE begin|end`.

asyncio; `readline` in a thread; the lines cut into chunks for four threads that call `json.loads`; one object an order;
one JSON document a client and order. Kinder than the original: nothing times out, and frames are written by hand. It reads
on from the file's end, or from its beginning as soon as a client has subscribed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from benchmarks.baselines.sockets import ACCEPTED, LIVE, frame, listen, request

__all__ = ["Order", "Replaced"]

_WORKERS = 4
_LINES = 5_000  # at once
_POLL_S = 0.01
_TELL_S = 1.0


@dataclasses.dataclass
class Order:
    """One order status."""

    block: int | None
    time: str
    user: str
    status: str
    coin: str
    side: str
    price: str
    size: str
    original_size: str
    oid: int
    timestamp: int
    tif: str | None
    order_type: str
    cloid: str | None
    trigger_condition: str
    is_trigger: bool
    trigger_price: str
    reduce_only: bool


def parse(lines: list[bytes]) -> list[Order]:
    """Each line's orders, whichever layout it has."""
    orders: list[Order] = []
    for line in lines:
        document = json.loads(line)
        block = document.get("block_number")
        for event in document.get("events", [document]):
            each = event["order"]
            orders.append(
                Order(
                    block, event["time"], event["user"], event["status"], each["coin"], each["side"], each["limitPx"],
                    each["sz"], each["origSz"], each["oid"], each["timestamp"], each["tif"], each["orderType"],
                    each["cloid"], each["triggerCondition"], each["isTrigger"], each["triggerPx"], each["reduceOnly"],
                )
            )  # fmt: skip
    return orders


def read_lines(file: BinaryIO) -> list[bytes]:
    """Whole lines, at most _LINES."""
    lines: list[bytes] = []
    while len(lines) < _LINES and (line := file.readline()):
        if not line.endswith(b"\n"):
            file.seek(-len(line), 1)
            break
        lines.append(line)
    return lines


class Client:
    """One client and its one subscription."""

    def __init__(self, writer: asyncio.StreamWriter, subscription: dict[str, Any]) -> None:
        self.writer = writer
        self.id = subscription["id"]
        self.seq = 1
        self.coins, self.users = subscription.get("coins"), subscription.get("users")
        self.refused = "notStatuses" not in subscription  # `rejected` is all that the benchmarks exclude

    def wants(self, order: Order) -> bool:
        return (
            (self.coins is None or order.coin in self.coins)
            and (self.users is None or order.user in self.users)
            and (self.refused or not order.status.endswith("Rejected"))
        )

    def send(self, channel: str, block: int | None, order: Order | None) -> None:
        self.seq += 1
        data = {"id": self.id, "seq": self.seq, "blockNumber": block, "order": order and vars(order)}
        text = json.dumps({"channel": channel, "data": data}, separators=(",", ":")).encode()
        self.writer.write(frame(len(text)) + text)


class Replaced:
    """The server.

    Args:
        path: the file.
        begin: whether to read it from its beginning.
    """

    def __init__(self, path: str, *, begin: bool) -> None:
        self._path = path
        self._begin = begin
        self._clients: list[Client] = []
        self._somebody = asyncio.Event()
        self._block: int | None = None

    async def run(self) -> None:
        server = await asyncio.start_server(self._serve, sock=listen())
        async with server, asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._tell())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ACCEPTED)
            client = Client(writer, request(await reader.readexactly(2), await reader.read(1 << 16)))
            text = (LIVE % json.dumps(client.id)).encode()
            writer.write(frame(len(text)) + text)
            self._clients.append(client)
            self._somebody.set()
            await reader.read()
            self._clients.remove(client)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(_WORKERS) as pool, open(self._path, "rb") as file:  # noqa: ASYNC230, PTH123  as it was
            if self._begin:
                await self._somebody.wait()
            else:
                file.seek(0, 2)
            while True:
                lines = await loop.run_in_executor(pool, read_lines, file)
                if not lines:
                    await asyncio.sleep(_POLL_S)
                    continue
                share = -(-len(lines) // _WORKERS)
                chunks = [lines[at : at + share] for at in range(0, len(lines), share)]
                for orders in await asyncio.gather(*(loop.run_in_executor(pool, parse, chunk) for chunk in chunks)):
                    await self._deliver(orders)

    async def _deliver(self, orders: list[Order]) -> None:
        for order in orders:
            for client in self._clients:
                if client.wants(order):
                    client.send("orders", order.block, order)
            self._block = order.block
        for client in list(self._clients):
            await client.writer.drain()

    async def _tell(self) -> None:
        """So that a client whose filter matches nothing knows how far it is."""
        while True:
            await asyncio.sleep(_TELL_S)
            for client in self._clients:
                client.send("cursor", self._block, None)


if __name__ == "__main__":
    asyncio.run(Replaced(sys.argv[1], begin=sys.argv[2] == "begin").run())
