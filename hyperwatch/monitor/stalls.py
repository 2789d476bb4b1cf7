"""What is watched beside the feed: whether the node writes, in which layout, and whether clients have left much memory behind."""

from __future__ import annotations

import attrs
import trio
from loguru import logger

from hyperwatch.errors import DataError
from hyperwatch.feed.filters.word_lists import WordBudget
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.tree import Tree, find_trees, newest_end
from hyperwatch.node.streams import Layout, hour_rank
from hyperwatch.runtime import memory

__all__ = ["another_layout", "give_memory_back", "say_stalls"]

_LOOK_S = 1.0
_GIVE_BACK_S = 20.0  # it stops the process for some milliseconds: seldom enough not to be seen in a p99
_MANY_WORDS = 5_000  # about a megabyte
_SETTLED_S = 10.0  # for so long this layout got nothing that another one did: no node pauses one of its own layouts


async def say_stalls(ring: Ring, stall_s: float) -> None:
    """Says when the node has written nothing for so long, and when it goes on. That is no gap. Does not end."""
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


async def give_memory_back(words: WordBudget) -> None:
    """Gives memory back to the system, at most once in _GIVE_BACK_S, where clients' filters have let go of much. Does not end."""
    seen = words.given_back
    while True:
        await trio.sleep(_GIVE_BACK_S)
        if words.given_back - seen >= _MANY_WORDS:
            seen = words.given_back
            await trio.to_thread.run_sync(memory.give_back)


async def another_layout(tree: Tree, ring: Ring) -> Tree:
    """Returns when the node writes another layout instead of this one, which has been read to its end."""
    seen, since_s = ring.end, trio.current_time()
    before = await trio.to_thread.run_sync(_ends, tree)
    while True:
        await trio.sleep(_LOOK_S)
        if ring.end is not seen:
            seen, since_s = ring.end, trio.current_time()
            before = await trio.to_thread.run_sync(_ends, tree)
        elif trio.current_time() - since_s >= _SETTLED_S:
            now = await trio.to_thread.run_sync(_ends, tree)
            for layout, end in (now or {}).items():
                if before is not None and _has_grown(before.get(layout), end):
                    return attrs.evolve(tree, layout=layout)
            before = before if before is not None else now


def _has_grown(before: tuple[str, int] | None, after: tuple[str, int] | None) -> bool:
    """Whether a later hour has begun, or the same one is longer: an old layout that is pruned changes too, and nobody writes it."""
    if after is None or before is None:
        return after is not None
    return (hour_rank(after[0]), after[1]) > (hour_rank(before[0]), before[1])


def _ends(tree: Tree) -> dict[Layout, tuple[str, int] | None] | None:
    """The newest hour file of each other layout, and how long it is: that it grows is seen, for its times may say anything.

    None where that cannot be seen just now: a directory that is away says nothing of what was in it.
    """
    try:
        there = find_trees(tree.root, tree.stream, tree.grace_s)
        return {each.layout: newest_end(each) for each in there if each.layout is not tree.layout} if there else None
    except (DataError, OSError):
        return None  # the head says what is wrong with the directory
