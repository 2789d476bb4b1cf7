"""A view is asked about an entry where that takes long, without a hold on the event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from hyperwatch.feed.channels.events import Channel
from hyperwatch.feed.messages import Message
from hyperwatch.log.batches import Entry

__all__ = ["look"]


async def look(
    channel: Channel, entry: Entry, pause: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
) -> Sequence[Message]:
    """What a view hears of an entry.

    Args:
        channel: it is asked.
        entry: about this.
        pause: lets others run.
    """
    parts = channel.messages_in_parts(entry)
    while True:
        try:
            next(parts)
        except StopIteration as end:
            messages: Sequence[Message] = end.value
            return messages
        await pause()
