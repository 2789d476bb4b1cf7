"""The sidecar as a whole, beside a simulated node and with real clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket
import websockets.exceptions
import websockets.sync.client
from loguru import logger

from hyperwatch.config import Address, Config
from hyperwatch.errors import DataError, UsageError
from hyperwatch.ledger import state_dir
from hyperwatch.ledger.state_dir import StateDir, StateError
from hyperwatch.log.advice import advice_without_orders
from hyperwatch.log.tree import Tree, find_trees
from hyperwatch.monitor import stalls
from hyperwatch.node.streams import ORDERS, Layout
from hyperwatch.service import service
from hyperwatch.simulate.claim import Claim
from hyperwatch.simulate.hour_files import simulate
from hyperwatch.simulate.model import Faults
from support import append, connected, event, hour_file, line, lines_of, next_line, places_of, running, until

BEFORE_NINE_NS = int(datetime(2026, 5, 5, 8, 59, 58, tzinfo=UTC).timestamp()) * 10**9
BEFORE_MIDNIGHT_NS = int(datetime(2026, 5, 5, 23, 59, 58, tzinfo=UTC).timestamp()) * 10**9


def written(root: Path, layout: Layout) -> list[bytes]:
    """Every event in the files, in the files' order."""
    tree = Tree(root, ORDERS, layout)
    lines = [each for name in tree.names() for each in (tree.hourly / name).read_bytes().splitlines()]
    if layout is Layout.PLAIN:
        return lines
    return [raw for each in lines for raw in events_in(each)]


def events_in(envelope: bytes) -> list[bytes]:
    return [json.dumps(each, separators=(",", ":")).encode() for each in json.loads(envelope)["events"]]


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize(
    ("start_ns", "faults"),
    [
        (BEFORE_NINE_NS, Faults()),
        (BEFORE_MIDNIGHT_NS, Faults()),
        (BEFORE_NINE_NS, Faults(late_file=True)),
        (BEFORE_NINE_NS, Faults(torn=True)),
    ],
    ids=["hour", "midnight", "late file", "torn"],
)
async def test_every_line_that_is_written_arrives_in_order_once(
    tmp_path: Path, layout: Layout, start_ns: int, faults: Faults
) -> None:
    """A client from before the start, and one that comes in the middle and asks for everything."""
    with Claim(tmp_path):
        hour_file(tmp_path, "20260505/8", layout)
    halfway = trio.Event()

    def write() -> None:
        # The node's pace without its pauses: the writer goes on when the loop has had a turn.
        summary = simulate(
            tmp_path, layouts=[layout], streams=[ORDERS], rate=2_000, blocks=60, start_ns=start_ns, faults=faults,
            clock=lambda: 0.0, sleep=lambda _: trio.from_thread.run(trio.lowlevel.checkpoint),
        )  # fmt: skip
        assert summary.blocks == 60
        tree = Tree(tmp_path, ORDERS, layout)
        last = tree.hourly / tree.names()[-1]
        append(last, next_line(last, event(1, coin="THE-END")))

    async def follow(port: int, start: dict[str, str], heard: list[Any]) -> None:
        async with connected(port) as client:
            await client.subscribe(type="orders", **start)
            while True:
                heard += places_of((await client.hear("orders"))["data"])
                if len(heard) > 2_000:
                    halfway.set()
                if "THE-END" in heard[-1][2]:
                    return

    first: list[Any] = []
    second: list[Any] = []
    with trio.fail_after(50):
        async with running(tmp_path, layout=layout) as port, trio.open_nursery() as nursery:
            nursery.start_soon(follow, port, {"from": "earliest"}, first)
            nursery.start_soon(trio.to_thread.run_sync, write)
            await halfway.wait()
            nursery.start_soon(follow, port, {"from": "earliest"}, second)

    everything = [raw.decode() for raw in written(tmp_path, layout)]
    assert len(everything) >= 4_000
    assert [raw for _, _, raw in first] == everything
    assert [raw for _, _, raw in second] == everything
    assert [(block, place) for block, place, _ in first] == [(block, place) for block, place, _ in second]
    if layout is not Layout.PLAIN:
        assert len({(block, place) for block, place, _ in first}) == len(everything)


async def test_a_stop_says_goodbye_with_1001(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))

    def talk(port: int) -> websockets.exceptions.ConnectionClosed:
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/ws") as client:
            client.send('{"method":"subscribe","subscription":{"type":"orders"}}')
            assert json.loads(client.recv(timeout=5))["channel"] == "subscriptionResponse"
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
                next(message for message in iter(partial(client.recv, timeout=5), None) if not message)
            return caught.value

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            config = Config(data_dir=tmp_path, listen=Address("127.0.0.1", 0))
            port = await nursery.start(partial(service.run, config))
            closed = await in_thread(partial(talk, port))
    assert closed.rcvd is not None
    assert (closed.rcvd.code, closed.rcvd.reason) == (1001, "shutting down")


async def test_it_waits_for_a_node_that_has_not_written_yet(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            config = Config(data_dir=tmp_path, listen=Address("127.0.0.1", 0))
            started = trio.Event()

            async def serve() -> None:
                async with running(tmp_path) as port, connected(port) as client:
                    await client.subscribe(type="orders", **{"from": "earliest"})
                    started.set()
                    assert (await client.collect(1))[0][0] == 7

            nursery.start_soon(serve)
            await trio.testing.wait_all_tasks_blocked()
            assert not started.is_set()
            append(hour_file(tmp_path, "20260505/9", Layout.BY_BLOCK), line(7, [event(1)]))
    assert config.layout is None


@pytest.mark.parametrize(
    ("below", "advice"),
    [
        ("", "start the node with --write-order-statuses --stream-with-block-info --disable-output-file-buffering"),
        ("node_order_statuses_streaming", "it is one stream's own directory: say --data-dir {root}"),
        ("node_order_statuses_streaming/hourly", "it is one stream's own directory: say --data-dir {root}"),
    ],
)
async def test_who_waits_for_the_node_is_told_its_flags_or_the_directory_that_is_meant(
    tmp_path: Path, below: str, advice: str
) -> None:
    said: list[str] = []
    root = tmp_path / "node"
    (root / below).mkdir(parents=True)
    sink = logger.add(said.append, level="WARNING", format="{message}")
    try:
        async with trio.open_nursery() as nursery:
            config = Config(data_dir=root / below, listen=Address("127.0.0.1", 0))
            nursery.start_soon(partial(service.run, config, signals=False))
            await until(lambda: any("waiting" in text for text in said))
            nursery.cancel_scope.cancel("it waits")
    finally:
        logger.remove(sink)
    assert any(advice.format(root=root) in text for text in said), said


def test_a_directory_above_the_nodes_is_told_from_it(tmp_path: Path) -> None:
    hour_file(tmp_path / "hl" / "data", "20260505/9")
    assert advice_without_orders(tmp_path) == f"they are further down: say --data-dir {tmp_path}/hl/data"
    assert advice_without_orders(tmp_path / "hl") == f"they are further down: say --data-dir {tmp_path}/hl/data"


async def test_a_state_directory_that_is_anothers_is_said_before_an_address_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))
    sink = logger.add(said.append, level="INFO", format="{message}")
    try:
        config = Config(data_dir=tmp_path, listen=Address("127.0.0.1", 0), state_dir=tmp_path / "state")
        with StateDir(tmp_path / "state"), pytest.raises(StateError, match="is another hyperwatch's"):
            await service.run(config, signals=False)
    finally:
        logger.remove(sink)
    assert [text for text in said if "http://" in text or "ws://" in text] == []


async def test_the_layout_is_chosen_by_the_newest_data_or_by_the_operator(tmp_path: Path) -> None:
    old, new = hour_file(tmp_path, "20260505/9", Layout.PLAIN), hour_file(tmp_path, "20260505/9", Layout.BY_BLOCK)
    append(old, event(1) + b"\n")
    append(new, line(7, [event(2)]))
    os.utime(old, (1, 1))
    with trio.fail_after(10):
        for layout, number in ((None, 2), (Layout.PLAIN, 1)):
            async with running(tmp_path, layout=layout) as port, connected(port) as client:
                await client.subscribe(type="orders", **{"from": "earliest"})
                assert json.loads((await client.collect(1))[0][2])["order"]["oid"] == number


async def test_a_missing_directory_and_a_port_in_use_are_errors_that_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data-dir"):
        await service.run(Config(data_dir=tmp_path / "x", listen=Address("127.0.0.1", 0)))
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(UsageError, match=f"--listen 127.0.0.1:{port}: Address already in use: choose another port"):
            await service.run(Config(data_dir=tmp_path, listen=Address("127.0.0.1", port)))


async def in_thread(work: Callable[[], Any]) -> Any:  # noqa: ANN401
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


async def test_the_websockets_client_subscribes_and_receives(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), lines_of(Layout.STREAMING, [(7, [event(1), event(2)])]))

    def talk(port: int) -> list[Any]:
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/ws") as client:
            client.send('{"method":"subscribe","subscription":{"type":"orders","from":"earliest"}}')
            messages = [json.loads(client.recv(timeout=5)) for _ in range(3)]
            client.ping().wait(5)
            return messages

    with trio.fail_after(20):
        async with running(tmp_path) as port:
            messages = await in_thread(partial(talk, port))
    assert [message["channel"] for message in messages] == ["subscriptionResponse", "orders", "live"]
    assert [each["order"]["oid"] for each in messages[1]["data"]["events"]] == [1, 2]


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hyperwatch", *arguments]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HYPERWATCH_")}
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=30, check=False)


def test_the_process_ends_in_order_at_a_signal(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))
    command = [sys.executable, "-m", "hyperwatch", "run", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0"]
    command += ["--state-dir", str(tmp_path / "state"), "--metrics-listen", ""]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = [next(process.stderr), next(process.stderr), next(process.stderr)]
        process.terminate()
        said += list(process.stderr)
        assert process.wait(10) == 0
    assert "a page for people is at http://127.0.0.1:" in said[0]
    assert "the feed is at ws://127.0.0.1:" in said[2]
    assert "SIGTERM: stopping" in said[3]
    assert f"stopped at 20260505/9 at {len(line(7, [event(1)]))}" in said[4]


async def test_a_layout_that_stops_while_another_starts_is_continued_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients are told to come again; by their cursors they have every event once, and so has the head."""
    monkeypatch.setattr(stalls, "_LOOK_S", 0.01)
    monkeypatch.setattr(stalls, "_SETTLED_S", 0.1)
    heard: list[Any] = []
    streaming, by_block = (hour_file(tmp_path, "20260505/9", layout) for layout in (Layout.STREAMING, Layout.BY_BLOCK))
    blocks = [(number, [event(10 * number), event(10 * number + 1)]) for number in range(7, 12)]
    append(streaming, lines_of(Layout.STREAMING, [*blocks[:2], (9, blocks[2][1][:1])]))

    async with running(tmp_path, state_dir=tmp_path / "state") as port:
        async with connected(port) as client:
            await client.subscribe(type="orders", **{"from": "earliest"})
            heard += await client.collect(5)
            cursor = (await client.hear("cursor"))["data"]["cursor"]
            append(by_block, lines_of(Layout.BY_BLOCK, blocks[1:4]))
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await client.hear("orders", "gap")
        assert closed.value.reason is not None
        assert (closed.value.reason.code, "resume" in (closed.value.reason.reason or "")) == (1012, True)

        async with connected(port) as live, connected(port) as client:
            await client.subscribe(type="orders", **{"from": cursor})
            heard += await client.collect(3)
            await live.subscribe(type="orders")
            await live.hear("live")
            append(by_block, lines_of(Layout.BY_BLOCK, blocks[4:]))
            heard += await client.collect(2)
            assert [place for *place, _ in await live.collect(2)] == [[11, 0], [11, 1]]
    assert heard == [(number, place, raw.decode()) for number, raws in blocks for place, raw in enumerate(raws)]
    assert not list(state_dir.gaps(tmp_path / "state").read())


async def test_two_layouts_that_are_both_written_are_no_reason_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "_LOOK_S", 0.01)
    monkeypatch.setattr(stalls, "_SETTLED_S", 0.1)
    streaming, by_block = (hour_file(tmp_path, "20260505/9", layout) for layout in (Layout.STREAMING, Layout.BY_BLOCK))
    append(streaming, line(7, [event(1)]))
    looks = 0

    def counted(root: Path, *rest: Any) -> list[Tree]:  # noqa: ANN401  find_trees checks them
        nonlocal looks
        looks += 1
        return find_trees(root, *rest)

    monkeypatch.setattr(stalls, "find_trees", counted)

    async with running(tmp_path) as port, connected(port) as client:
        await client.subscribe(type="orders", **{"from": "earliest"})
        await client.collect(1)
        for path in (by_block, streaming):  # the other is newer, but by less than a node's pause
            append(path, line(8, [event(2)]))
        newest = streaming.stat().st_mtime_ns
        os.utime(by_block, ns=(newest + 10**7, newest + 10**7))
        await client.collect(1)
        await until(lambda: looks > 2)
        append(streaming, line(9, [event(3)]))
        assert [place for *place, _ in await client.collect(1)] == [[9, 0]]
