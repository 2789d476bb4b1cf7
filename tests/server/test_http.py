"""What plain HTTP finds on the feed's port, and `healthcheck`."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from guarded import asked, asked_with_head, handshake
from hyperwatch.cli.main import _exit_code
from hyperwatch.config import Address, Config
from hyperwatch.ingest.counters import Counters
from hyperwatch.ingest.ring import Ring
from hyperwatch.ingest.yielding import Yielder
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Entry
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.resume import at_head
from hyperwatch.log.tree import Log, Tree
from hyperwatch.monitor.endpoints import routes
from hyperwatch.monitor.health import HealthMonitor
from hyperwatch.monitor.status import ClientStatus, status
from hyperwatch.node.decoder import Decoder
from hyperwatch.node.streams import FILLS, ORDERS, Layout
from hyperwatch.server.admission import Admission
from hyperwatch.server.connection import Connection
from hyperwatch.server.tokens import Tokens
from hyperwatch.service import service, waiting
from support import TIME, append, connected, event, hour_file, line, running

STREAM = ORDERS.name
TOKEN = "0123456789abcdef"  # noqa: S105  of the tests
NOW_NS = 1_778_002_753_500_000_000


async def get(port: int, path: str, *headers: str) -> tuple[int, str]:
    return await asked(port, "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode())


async def document(port: int, path: str = "/status") -> dict[str, Any]:
    status, body = await get(port, path)
    assert status == 200
    return cast("dict[str, Any]", json.loads(body))


async def becomes(port: int, status: int, reason: str) -> None:
    """The test's own timeout bounds it."""
    while True:
        code, body = await get(port, "/readyz")
        if code == status and body.startswith(reason):
            return
        await trio.sleep(0.01)


async def document_where(port: int, path: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first of which that holds; the test's own timeout bounds it."""
    while True:
        found = await document(port, path)
        if holds(found):
            return found
        await trio.sleep(0.01)


async def healthcheck(port: int) -> int:
    return await trio.to_thread.run_sync(_exit_code, ["healthcheck", "--listen", f"127.0.0.1:{port}"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]))
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperwatch.monitor.health.LOOK_S", 0.01)


@pytest.mark.usefixtures("quick")
async def test_a_node_that_stops_makes_it_unready_and_healthcheck_stays_good(path: Path) -> None:
    with trio.fail_after(20):
        async with running(path.parents[3], stall_s=0.3) as port:
            append(path, line(8, [event(2)]))
            await becomes(port, 200, "ready")
            await becomes(port, 503, "node_stale: the node has written nothing for 0 s")
            assert (await get(port, "/healthz")) == (200, "ok\n")
            assert await healthcheck(port) == 0
            append(path, line(9, [event(3)]))
            await becomes(port, 200, "ready")


@pytest.fixture
def workers_may(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Workers get on while this is set; every batch goes to them."""
    monkeypatch.setattr("hyperwatch.ingest.workers._AT_ONCE_BYTES", 0)
    go_on = threading.Event()
    go_on.set()

    def pause(_self: Yielder) -> None:
        while not go_on.wait(0.01):
            trio.from_thread.check_cancelled()

    monkeypatch.setattr(Yielder, "pause", pause)
    yield go_on
    go_on.set()


@pytest.mark.usefixtures("quick")
async def test_lag_of_our_own_makes_it_unready_and_fails_healthcheck(
    path: Path, workers_may: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    with trio.fail_after(20):
        async with running(path.parents[3], behind_s=0.2) as port:
            await becomes(port, 200, "ready")
            workers_may.clear()
            append(path, line(8, [event(2)]))
            await becomes(port, 503, f"hyperwatch_behind: {len(line(8, [event(2)]))} bytes of {STREAM} are unread")
            assert (await get(port, "/healthz")) == (200, "ok\n")
            assert await healthcheck(port) == 1
            workers_may.set()
            await becomes(port, 200, "ready")
            assert await healthcheck(port) == 0
    assert "hyperwatch_behind" in capsys.readouterr().out


def test_healthcheck_fails_where_nothing_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as dead:
        address = f"127.0.0.1:{dead.getsockname()[1]}"
        assert _exit_code(["healthcheck", "--listen", address, "--timeout", "0.1"]) == 1
    assert _exit_code(["healthcheck", "--listen", address]) == 1
    said = capsys.readouterr().err
    assert f"no answer from {address}: timed out" in said
    assert f"no answer from {address}: [Errno 111] Connection refused" in said


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Something else than hyperwatch, which gives everybody the same answer. Its address."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            with client:
                client.recv(65536)
                client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"404 Not Found\r\n\r\nnothing here", 1),
        (b"200 OK\r\n\r\n<html>", 1),
        (b"200 OK\r\n\r\nready\n", 0),
        (b"503 Service Unavailable\r\n\r\ntoo many handshakes", 0),
        (b"503 Service Unavailable\r\n\r\nnode_stale: x\nhyperwatch_behind: y\n", 1),
    ],
)
def test_healthcheck_fails_where_something_else_answers_and_not_for_a_crowd(answer: bytes, code: int) -> None:
    with answering(b"HTTP/1.1 " + answer) as address:
        assert _exit_code(["healthcheck", "--listen", address]) == code


@pytest.mark.usefixtures("quick")
async def test_before_the_node_has_written_it_answers_and_is_not_ready(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = Config(data_dir=tmp_path, listen=Address("127.0.0.1", port))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            started = partial(nursery.start, partial(service.run, config, signals=False))
            nursery.start_soon(started)
            while True:
                try:
                    assert await get(port, "/readyz") == (503, "node_stale: the node has written nothing yet\n")
                    break
                except OSError:
                    await trio.lowlevel.checkpoint()
            assert await healthcheck(port) == 0
            assert (await document(port))["streams"] == []
            status, text = await asked(port, handshake())
            assert (status, text[:22]) == (503, "there is no feed here:")
            append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))
            await becomes(port, 200, "ready")
            nursery.cancel_scope.cancel("seen")


@pytest.mark.usefixtures("quick")
async def test_a_question_that_is_being_asked_when_the_node_begins_to_write_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, find = trio.Event(), waiting.find_tree

    async def find_tree(config: Config) -> Tree | None:
        tree = await find(config)
        if tree is not None:
            found.set()
        return tree

    monkeypatch.setattr(waiting, "find_tree", find_tree)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = Config(data_dir=tmp_path, listen=Address("127.0.0.1", port))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(service.run, config, signals=False))
            while True:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                    break
                except OSError:
                    await trio.lowlevel.checkpoint()
            async with stream:
                await stream.send_all(b"GET /healthz HTTP/1.1\r\n")
                append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))
                await found.wait()
                await trio.testing.wait_all_tasks_blocked()  # whoever was to be cut off has been
                await stream.send_all(b"Host: x\r\n\r\n")
                answer = b"".join([bytes(data) async for data in stream])
            await becomes(port, 200, "ready")
            nursery.cancel_scope.cancel("seen")
    assert answer.startswith(b"HTTP/1.1 200 OK")


@attrs.define(eq=False)
class FakeProbe:
    """A stream in which nothing happens but what the test says."""

    log: Log
    ring: Ring
    last: Entry | None = None
    counters: Counters = attrs.Factory(Counters)
    in_flight_bytes: int = 0
    looked_s: float = 0.0
    stopped: bool = False
    workers: int = 1
    workers_busy: int = 0


@attrs.define
class FakeService:
    """A service of such streams."""

    probes: list[FakeProbe]
    connections: Collection[Connection] = ()


@attrs.frozen
class FakeSubscription:
    """As far as the status looks at one."""

    cursor: Cursor
    live: bool = False


@attrs.frozen(eq=False)
class FakeConnection:
    """The same of a client."""

    peer: str
    subscriptions: list[FakeSubscription]
    over_budget: bool = False


@attrs.define
class Watched:
    """Vital signs of one stream, whose clocks the test sets. The node wrote at NOW_NS."""

    path: Path
    health: HealthMonitor
    service: FakeService
    clock_s: list[float]

    @property
    def head(self) -> FakeProbe:
        return self.service.probes[0]

    async def after(self, seconds: float) -> Any:  # noqa: ANN401
        """The moment so much later."""
        self.clock_s[0] += seconds
        await self.health.look()
        return self.health.streams[STREAM].now

    def write(self, data: bytes) -> None:
        append(self.path, data)
        now_ns = NOW_NS + int(self.clock_s[0] * 1e9)
        os.utime(self.path, ns=(now_ns, now_ns))

    def looked(self) -> None:
        self.head.looked_s = self.clock_s[0]

    @property
    def kinds(self) -> list[str]:
        return [trouble.kind for trouble in self.health.troubles()]


@pytest.fixture
def watched(path: Path) -> Watched:
    os.utime(path, ns=(NOW_NS, NOW_NS))
    tree = Tree(path.parents[3], ORDERS, Layout.STREAMING)
    clock_s = [0.0]
    health = HealthMonitor(
        Admission(), stall_s=60, behind_s=10, now_ns=lambda: NOW_NS + int(clock_s[0] * 1e9), now_s=lambda: clock_s[0]
    )
    ring = Ring(at_head(tree), 2**20)
    seen = FakeService([FakeProbe(tree, ring)])
    health.follow(seen, health.ledger)
    return Watched(path, health, seen, clock_s)


async def test_lag_is_how_long_something_has_been_unread(watched: Watched) -> None:
    assert (await watched.after(1)).lag_s == 0
    watched.write(line(8, [event(2)]))
    now = await watched.after(4)
    assert (now.lag_bytes, now.lag_s) == (len(line(8, [event(2)])), 4)
    assert watched.kinds == []
    now = await watched.after(7)
    assert now.lag_s == 11
    assert watched.kinds == ["hyperwatch_behind"]


@pytest.mark.parametrize("digits", [4_000, 5_000])
async def test_a_local_time_of_thousands_of_digits_does_not_end_the_watch_of_health(
    watched: Watched, digits: int
) -> None:
    await watched.after(1)
    odd = line(8, [event(2)]).replace(b"2026-05-05T17:39:13.5", b"1" * digits)
    watched.write(odd)
    decoder = Decoder(ORDERS, Layout.STREAMING, 0)
    decoder.feed(odd)
    where = Cursor(ORDERS.directory(Layout.STREAMING))
    watched.head.last = Entry(decoder.slices[0], 0, where, where, late=False, read_ms=0)
    now = await watched.after(4)

    assert now.lag_s == 4


async def test_a_line_that_is_not_complete_is_no_lag_while_the_head_looks(watched: Watched) -> None:
    await watched.after(1)
    watched.write(b'{"local_time":')
    await watched.after(20)
    watched.looked()
    now = await watched.after(1)
    assert (now.lag_bytes, now.lag_s) == (14, 0)
    watched.head.in_flight_bytes = 1  # something is on its way through the workers
    watched.looked()
    assert (await watched.after(1)).lag_s == 1


async def test_lag_is_told_from_a_node_that_is_idle(watched: Watched) -> None:
    assert (await watched.after(59)).idle_s == 59
    assert watched.kinds == []
    assert (await watched.after(2)).idle_s == 61
    assert watched.kinds == ["node_stale"]
    watched.write(line(8, [event(2)]))
    now = await watched.after(1)
    assert now.idle_s == 1
    assert watched.kinds == []


async def test_where_one_stream_is_written_the_node_is_not_idle(watched: Watched) -> None:
    fills = Tree(watched.path.parents[3], FILLS, Layout.STREAMING)
    path = hour_file(fills.root, "20260505/9", stream=FILLS)
    append(path, line(7, []))
    os.utime(path, ns=(NOW_NS + 30 * 10**9,) * 2)
    ring = Ring(at_head(fills), 2**20)
    watched.service.probes.append(FakeProbe(fills, ring))
    await watched.after(70)
    assert [sign.now and sign.now.idle_s for sign in watched.health.streams.values()] == [70, 40]
    assert watched.kinds == []


async def test_a_node_whose_files_were_all_removed_has_been_idle_since_it_wrote_them(watched: Watched) -> None:
    await watched.after(1)
    watched.path.unlink()
    assert (await watched.after(2)).idle_s == 3


async def test_files_that_cannot_be_looked_at_count_as_unread(watched: Watched) -> None:
    await watched.after(1)
    directory = watched.path.parents[2]
    directory.rename(directory.with_name("gone"))
    directory.symlink_to(directory)  # too many levels of symbolic links
    assert (await watched.after(11)).lag_s == 11
    assert watched.kinds == ["hyperwatch_behind"]


async def test_a_disk_that_does_not_answer_holds_nothing_up(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    hang = threading.Event()
    monkeypatch.setattr("hyperwatch.monitor.health.backlog", lambda *_: hang.wait(20))
    began_s = autojump_clock.current_time()
    try:
        for _ in range(3):
            await watched.health.look()
    finally:
        hang.set()
    assert autojump_clock.current_time() - began_s == 15


async def test_the_last_minutes_are_kept_and_no_more(watched: Watched) -> None:
    for _ in range(310):
        await watched.after(1)
    assert len(watched.health.streams[STREAM].samples) == 300


def settled(status: dict[str, Any]) -> bool:
    """It was made after block 8 had been delivered, and a moment later."""
    (stream,), (client,) = status["streams"], status["clients"]
    return bool(status["gaps"] and stream["block"] == 8 and stream["nodeIdleSeconds"] and not client["behind"])


@pytest.mark.usefixtures("quick")
async def test_the_status_says_how_it_is(path: Path) -> None:
    with trio.fail_after(20):
        async with running(path.parents[3]) as port, connected(port) as client:
            await client.subscribe(type="orders", coins=["BTC"])
            await client.hear("live")
            append(path, line(8, [event(2), event(3, coin="ETH", status="badAloPxRejected")]) + b"nonsense\n")
            await client.collect(1)
            await client.hear("gap")
            await becomes(port, 200, "ready")
            status = await document_where(port, "/status", settled)

    (stream,) = status["streams"]
    assert status["protocol"] == 1
    assert (status["ready"], status["troubles"]) == (True, [])
    assert (stream["stream"], stream["layout"], stream["block"]) == (STREAM, "streaming", 8)
    assert (stream["lines"], stream["events"], stream["decodeFailures"]) == (2, 2, 1)
    assert stream["statuses"] == {"open": 1, "badAloPxRejected": 1}
    assert (stream["classes"]["live"], stream["classes"]["rejected"]) == (1, 1)
    assert sorted(stream["coins"]) == [["BTC", 1], ["ETH", 1]]
    assert stream["gaps"] == {"unreadable": 1}
    assert stream["blockToWrite"] == {"medianMs": 350.0, "p99Ms": 497.0}
    assert len({len(column) for column in stream["moments"].values()}) == 1
    assert status["gaps"][0]["reason"] == "unreadable"
    assert [found["file"] for found in status["unreadable"]] == ["node_order_statuses_streaming/hourly/20260505/9"]
    (seen,) = status["clients"]
    assert (seen["subscriptions"], seen["behind"]) == (1, 0)
    assert (status["clientCount"], status["clientsBehind"], status["subscriptionCount"]) == (1, 0, 1)


async def test_how_far_a_client_is_behind_is_said_in_blocks_and_in_time(path: Path) -> None:
    """The client reads nothing, and what it asked for fills its socket."""
    later = line(1000, [event(1)]).replace(b"17:39:13.024084407", b"17:40:13.024084407")
    wide = [event(number, filler="x" * 5_000) for number in range(200)]
    for block in range(8, 28):
        append(path, line(block, wide))
    append(path, later)
    with trio.fail_after(20):
        async with running(path.parents[3]) as port, connected(port) as client:
            await client.subscribe(type="orders", **{"from": "earliest"})
            status = await document_where(
                port, "/status", lambda found: any(each["blocks"] is not None for each in found["clients"])
            )
    seen = status["clients"][0]
    assert status["clientsBehind"] == 1
    assert 1000 - 28 < seen["blocks"] < 1000
    assert seen["seconds"] == 60


async def test_the_newest_gaps_of_the_ledger_are_there_also_those_of_other_runs(path: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    with trio.fail_after(20):
        async with running(path.parents[3], state_dir=state_dir) as port:
            append(path, b"nonsense\n")
            await document_where(port, "/gaps", lambda found: bool(found["gaps"]))
        append(path, line(8, [event(2)]))
        async with running(path.parents[3], state_dir=state_dir) as port:
            found = await document(port, "/gaps")
    assert found["protocol"] == 1
    assert [gap["reason"] for gap in found["gaps"]] == ["not-running", "unreadable"]
    assert {"seen_ms", "stream", "where", "from_block", "to_block", "readable", "before", "after"} <= set(
        found["gaps"][0]
    )


async def test_the_page_comes_with_a_policy_that_lets_nothing_else_run(path: Path) -> None:
    with trio.fail_after(10):
        async with running(path.parents[3]) as port:
            status, head, body = await asked_with_head(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 200
    assert "Content-Type: text/html; charset=utf-8" in head
    policy = next(each for each in head.splitlines() if each.startswith("Content-Security-Policy"))
    assert "default-src 'none'; script-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert "<title>hyperwatch" in body


async def test_with_tokens_health_and_the_page_are_free_and_what_they_show_is_not(path: Path) -> None:
    with trio.fail_after(10):
        async with running(path.parents[3], tokens=Tokens([TOKEN])) as port:
            for free in ("/healthz", "/readyz", "/"):
                assert (await get(port, free))[0] in {200, 503}
            for guarded in ("/status", "/gaps"):
                assert (await get(port, guarded))[0] == 401
                assert (await get(port, guarded, f"Authorization: Bearer {TOKEN}"))[0] == 200


async def test_the_status_is_made_once_for_all_who_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    def counted(*_: object) -> dict[str, int]:
        nonlocal made
        made += 1
        return {}

    monkeypatch.setattr("hyperwatch.monitor.endpoints.status", counted)
    health = HealthMonitor(Admission(), stall_s=60, behind_s=10)
    answer: Callable[..., Any] = routes(health)["/status"].answer
    await answer(None)
    await answer(None)
    assert made == 1
    await health.look()
    await answer(None)
    assert made == 2


def test_it_says_that_it_is_stopping(watched: Watched) -> None:
    watched.head.stopped = True
    assert watched.kinds == ["stopping"]


def clients_of(watched: Watched, *clients: FakeConnection) -> list[ClientStatus]:
    watched.service.connections = cast("set[Connection]", set(clients))
    return status(watched.health, 0).clients


def test_a_cursor_that_says_anything_is_a_distance_that_cannot_be_told(watched: Watched) -> None:
    directory = ORDERS.directory(Layout.STREAMING)
    odd = FakeSubscription(Cursor(directory, time="whenever"))
    foreign = FakeSubscription(Cursor("elsewhere", block=1, time=TIME))
    near = FakeSubscription(Cursor(directory, block=5, time=TIME))
    live = FakeSubscription(Cursor(directory, block=1, time=TIME), live=True)

    (seen,) = clients_of(watched, FakeConnection("a", [odd, foreign]))
    assert (seen.behind, seen.blocks, seen.seconds) == (2, None, None)
    (seen,) = clients_of(watched, FakeConnection("a", [odd, near, live]))
    assert (seen.subscriptions, seen.behind, seen.blocks, seen.seconds) == (3, 2, 2, 0)


def test_of_many_clients_those_furthest_behind_are_named(watched: Watched) -> None:
    earlier = "2026-05-05T17:39:00"
    far = FakeSubscription(Cursor(ORDERS.directory(Layout.STREAMING), block=1, time=earlier))
    many = [FakeConnection(f"near {number}", []) for number in range(60)]
    seen = clients_of(watched, *many, FakeConnection("far", [far]))
    assert len(seen) == 50
    assert (seen[0].peer, seen[0].seconds) == ("far", 13.024)


def test_the_busiest_coins_are_those_of_the_newest_events(watched: Watched) -> None:
    for block, coin in ((8, "OLD"), (9, "NEW")):
        append(watched.path, line(block, [event(number, coin=coin) for number in range(10_000)]))
    reader = BatchReader(watched.head.log, watched.head.ring.end)
    ring = watched.head.ring = Ring(watched.head.ring.end, 2**30)
    while batch := reader.next(None, lambda: None):
        ring.append(batch)
    reader.close()
    assert status(watched.health, 0).streams[0].coins == [("NEW", 10_000)]
