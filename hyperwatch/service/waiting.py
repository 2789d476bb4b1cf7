"""Before the node has written: there is no feed yet, and whoever asks is told so."""

from __future__ import annotations

from functools import partial

import trio
from loguru import logger

from hyperwatch.config import Config
from hyperwatch.ingest.watcher import POLL_S
from hyperwatch.log.advice import advice_without_orders
from hyperwatch.log.tree import Tree, find_trees
from hyperwatch.node.streams import ORDERS
from hyperwatch.server.accept import accept_all
from hyperwatch.server.server import Server
from hyperwatch.service.frontend import Frontend

__all__ = ["find_tree", "wait_for_tree"]

_ANSWER_S = 1.0  # for whoever has asked something when there is a feed: a supervisor's question is not cut off


async def wait_for_tree(
    config: Config, frontend: Frontend, listeners: list[trio.SocketListener], stopping: trio.Event
) -> Tree | None:
    """The files to follow, as soon as the node has written any; None where it was told to stop first.

    Args:
        config: the settings.
        frontend: who may ask.
        listeners: open, for as long as this takes.
        stopping: ends it.
    """
    advice = await trio.to_thread.run_sync(advice_without_orders, config.data_dir)
    logger.warning("no {}* in {} yet: waiting; {}", ORDERS.name, config.data_dir, advice)
    tree = None
    async with trio.open_nursery() as asking:
        async with trio.open_nursery() as accepting:
            waiting = Server({}, frontend.admission, frontend.routes)
            accepting.start_soon(partial(accept_all, waiting.handle, listeners, handlers=asking))
            while tree is None and not stopping.is_set():
                with trio.move_on_after(POLL_S):
                    await stopping.wait()
                tree = await find_tree(config)
            accepting.cancel_scope.cancel("there is a feed now")
        asking.cancel_scope.deadline = trio.current_time() + _ANSWER_S
    return None if stopping.is_set() else tree


async def find_tree(config: Config) -> Tree | None:
    """The order statuses to follow: as configured, or those with the newest data; None where there are none.

    Raises:
        DataError: where the data directory is missing or cannot be read.
    """
    trees = await trio.to_thread.run_sync(find_trees, config.data_dir, ORDERS, config.grace_s)
    if config.layout is not None:
        return Tree(config.data_dir, ORDERS, config.layout, config.grace_s)
    return trees[0] if trees else None
