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
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial

import attrs
import trio
from loguru import logger

from hyperwatch.config import Address, Config
from hyperwatch.errors import UsageError
from hyperwatch.feed.hub import Hub
from hyperwatch.feed.server import Server
from hyperwatch.log.cursor import Cursor
from hyperwatch.log.files import Log, Tree, backlog_bytes, find_trees
from hyperwatch.log.head import Changes, Gate, Head
from hyperwatch.log.past import Past, polite_pause
from hyperwatch.log.ring import Ring
from hyperwatch.log.start import at_head
from hyperwatch.log.state import State
from hyperwatch.log.stuck import end_process
from hyperwatch.log.watch import POLL_S, Watch
from hyperwatch.node.streams import ORDERS
from hyperwatch.records import Records

__all__ = ["Feed", "listen", "run", "serve", "stop_on_signals"]

REPORT_S = 10.0
_DRAIN_S = 4.0  # for batches that were read when the stop came; with _CLOSE_S within 8 s, as supervisors expect
_STOP_S = 8.0
_LOOK_S = 1.0
_CLOSE_S = 2.0  # for the clients' part of the closing handshake


@attrs.frozen
class Feed:
    """A log and everything that serves it."""

    log: Log
    ring: Ring
    hub: Hub
    head: Head
    server: Server

    @classmethod
    def of(
        cls,
        log: Log,
        start: Cursor,
        *,
        ring_bytes: int,
        workers: int,
        deadline_s: float,
        changes: Changes | None,
        gate: Gate | None = None,
        records: Records | None = None,
    ) -> Feed:
        """Builds one that begins at `start`. Nothing runs yet."""
        records = records or Records(None)
        ring = Ring(start, ring_bytes)
        hub = Hub(ring)
        server = Server(hub, Past(log, ring, records.note))

        def pause() -> None:
            if server.connections:
                polite_pause()
            else:
                trio.from_thread.check_cancelled()  # nobody waits: full speed

        head = Head(
            log,
            start,
            ring,
            hub.publish,
            changes=changes,
            workers=workers,
            deadline_s=deadline_s,
            pause=pause,
            gate=gate,
            found=records.found,
        )
        return cls(log, ring, hub, head, server)


async def run(  # noqa: ASYNC128  `serve` calls started()
    config: Config, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED, *, signals: bool = True
) -> None:
    """The sidecar: follows a node's order statuses and serves them until a signal.

    Args:
        config: the settings.
        task_status: is told the port when clients can connect.
        signals: whether SIGINT and SIGTERM stop it. False where it is a part of something else, which cancels it.

    Raises:
        UsageError: where it cannot listen.
        DataError: where the data directory is missing or cannot be read.
    """
    listeners = await listen(config.listen)
    try:
        tree = await _wait_for_tree(config, signals=signals)
        if tree is not None:
            await _follow(tree, config, listeners, task_status, signals=signals)
    finally:
        for listener in listeners:
            listener.socket.close()


async def _follow(  # noqa: ASYNC128  as `run`
    tree: Tree,
    config: Config,
    listeners: list[trio.SocketListener],
    task_status: trio.TaskStatus[int],
    *,
    signals: bool,
) -> None:
    with State(config.state_dir) if config.state_dir else nullcontext() as state, Watch() as watch:
        records = Records(state)
        start = await trio.to_thread.run_sync(at_head, tree)
        start = await trio.to_thread.run_sync(records.since_last_time, tree.stream.name, start)
        logger.info("reading {} from its newest complete line", tree.hourly)
        feed = Feed.of(
            tree,
            start,
            ring_bytes=config.ring_bytes,
            workers=config.workers,
            deadline_s=config.deadline_s,
            changes=watch,
            records=records,
        )
        try:
            async with trio.open_nursery() as root:
                root.start_soon(_report, feed)
                root.start_soon(_watch_node, feed.ring, config.stall_s)
                root.start_soon(records.save_places, feed.ring)
                await serve(feed, listeners, task_status, signals=signals)
                root.cancel_scope.cancel("the service has ended")
        finally:
            records.save_last(feed.ring.end)  # blocking, and short: nothing else runs any more
    logger.info("stopped at {}", _place(feed.ring.end))


async def _watch_node(ring: Ring, stall_s: float) -> None:
    """Says when the node has written nothing for so long, and when it goes on. That is no gap."""
    seen, since_s, told = ring.end, trio.current_time(), False
    while True:
        await trio.sleep(_LOOK_S)
        idle_s = trio.current_time() - since_s
        if ring.end is not seen:
            if told:
                logger.warning("the node writes again, after {:.0f} s", idle_s)
            seen, since_s, told = ring.end, trio.current_time(), False
        elif idle_s >= stall_s and not told:
            told = True
            logger.warning(
                "stalled: the node has written no line for {:.0f} s; is it running, and has it peers?", idle_s
            )


async def serve(
    feed: Feed,
    listeners: list[trio.SocketListener],
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    *,
    signals: bool = True,
    before: Callable[[], Awaitable[None]] | None = None,
    after: Callable[[], Awaitable[None]] | None = None,
    goodbye: tuple[int, str] = (1001, "shutting down"),
) -> None:
    """Serves a feed until its log ends or a signal comes, then says goodbye to the clients.

    Args:
        feed: what to serve.
        listeners: open; closed in the end.
        task_status: is told the port.
        signals: as in `run`.
        before: awaited while clients can connect already and the head has not begun.
        after: awaited when the log has ended by itself, while clients are still served.
        goodbye: the closing code and reason where the log has ended by itself.
    """
    draining = trio.CancelScope()
    backstop = threading.Timer(_STOP_S, end_process, ["the shutdown has not ended in time"])
    backstop.daemon = True

    def stop() -> None:
        backstop.start()
        feed.server.refuse()
        feed.head.stop()
        draining.deadline = trio.current_time() + _DRAIN_S

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            if signals:
                await accepting.start(stop_on_signals, stop)
            accepting.start_soon(
                partial(trio.serve_listeners, feed.server.handle, listeners, handler_nursery=connections)
            )
            accepting.start_soon(feed.hub.tell_positions)
            port = listeners[0].socket.getsockname()[1]
            logger.info("the feed is at ws://{}/ws", _name(listeners[0]))
            task_status.started(port)
            with draining:
                if before is not None:
                    await before()
                await feed.head.run()
                if after is not None and not feed.head.stopped:
                    await after()
            if draining.cancelled_caught:
                logger.warning(
                    "gave up after {} s on batches that were read; clients resume by their cursors", _DRAIN_S
                )
            accepting.cancel_scope.cancel("the head has ended")
        with trio.move_on_after(_CLOSE_S) as closing:
            await feed.server.close(*((1001, "shutting down") if feed.head.stopped else goodbye))
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


async def listen(address: Address) -> list[trio.SocketListener]:
    """Opens the listeners.

    Raises:
        UsageError: where the address is in use, not ours, or not to be had.
    """
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        what = f"--listen {address}: {os.strerror(error.errno) if error.errno else error}"
        busy = error.errno == errno.EADDRINUSE
        remedy = "choose another port, or end what listens there" if busy else "choose an address of this machine"
        raise UsageError(what, remedy) from error


async def _wait_for_tree(config: Config, *, signals: bool) -> Tree | None:
    """The files to follow, as soon as the node has written any; None where a signal came first."""
    tree = await _find_tree(config)
    if tree is None:
        logger.warning(
            "no {}* in {} yet: waiting; the node writes them with --write-order-statuses",
            ORDERS.name,
            config.data_dir,
        )
        async with trio.open_nursery() as nursery:
            if signals:
                await nursery.start(stop_on_signals, nursery.cancel_scope.cancel)
            while tree is None:
                await trio.sleep(POLL_S)
                tree = await _find_tree(config)
            nursery.cancel_scope.cancel("found")
    return tree


async def _find_tree(config: Config) -> Tree | None:
    trees = await trio.to_thread.run_sync(find_trees, config.data_dir, ORDERS, config.grace_s)
    if config.layout is not None:
        return Tree(config.data_dir, ORDERS, config.layout, config.grace_s)
    return trees[0] if trees else None


async def _report(feed: Feed) -> None:
    """Says every REPORT_S what has happened since the last time."""
    last = attrs.evolve(feed.head.counters)
    while True:
        await trio.sleep(REPORT_S)
        now = attrs.evolve(feed.head.counters)
        lag_bytes, lag_s = await lag(feed)
        counts = {name: getattr(now, name) - getattr(last, name) for name in ("lines", "events", "failures", "batches")}
        logger.bind(lag_bytes=lag_bytes, lag_s=lag_s, clients=len(feed.server.connections), **counts).info(
            "last {:g} s: {lines} lines, {events} orders, {failures} failures, {batches} batches; "
            "lag {} bytes, {:.3f} s; {} clients",
            REPORT_S, lag_bytes, lag_s, len(feed.server.connections), **counts,
        )  # fmt: skip
        last = now


async def lag(feed: Feed) -> tuple[int, float]:
    """How far the head is behind what the node has written: in bytes, and in seconds by what was read last."""
    if not isinstance(feed.log, Tree):
        return 0, 0.0
    size_bytes = await trio.to_thread.run_sync(backlog_bytes, feed.log, feed.ring.end)
    written_ms = feed.hub.last.run.written_ms if feed.hub.last else None
    if not size_bytes or written_ms is None:
        return size_bytes, 0.0
    return size_bytes, max(0.0, time.time() - written_ms / 1000)


def _place(cursor: Cursor) -> str:
    return ", ".join(f"{place.file} at {place.offset}" for place in cursor.places) or "the beginning"


def _name(listener: trio.SocketListener) -> str:
    host, port, *_ = listener.socket.getsockname()
    return str(Address(host, port))
