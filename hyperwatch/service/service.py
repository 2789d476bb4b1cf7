"""The supervisor: which nursery owns what, in which order things start and end.

root          signals, the report in the log          ends last
  connections   one handler a client                  ends when every client is gone, or the deadline passes
    accepting     the listeners, the second hand      ends when the head has ended
      head          tail, batcher, workers            ends when the source ends or a signal stops it
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import trio
from loguru import logger

from hyperwatch.config import Address, Config
from hyperwatch.errors import UsageError
from hyperwatch.ingest.watcher import DirectoryWatcher
from hyperwatch.ledger.ledger import Ledger
from hyperwatch.ledger.state_dir import StateDir
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Tree
from hyperwatch.monitor.endpoints import routes
from hyperwatch.monitor.health import HealthMonitor
from hyperwatch.monitor.log_report import report
from hyperwatch.monitor.metrics import metrics_server
from hyperwatch.monitor.stalls import another_layout, give_memory_back, say_stalls
from hyperwatch.node.streams import ORDERS, STREAMS
from hyperwatch.runtime.watchdog import end_process
from hyperwatch.server.accept import accept_all
from hyperwatch.service.assembly import place_to_begin
from hyperwatch.service.frontend import Frontend, warn_of_open_access
from hyperwatch.service.stream_set import StreamSet
from hyperwatch.service.waiting import find_tree, wait_for_tree

__all__ = ["listen", "run", "serve", "stop_on_signals"]

_DRAIN_S = 4.0  # for batches that were read when the stop came; with _CLOSE_S within 8 s, as supervisors expect
_STOP_S = 8.0
_CLOSE_S = 2.0  # for the clients' part of the closing handshake
_GOODBYE = (1001, "shutting down")
_REMEDIES = {
    errno.EADDRINUSE: "choose another port, or end what listens there",
    errno.EACCES: "choose a port above 1023, or give the service CAP_NET_BIND_SERVICE",
}
_ANOTHER_LAYOUT = (1012, "the node writes another layout now: connect again and resume by your cursors")


async def run(  # noqa: ASYNC128  `serve` calls started()
    config: Config, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED, *, signals: bool = True
) -> None:
    """The sidecar: follows a node's order statuses and serves them until a signal.

    Args:
        config: the settings.
        task_status: is told the port when clients can connect.
        signals: whether SIGINT and SIGTERM stop it. False where it is a part of something else, which cancels it.

    Raises:
        UsageError: where it cannot listen, or a setting is wrong.
        DataError: where the data directory is missing or cannot be read.
        StateError: where the state directory cannot be used, or is another process's.
    """
    frontend = Frontend.of(config)
    health = HealthMonitor(frontend.admission, stall_s=config.stall_s, behind_s=config.behind_s)
    frontend = frontend.with_routes(routes(health))
    tree, stopping = await find_tree(config), trio.Event()
    since: dict[str, Cursor] = {}
    with (
        StateDir(config.state_dir) if config.state_dir else nullcontext() as state,  # first: no address is told in vain
        _closing(await listen(config.listen)) as listeners,
        _closing(await listen(config.metrics_listen, "--metrics-listen")) as metrics_listeners,
    ):
        warn_of_open_access(config, [_address(listener) for listener in listeners])
        async with trio.open_nursery() as root:
            if signals:
                await root.start(stop_on_signals, stopping.set)
            root.start_soon(health.watch)
            root.start_soon(give_memory_back, frontend.admission.words)
            logger.info("a page for people is at http://{}/", _address(listeners[0]))
            if metrics_listeners:
                logger.info("metrics are at http://{}/metrics", _address(metrics_listeners[0]))
                root.start_soon(accept_all, metrics_server(health).handle, metrics_listeners)
            if tree is None:
                with _again(listeners) as open_now:
                    tree = await wait_for_tree(config, frontend, open_now, stopping)
            while tree is not None:
                with _again(listeners) as open_now:
                    tree, since = await _follow(
                        tree,
                        since,
                        config,
                        frontend,
                        health,
                        state=state,
                        listeners=open_now,
                        stopping=stopping,
                        task_status=task_status,
                    )
                task_status = trio.TASK_STATUS_IGNORED  # told once
            root.cancel_scope.cancel("the service has ended")


@contextmanager
def _closing(listeners: list[trio.SocketListener]) -> Iterator[list[trio.SocketListener]]:
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()


def _again(listeners: list[trio.SocketListener]) -> AbstractContextManager[list[trio.SocketListener]]:
    """The same listeners, which may be closed."""
    return _closing([trio.SocketListener(listener.socket.dup()) for listener in listeners])


async def _follow(  # noqa: ASYNC128  as `run`
    tree: Tree,
    since: dict[str, Cursor],
    config: Config,
    frontend: Frontend,
    health: HealthMonitor,
    *,
    state: StateDir | None,
    listeners: list[trio.SocketListener],
    stopping: trio.Event,
    task_status: trio.TaskStatus[int],
) -> tuple[Tree | None, dict[str, Cursor]]:
    """Serves one layout, from its newest complete line or since another layout's cursor.

    Args:
        tree: the order statuses. The other streams are found beside them.
        since: where reading ended in another layout, by stream.
        config: the settings.
        frontend: who may come in.
        health: are told of the feed.
        state: what is remembered; None for nothing.
        listeners: open; closed in the end.
        stopping: ends it.
        task_status: is told the port.

    Returns:
        (the order statuses' layout from now on, None where a signal came; where reading ended).
    """
    successor = tree
    with DirectoryWatcher() as watch:
        ledger = Ledger(state, counters=health.counters)
        await trio.to_thread.run_sync(ledger.recall)
        start = await trio.to_thread.run_sync(place_to_begin, tree, since.get(ORDERS.name), ledger)
        feed = StreamSet.of(
            tree,
            start,
            ring_bytes=config.ring_bytes,
            workers=config.workers,
            deadline_s=config.deadline_s,
            changes=watch,
            ledger=ledger,
            frontend=frontend,
        )
        feed = await feed.with_others(config, ledger, since)
        health.follow(feed, ledger)

        async def leave_for_another_layout() -> None:
            nonlocal successor
            successor = await another_layout(tree, feed.main.ring)
            logger.warning("the node writes {} now: going on there by block", successor.hourly)
            feed.main.head.finish()

        try:
            async with trio.open_nursery() as root:
                root.start_soon(report, feed, health)
                root.start_soon(say_stalls, feed.main.ring, config.stall_s)
                root.start_soon(ledger.save_places, ORDERS, feed.main.ring)
                if config.layout is None:
                    root.start_soon(leave_for_another_layout)
                await serve(feed, listeners, stopping, task_status, goodbye=_ANOTHER_LAYOUT)
                root.cancel_scope.cancel("the service has ended")
        finally:
            ends = {pipeline.log.stream.name: pipeline.ring.end for pipeline in feed.pipelines}
            for name, end in ends.items():
                ledger.save_last(STREAMS[name], end)  # blocking, and short: nothing else runs any more
    logger.info("stopped at {}", _place(feed.main.ring.end))
    return None if feed.main.head.stopped else successor, ends


async def serve(
    feed: StreamSet,
    listeners: list[trio.SocketListener],
    stopping: trio.Event,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    *,
    before: Callable[[], Awaitable[None]] | None = None,
    after: Callable[[], Awaitable[None]] | None = None,
    goodbye: tuple[int, str] = _GOODBYE,
) -> None:
    """Serves a feed until its log ends or it is told to stop, then says goodbye to the clients.

    Args:
        feed: what to serve.
        listeners: open; closed in the end.
        stopping: ends the feed: what was read is delivered, within 8 s all is over.
        task_status: is told the port.
        before: awaited while clients can connect already and the head has not begun.
        after: awaited when the log has ended by itself, while clients are still served.
        goodbye: the closing code and reason where the log has ended by itself.
    """
    draining = trio.CancelScope()
    backstop = threading.Timer(_STOP_S, end_process, ["the shutdown has not ended in time"])
    backstop.daemon = True

    async def stop() -> None:
        await stopping.wait()
        backstop.start()
        feed.server.refuse()
        feed.main.head.stop()
        draining.deadline = trio.current_time() + _DRAIN_S

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(stop)
            accepting.start_soon(partial(accept_all, feed.server.handle, listeners, handlers=connections))
            accepting.start_soon(feed.main.hub.tell_positions)
            port = listeners[0].socket.getsockname()[1]
            logger.info("the feed is at ws://{}/ws", _address(listeners[0]))
            task_status.started(port)
            with draining:
                if before is not None:
                    await before()
                await feed.run()
                if after is not None and not feed.main.head.stopped:
                    await after()
            if draining.cancelled_caught:
                logger.warning(
                    "gave up after {} s on batches that were read; clients resume by their cursors", _DRAIN_S
                )
            accepting.cancel_scope.cancel("the head has ended")
        with trio.move_on_after(_CLOSE_S) as closing:
            await feed.server.close(*(_GOODBYE if feed.main.head.stopped else goodbye))
        if closing.cancelled_caught:
            logger.warning("{} clients did not say goodbye within {} s", len(feed.server.connections), _CLOSE_S)
        connections.cancel_scope.cancel("the service has ended")
    backstop.cancel()


async def stop_on_signals(
    stop: Callable[[], object], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Calls `stop` at the first SIGINT or SIGTERM; the second ends the process at once. Does not end by itself."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            logger.info("{}: stopping; once more to end at once", signal.Signals(number).name)
            stop()
            break
        async for number in signals:
            os._exit(128 + number)  # as PID 1 the default action would be ignored


async def listen(address: Address | None, option: str = "--listen") -> list[trio.SocketListener]:
    """Opens the listeners.

    Args:
        address: where. None: nowhere.
        option: what said so.

    Raises:
        UsageError: where the address is in use, not ours, or not to be had.
    """
    if address is None:
        return []
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        what = f"{option} {address}: {error.strerror or error}"
        raise UsageError(what, _REMEDIES.get(error.errno or 0, "choose an address of this machine")) from error


def _place(cursor: Cursor) -> str:
    return ", ".join(f"{place.file} at {place.offset}" for place in cursor.places) or "the beginning"


def _address(listener: trio.SocketListener) -> Address:
    host, port, *_ = listener.socket.getsockname()
    return Address(host, port)
