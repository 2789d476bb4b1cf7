"""The whole service under faults: killed at random, stopped with everything busy, files that come and go."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import websockets.exceptions
import websockets.sync.client
from loguru import logger

from hyperwatch.ingest import watcher as watch_module
from hyperwatch.ingest.watcher import DirectoryWatcher
from hyperwatch.log.tree import Tree
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.simulate.claim import Claim
from hyperwatch.simulate.hour_files import simulate
from processes import free_port, until_up
from support import append, connected, event, hour_file, line, next_line, places_of, running, until, works


@attrs.define
class Service:
    """`hyperwatch run` as a process of its own."""

    root: Path
    port: int = attrs.field(factory=free_port)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "hyperwatch",
            "run",
            "--metrics-listen=",
            "--data-dir",
            str(self.root),
            "--layout",
            "streaming",
        ]
        command += [
            "--listen",
            f"127.0.0.1:{self.port}",
            "--state-dir",
            f"{self.root}-state",  # not inside: a simulator shares its directory with nobody
            "--log-level",
            "ERROR",
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def kill(self) -> str:
        assert self.process is not None
        self.process.kill()
        _, said = self.process.communicate()
        return said


class Listener:
    """A client that resumes by its cursor until it has heard THE-END."""

    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/ws"
        self.cursor = "earliest"
        self.heard: list[tuple[int | None, int, str]] = []

    def listen_once(self) -> bool:
        broken = (
            websockets.exceptions.ConnectionClosedError,
            websockets.exceptions.InvalidHandshake,
            OSError,
            EOFError,
        )
        with suppress(*broken), websockets.sync.client.connect(self.url, max_size=2**21) as client:
            start_point = {"type": "orders", "from": self.cursor}
            client.send(json.dumps({"method": "subscribe", "subscription": start_point}))
            return any(self.take(json.loads(text)) for text in client)
        return False

    def take(self, message: dict[str, Any]) -> bool:
        assert message["channel"] not in ("gap", "error"), message
        self.cursor = message["data"].get("cursor", self.cursor)
        if message["channel"] == "orders":
            self.heard += places_of(message["data"])
        return bool(self.heard) and "THE-END" in self.heard[-1][2]


async def survive_kills(root: Path, kills: int) -> None:
    """A client resumes by its cursor while the service is killed at random; the simulator writes 5,000 lines/s."""
    with Claim(root):
        hour_file(root, "20260505/9")
    service, over, dice = Service(root), threading.Event(), random.Random(kills)
    listener = Listener(service.port)
    tree = Tree(root, ORDERS, Layout.STREAMING)

    def write() -> None:
        simulate(root, streams=[ORDERS], rate=5_000, seed=kills, stop=over.is_set)
        last = tree.hourly / tree.names()[-1]
        append(last, next_line(last, event(1, coin="THE-END")))

    async def harass() -> None:
        for _ in range(kills):
            await until_heard_more(listener.heard, len(listener.heard) + dice.randrange(1, 1_500))
            assert service.kill() == ""
            service.start()
        over.set()

    service.start()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, write)
            nursery.start_soon(harass)
            ended = False
            while not ended:
                await until_up(service.port)
                ended = await trio.to_thread.run_sync(listener.listen_once)
    finally:
        over.set()
        service.kill()
    lines = [each for name in tree.names() for each in (tree.hourly / name).read_bytes().splitlines()]
    assert [raw for _, _, raw in listener.heard] == [
        each[each.index(b'"events":[') + 10 : -2].decode() for each in lines
    ]
    assert len({(block, place) for block, place, _ in listener.heard}) == len(lines)


async def until_heard_more(heard: list[Any], count: int) -> None:
    while len(heard) < count:  # noqa: ASYNC110  another process decides
        await trio.sleep(0.005)


async def test_a_client_that_resumes_has_every_line_once_though_the_service_is_killed(tmp_path: Path) -> None:
    with trio.fail_after(55):
        await survive_kills(tmp_path, 5)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_client_that_resumes_has_every_line_once_though_the_service_is_killed_50_times(tmp_path: Path) -> None:
    with trio.fail_after(280):
        await survive_kills(tmp_path, 50)


AS_PID_1 = ("unshare", "--fork", "--pid", "--kill-child")


as_anyone_and_as_pid_1 = pytest.mark.parametrize(
    "prefix",
    [
        pytest.param((), id="a process"),
        pytest.param(
            AS_PID_1,
            id="PID 1",
            marks=pytest.mark.skipif(
                not works(*AS_PID_1, "true"), reason="a PID namespace needs unshare and the right to it"
            ),
        ),
    ],
)


def send(process: subprocess.Popen[str], number: signal.Signals, prefix: tuple[str, ...]) -> None:
    """Signals the service, which unshare has as its only child."""
    if not prefix:
        process.send_signal(number)
        return
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    os.kill(int(children), number)


def busy_service(tmp_path: Path, prefix: tuple[str, ...]) -> tuple[subprocess.Popen[str], list[socket.socket]]:
    """A service with a backlog, a stalled client at the head and one in the past."""
    path = hour_file(tmp_path, "20260505/9")
    pad = "0x" + "0" * 2000
    for start in range(0, 40_000, 2_000):
        append(path, b"".join(line(number, [event(number, cloid=pad)]) for number in range(start, start + 2_000)))
    command = [*prefix, sys.executable, "-m", "hyperwatch", "run", "--metrics-listen=", "--data-dir", str(tmp_path)]
    command += ["--listen", "127.0.0.1:0"]
    command += ["--state-dir", str(tmp_path / "state"), "--ring-bytes", str(2**20)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    port = int(next(text for text in process.stderr if "ws://" in text).rpartition(":")[2].partition("/")[0])
    clients = []
    for begin in ('"from":"earliest",', ""):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(HANDSHAKE)
        assert client.recv(12).startswith(b"HTTP/1.1 101")
        start_point = b'{"method":"subscribe","subscription":{%s"type":"orders"}}' % begin.encode()
        client.sendall(bytes((0x81, 0x80 | len(start_point), 0, 0, 0, 0)) + start_point)
        clients.append(client)
    append(path, b"".join(line(number, [event(number, cloid=pad)]) for number in range(40_000, 50_000)))
    return process, clients


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@as_anyone_and_as_pid_1
def test_a_stop_takes_8_seconds_at_most_with_a_stalled_client_a_backlog_and_a_reader_of_the_past(
    tmp_path: Path, prefix: tuple[str, ...]
) -> None:
    process, clients = busy_service(tmp_path, prefix)
    try:
        send(process, signal.SIGTERM, prefix)
        assert process.wait(8) == 0
    finally:
        process.kill()
        process.communicate()
        for client in clients:
            client.close()


@as_anyone_and_as_pid_1
def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    process, clients = busy_service(tmp_path, prefix)
    assert process.stderr is not None
    try:
        send(process, signal.SIGTERM, prefix)
        assert any("stopping" in text for text in process.stderr)
        send(process, signal.SIGINT, prefix)
        assert process.wait(1) == 128 + signal.SIGINT
    finally:
        process.kill()
        process.communicate()
        for client in clients:
            client.close()


async def test_without_inotify_lines_are_seen_by_polling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(watch_module, "INotify", none)
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]))
    with trio.fail_after(10):
        async with running(tmp_path) as port, connected(port) as client:
            await client.subscribe(type="orders")
            await client.hear("live")
            append(path, line(8, [event(2)]))
            assert [block for block, _, _ in await client.collect(1)] == [8]
    logger.remove(sink)
    assert said[0].startswith("no inotify ([Errno 24] Too many open files): new lines are seen by polling every 250 ms")


async def test_an_inotify_queue_that_overflowed_loses_nothing(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    with DirectoryWatcher() as watch:
        watch.follow([path.parent])
        for _ in range(20_000):  # the queue holds 16,384, and takes no equal neighbours
            (path.parent / "a").touch()
            (path.parent / "b").touch()
        assert await watch.wait()


async def test_a_data_directory_that_goes_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    root, away = tmp_path / "data", tmp_path / "away"
    path = hour_file(root, "20260505/9")
    append(path, line(7, [event(1)]))
    with trio.fail_after(20):
        async with running(root) as port, connected(port) as client:
            await client.subscribe(type="orders")
            await client.hear("live")
            root.rename(away)
            append(away / path.relative_to(root), line(8, [event(2)]))
            assert [block for block, _, _ in await client.collect(1)] == [8]
            away.rename(root)
            append(path, line(9, [event(3)]))
            append(hour_file(root, "20260505/10"), line(10, [event(4)]))
            assert [block for block, _, _ in await client.collect(2)] == [9, 10]


async def test_what_is_no_file_is_passed_over_and_named(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="ERROR")
    with trio.fail_after(10):
        async with running(tmp_path) as port, connected(port) as client:
            await client.subscribe(type="orders")
            await client.hear("live")
            os.mkfifo(hour_file(tmp_path, "20260505/10"))
            await until(lambda: bool(said))
            append(hour_file(tmp_path, "20260505/11"), line(8, [event(2)]))
            assert [block for block, _, _ in await client.collect(1)] == [8]
    logger.remove(sink)
    assert len(said) == 1
    assert "20260505/10 is not a regular file" in said[0]
