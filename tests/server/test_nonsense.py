"""A fuzz of the whole service by what clients say: nothing of it is a fault of ours, and nothing is kept of it."""

from __future__ import annotations

import gc
import itertools
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio
from loguru import logger

from guarded import CLOSE, TEXT, Raw, asked, frame, raw
from hyperwatch.feed.requests import parse
from hyperwatch.ledger import state_dir
from hyperwatch.node.streams import DIFFS, FILLS, Layout
from hyperwatch.server.limits import Limits
from nonsense import PLACES, Nonsense, deep
from support import append, diff, event, fill, hour_file, line, running

HOUR = "20260505/9"
SEED = 20261127
AT_ONCE = 100  # messages in a write
A_CONNECTION = 1000  # messages; control frames between them count too, and 2,000 frames may come at once
HEADS = 40  # requests beside each connection
BLOCKS = 300  # written meanwhile: what reading the past takes grows with what there is to read, up to a bound
FLAT_BYTES = 32 * 1024 * 1024
WARM = 0.2  # of all messages: what is made once is there by then


@attrs.define
class Log:
    """What was said, as far as it says that something went wrong; of the rest how much it was."""

    faults: list[str] = attrs.Factory(list)
    lines: int = 0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """As long as the context lasts, by loguru and by the libraries' own."""
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.faults.append(record.getMessage())  # type: ignore[method-assign]  # all of it
        logging.getLogger().addHandler(handler)
        number = logger.add(self._hear, level="DEBUG", format="{level} {message}\n{exception}")
        try:
            yield
        finally:
            logger.remove(number)
            logging.getLogger().removeHandler(handler)

    def _hear(self, text: str) -> None:
        self.lines += 1
        if text.startswith(("ERROR", "CRITICAL")) or "Traceback" in text:
            self.faults.append(text)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@attrs.define
class Fuzz:
    """Clients, one after the other, and what they have seen."""

    port: int
    made: Nonsense
    ends: Counter[int] = attrs.Factory(Counter)
    channels: Counter[str] = attrs.Factory(Counter)

    async def connection(self, count: int, write: Callable[[], None]) -> None:
        """One client, of so many messages, until it says goodbye or is put out. The node writes meanwhile."""
        async with raw(self.port) as client, trio.open_nursery() as nursery:
            nursery.start_soon(self._hear, client, nursery.cancel_scope)
            try:
                while count > 0:
                    write()
                    some = [self.made.message() for _ in range(min(count, AT_ONCE))]
                    await client.say(b"".join(map(self.made.frames, some)))
                    count -= len(some)
                await client.say(self.made.last_frames())
                await client.say(bytes(14) + frame(CLOSE, b"\x03\xe8"))
            except trio.BrokenResourceError:
                pass  # it was put out, and reads why

    async def _hear(self, client: Raw, scope: trio.CancelScope) -> None:
        with suppress(EOFError, trio.BrokenResourceError):
            while True:
                opcode, payload = await client.hear()
                if opcode == CLOSE:
                    self.ends[int.from_bytes(payload[:2], "big")] += 1
                    break
                if opcode == TEXT:
                    self.channels[payload[12 : payload.index(b'"', 12)].decode()] += 1
        scope.cancel("it is over")

    async def request(self) -> None:
        """A head of HTTP, whole or in two pieces, and the end."""
        head = self.made.head()
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(head[: len(head) // 2])
                await trio.lowlevel.checkpoint()
                await stream.send_all(head[len(head) // 2 :])
                await stream.send_eof()
                answer = b"".join([bytes(data) async for data in stream])
                self.channels[answer[9:12].decode()] += 1


async def fuzzed(root: Path, messages: int, seed: int = SEED) -> tuple[Fuzz, Log]:
    """Lets a service of three streams hear so many messages, and sees what is left of them."""
    log, written = Log(), [hour_file(root, HOUR), hour_file(root, HOUR, Layout.STREAMING, FILLS),
                           hour_file(root, HOUR, Layout.STREAMING, DIFFS)]  # fmt: skip

    blocks, asked_for, seldom = itertools.count(7), itertools.count(), max(1, messages // AT_ONCE // BLOCKS)

    def write() -> None:
        if next(asked_for) % seldom:
            return
        block = next(blocks)
        for path, events in zip(written, ([event(block)], [fill(block), fill(block, "A")], [diff(block)]), strict=True):
            append(path, line(block, events))

    write()
    settings = {"state_dir": root / "state", "info_url": "http://127.0.0.1:1/info", "ring_bytes": 2**20,
                "limits": Limits(client_share=math.inf)}  # fmt: skip  # it is as fast as it can
    with log.kept():
        async with running(root, **settings) as port:
            fuzz, done, before = Fuzz(port, Nonsense(seed)), 0, None
            began_s = time.monotonic()
            while done < messages:
                count = min(A_CONNECTION, messages - done)
                with trio.fail_after(60):
                    await fuzz.connection(count, write)
                    async with trio.open_nursery() as nursery:
                        for _ in range(HEADS):
                            nursery.start_soon(fuzz.request)
                done += count + HEADS
                if before is None and done >= WARM * messages:
                    before = await at_rest(port), time.monotonic()
            after = await at_rest(port)
            assert (await asked(port, b"GET /gaps HTTP/1.1\r\nHost: x\r\n\r\n"))[1].endswith('"gaps":[]}')
            minutes = (time.monotonic() - began_s) / 60
    assert before is not None
    (files, resident), _ = before
    assert after[0] <= files, f"{after[0] - files} descriptors are left open"
    assert after[1] - resident < FLAT_BYTES, f"{(after[1] - resident) / 2**20:.1f} MiB are kept"
    assert list(state_dir.gaps(root / "state").read()) == []
    # The batches that were written have three lines each, and what clients cause is bounded in each minute.
    assert log.lines < 3 * len(written) * next(blocks) + 100 * (minutes + 1)
    return fuzz, log


async def at_rest(port: int) -> tuple[int, int]:
    """(descriptors, bytes) of the process when all clients have left."""
    with trio.fail_after(30):
        while '"clientCount":0' not in (await asked(port, b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"))[1]:  # noqa: ASYNC110  it is asked as by anybody else
            await trio.sleep(0.05)
        await trio.sleep(1.5)  # those who were refused are listened to for a second
    gc.collect()
    return descriptors(), resident_bytes()


async def test_no_message_of_a_client_is_a_fault_of_the_service(tmp_path: Path) -> None:
    fuzz, log = await fuzzed(tmp_path, 6000)
    assert log.faults == []
    for heard in ("error", "subscriptionResponse", "pong", "orders", "fills", "400", "404"):
        assert fuzz.channels[heard], heard


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_a_million_messages_leave_no_traceback_no_memory_and_no_open_file(tmp_path: Path) -> None:
    fuzz, log = await fuzzed(tmp_path, 1_000_000)
    assert log.faults == []
    assert fuzz.channels["error"] > 100_000
    assert min(fuzz.ends[code] for code in (1002, 1007, 1008, 1009)) > 5


async def test_a_parser_that_gives_way_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "too_deep", lambda _: False)
    monkeypatch.setattr(Nonsense, "message", sweep().__next__)
    _, log = await fuzzed(tmp_path, 1000)
    assert [text for text in log.faults if "RecursionError" in text]


def sweep() -> Iterator[bytes]:
    """Every depth at which a parser may give way."""
    while True:
        for depth in range(900, 1010):
            for place in PLACES:
                yield deep(depth, place, brackets=True)
