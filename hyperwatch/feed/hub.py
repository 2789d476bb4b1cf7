"""The hub: subscriptions at the head of the log, each message built once and pushed to all that want it.

It never waits for a client. A socket that takes no more turns its subscriptions over to their connection.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import trio

from hyperwatch.feed.packing import Message, packed
from hyperwatch.feed.subscription import Subscription
from hyperwatch.feed.views import View, standing
from hyperwatch.log.batch import Batch, Entry
from hyperwatch.log.ring import Ring

__all__ = ["TELL_S", "Hub"]

TELL_S = 1.0  # how often a subscription hears where it stands

_EVENTS_AT_ONCE = 1000  # between checkpoints: about a millisecond, which is what another client may have to wait


class Hub:
    """Pushes entries to the live subscriptions.

    Args:
        ring: the batches decoded last; the head fills it before it publishes.
    """

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.last: Entry | None = None
        """The entry published last."""
        self._serial = ring.end_serial  # of the entry that is published next
        self._start = ring.end
        self._within = False  # an entry, which some views have and others not yet
        self._live: dict[View, dict[Subscription, None]] = {}  # a dict, not a set: clients in the order they came
        self._published = trio.Event()
        self._coins: frozenset[str] = frozenset()
        self._coins_read_s = -TELL_S

    def join(self, subscription: Subscription) -> None:
        """Makes it live. It must stand at the ring's end; nothing may be awaited between that look and this call."""
        subscription.live = True
        self._live.setdefault(subscription.view, {})[subscription] = None

    def leave(self, subscription: Subscription) -> None:
        """Pushes to it no more."""
        group = self._live.get(subscription.view, {})
        group.pop(subscription, None)
        if not group:
            self._live.pop(subscription.view, None)

    async def publish(self, batch: Batch) -> int:
        """Pushes a batch, which the ring holds already.

        Returns:
            To how many clients any of it went.
        """
        serial = self.ring.end_serial - len(batch.entries)
        reached: set[object] = set()
        self._published.set()
        self._published = trio.Event()
        work = 0
        for entry in batch.entries:
            self._within = True
            for view in list(self._live):
                if messages := view.messages(entry):
                    self._push(view, messages, entry, serial, reached)
                work += len(entry.run.events)
                if work >= _EVENTS_AT_ONCE:
                    work = 0
                    await trio.lowlevel.checkpoint()
            serial += 1
            self.last, self._serial, self._within = entry, serial, False
        return len(reached)

    def _push(self, view: View, messages: Sequence[Message], entry: Entry, serial: int, reached: set[object]) -> None:
        for subscription in list(self._live.get(view, ())):
            if serial < subscription.serial:
                continue  # its connection sent this one before it came here
            for sent, message in enumerate(messages):
                if not subscription.outlet.offer(subscription.head(message), message.tail, binary=message.binary):
                    self.leave(subscription)
                    subscription.fall_behind(entry, serial, sent)
                    break
                subscription.seq += 1
                reached.add(subscription.outlet)

    async def published(self) -> None:
        """Returns when the next batch is in the ring."""
        await self._published.wait()

    async def tell_positions(self) -> None:
        """Tells the live subscriptions of our own types, every TELL_S, where they stand. Does not end."""
        while True:
            await trio.sleep(TELL_S)
            while self._within:  # noqa: ASYNC110  for a millisecond at most
                await trio.lowlevel.checkpoint()
            where = standing("cursor", self.last.after if self.last else self._start, self.last)
            for view, group in list(self._live.items()):
                if view.ours:
                    message = packed(where, view.compress)
                    for subscription in list(group):
                        if subscription.serial > self._serial:
                            continue  # its connection has sent it more than the hub has published
                        # A socket that takes nothing now is told later.
                        if subscription.outlet.offer(subscription.head(message), message.tail, binary=message.binary):
                            subscription.seq += 1

    def coins(self) -> frozenset[str]:
        """The coins in the ring, looked up at most once in TELL_S."""
        now = time.monotonic()
        if now - self._coins_read_s >= TELL_S:
            self._coins_read_s = now
            self._coins = frozenset().union(*(entry.run.coins for entry in self.ring))
        return self._coins

    def live_clients(self) -> int:
        """How many clients have a subscription at the head."""
        return len({subscription.outlet for group in self._live.values() for subscription in group})
