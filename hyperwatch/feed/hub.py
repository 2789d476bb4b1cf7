"""The hub: subscriptions at the head of the log, each message built once and pushed to all that want it.

It never waits for a client. A socket that takes no more turns its subscriptions over to their connection, and so does a
client that has used up what it may have of the head's time (`budget`). Those who need little are served first.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
import trio

from hyperwatch.feed.channels.events import Behind, Channel, position_message
from hyperwatch.feed.cost import ASK_US, AT_ONCE_US, BRIEF_US, BYTES_PER_US, made_us
from hyperwatch.feed.look import look
from hyperwatch.feed.messages import Encoding, compressed
from hyperwatch.feed.routing import RoutingIndex, RoutingKeys
from hyperwatch.feed.subscription import Framed, Framing, Outlet, Subscription
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.batches import Batch, Entry
from hyperwatch.log.positions import Cursor

__all__ = ["TELL_S", "Hub"]

TELL_S = 1.0  # how often a subscription hears where it stands

# As in `cost`: microseconds, about.
_PUSH_US = 8
_TELL_US = 1
_ESTIMATE = 0.1  # of a look, to say what it will take
_EVENTS_PER_US = 4  # as they are looked up by coin and user
_TOLD_AT_ONCE = 200  # subscriptions of one client: 80 KB that may wait for `flush`
_TOGETHER_BYTES = 2 * 1024 * 1024  # entries that views are asked about together, where so many are there already
_TOGETHER = 64
_WRITE_BYTES = 512 * 1024  # messages that go to a client in one write: what does not fit waits in memory for `flush`
_PARTS = 1024  # of a write: IOV_MAX


@attrs.define(eq=False)
class _Group:
    """The live subscriptions of equal views."""

    channel: Channel
    interest: RoutingKeys | None
    members: dict[Subscription, None] = attrs.Factory(dict)
    """A dict, not a set: clients in the order they came."""
    made_us: float = 0.0
    """What it took last to make its messages: it will be about as much."""

    def modest(self, work_us: float, now_s: float) -> bool:
        """Whether any member's client needs little: the others wait until all such have been served."""
        for each in self.members:  # noqa: SIM110  any() would be three calls, for every group that is asked
            if each.allowance.modest(work_us, now_s):
                return True
        return False

    @property
    def spent_s(self) -> float:
        """Of the member that has used least."""
        return min((each.allowance.spent_s for each in self.members), default=0.0)

    def over(self, work_us: float, now_s: float) -> bool:
        """Whether no member's client has so much time left."""
        return all(each.allowance.over(work_us, now_s) for each in self.members)


_Numbered = tuple[int, Entry]


@attrs.frozen(eq=False)
class _Pushed:
    """What a view has to say of an entry."""

    serial: int
    entry: Entry
    framed: list[Framed]
    size: int
    """Of the messages, bytes."""


@attrs.frozen(eq=False)
class _Later:
    """Who is pushed to when those who need little have been served."""

    said: list[_Pushed]
    members: list[Subscription]
    share_us: float
    """Of what it took to find that out."""


class Hub:
    """Pushes entries to the live subscriptions.

    Args:
        ring: the batches decoded last; the head fills it before it publishes.
        framing: makes the server's frames of messages.
        clock: tells the time by which clients' budgets fill up.
    """

    def __init__(self, ring: Ring, framing: Framing, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self.framing = framing
        self.ring = ring
        self.last: Entry | None = None
        """The entry published last."""
        self._serial = ring.end_serial  # of the entry that is published next
        self._start = ring.end
        self._within = False  # an entry, which some views have and others not yet
        self._awaited = False  # its end
        self._work_us = 0.0  # since a checkpoint
        self._now_s = 0.0  # then
        self._groups: dict[Channel, _Group] = {}
        self._index: RoutingIndex[_Group] = RoutingIndex()
        self._needs_keys = 0  # how many of the groups look at what events are routed by
        self._published = trio.Event()
        self._coins: frozenset[str] = frozenset()
        self._coins_read_s = -TELL_S

    def join(self, subscription: Subscription) -> None:
        """Makes it live. It must stand at the ring's end; nothing may be awaited between that look and this call.

        Whether its client has time for that is for who calls to know.
        """
        channel = subscription.channel
        group = self._groups.get(channel)
        if group is None:
            group = self._groups[channel] = _Group(channel, channel.interest, made_us=subscription.looked_us)
            self._index.add(group)
            self._needs_keys += channel.needs_keys
        group.members[subscription] = None
        subscription.live = True

    def leave(self, subscription: Subscription) -> None:
        """Pushes to it no more."""
        if not subscription.live:
            return
        subscription.live = False
        group = self._groups[subscription.channel]
        del group.members[subscription]
        if not group.members:
            del self._groups[group.channel]
            self._index.remove(group)
            self._needs_keys -= group.channel.needs_keys

    @property
    def needs_keys(self) -> bool:
        """Whether anyone at the head looks at what events are routed by."""
        return self._needs_keys > 0

    async def publish(self, batch: Batch) -> int:
        """Pushes a batch, which the ring holds already.

        Returns:
            How many of the clients at the head any of it was for.
        """
        reached: dict[_Group, None] = {}
        self._published.set()
        self._published = trio.Event()
        for entries in _together(batch.entries, self.ring.end_serial - len(batch.entries)):
            self._within = True
            await self._serve(self._asked(entries), reached)
            serial, self.last = entries[-1]
            self._serial, self._within = serial + 1, False
            if self._awaited:
                await self._breathe()
        return len({subscription.outlet for group in reached for subscription in group.members})

    async def _serve(self, asked: Mapping[_Group, list[_Numbered]], reached: dict[_Group, None]) -> None:
        """First those who need little, then the others, who used least first, as long as they have time left."""
        self._now_s = self._clock()
        demanding: list[tuple[_Group, list[_Numbered], float]] = []
        later: list[_Later] = []
        for group, entries in asked.items():
            if group.channel.brief:  # most are, and there are thousands
                look_us = ASK_US * len(entries)
            else:
                look_us = sum(group.channel.look_us(entry) for _, entry in entries)
                self._work_us += look_us * _ESTIMATE
                if self._work_us >= AT_ONCE_US:
                    await self._breathe()
            if group.modest((look_us + group.made_us) / (len(group.members) or 1), self._now_s):
                await self._ask(group, entries, look_us, reached, later)
            else:
                demanding.append((group, entries, look_us))
        for each in later:
            await self._push(each.said, each.members, each.share_us)
        demanding.sort(key=lambda each: each[0].spent_s)
        for group, entries, look_us in demanding:
            if group.over((look_us + group.made_us) / (len(group.members) or 1), self._now_s):
                await self._put_behind(group, entries)
            else:
                await self._ask(group, entries, look_us, reached, None)

    async def _ask(
        self,
        group: _Group,
        entries: Sequence[_Numbered],
        look_us: float,
        reached: dict[_Group, None],
        later: list[_Later] | None,
    ) -> None:
        """Asks a view about entries, and pushes what it has to say; to clients that need much, if there is a later, then.

        What it takes to find out is paid by the members together.
        """
        said: list[_Pushed] = []
        took_us, size = look_us, 0
        for serial, entry in entries:
            messages = group.channel.messages(entry) if look_us < BRIEF_US else await look(group.channel, entry)
            if messages:
                took_us += made_us(messages)
                each = _Pushed(
                    serial, entry, [self.framing(message) for message in messages], sum([len(m.tail) for m in messages])
                )
                size += each.size
                said.append(each)
        self._work_us += took_us
        group.made_us = took_us - look_us
        share_us = took_us / (len(group.members) or 1)
        if not said:
            for member in group.members:
                member.allowance.pay(share_us, self._now_s)
        else:
            reached[group] = None
            members = list(group.members)
            if later is not None and len(members) > 1:
                modest = [each for each in members if each.allowance.modest(share_us, self._now_s)]
                if len(modest) < len(members):
                    early = set(modest)
                    later.append(_Later(said, [each for each in members if each not in early], share_us))
                    members = modest
            if size <= _WRITE_BYTES:
                await self._write(said, members, share_us)
            else:
                await self._push(said, members, share_us)
        if self._work_us >= AT_ONCE_US:
            await self._breathe()

    async def _put_behind(self, group: _Group, entries: Sequence[_Numbered]) -> None:
        """No member has any time left: their connections serve them from here, in turns."""
        for subscription in list(group.members):
            for serial, entry in entries:
                if subscription.live and serial >= subscription.serial:
                    self._hand_over(subscription, entry, serial, "budget")
            self._work_us += _PUSH_US
            if self._work_us >= AT_ONCE_US:
                await self._breathe()

    def _hand_over(self, subscription: Subscription, entry: Entry, serial: int, why: Behind) -> None:
        self.leave(subscription)
        subscription.fall_behind(entry, serial, why)

    def _asked(self, entries: Sequence[_Numbered]) -> dict[_Group, list[_Numbered]]:
        """Whom any of them may concern, and which do."""
        asked: defaultdict[_Group, list[_Numbered]] = defaultdict(list)
        for numbered in entries:
            _, entry = numbered
            self._work_us += entry.slice.count // _EVENTS_PER_US
            for group in self._groups.values() if entry.gaps else self._index.asked(entry):
                asked[group].append(numbered)
        return asked

    async def _push(self, said: Sequence[_Pushed], members: Sequence[Subscription], share_us: float) -> None:
        for pushed in _writes(said):
            await self._write(pushed, members, share_us)
            share_us = 0.0

    async def _write(self, pushed: Sequence[_Pushed], members: Sequence[Subscription], share_us: float) -> None:
        # Bytes take time too, but nobody can have more of that than the socket takes.
        push_us = _PUSH_US + _TELL_US * sum(len(each.framed) for each in pushed)
        each_us = push_us + sum(each.size for each in pushed) / BYTES_PER_US
        step = int(AT_ONCE_US / each_us) + 1
        for at in range(0, len(members), step):
            some = members[at : at + step]
            for subscription in some:
                if subscription.live:  # others ran since the list was made: it may have left
                    self._push_to(subscription, pushed, share_us)
                    subscription.allowance.pay(push_us + share_us, self._now_s)
            self._work_us += each_us * len(some)
            if self._work_us >= AT_ONCE_US:
                await self._breathe()

    def _push_to(self, subscription: Subscription, pushed: Sequence[_Pushed], share_us: float) -> None:
        seq, size, first = subscription.seq, 0, None
        parts: list[bytes] = []
        for each in pushed:
            if each.serial < subscription.serial:
                continue  # its connection sent this one before it came here
            first = first or each
            for framed in each.framed:
                seq += 1
                more, length = framed.next(subscription.name, seq)
                parts += more
                size += length
        if first is None:
            return
        if subscription.allowance.over(_PUSH_US + share_us, self._now_s):
            self._hand_over(subscription, first.entry, first.serial, "budget")
            return
        if len(parts) > _PARTS:
            parts = [b"".join(parts)]
        if subscription.push(parts, size):
            subscription.seq = seq
        else:
            self._hand_over(subscription, first.entry, first.serial, "past")

    async def _breathe(self) -> None:
        """Lets others run."""
        await trio.lowlevel.checkpoint()
        self._work_us, self._now_s = 0.0, self._clock()

    async def published(self) -> None:
        """Returns when the next batch is in the ring."""
        await self._published.wait()

    async def tell_positions(self) -> None:
        """Tells the live subscriptions of our own types, every TELL_S, where they stand. Does not end."""
        while True:
            await trio.sleep(TELL_S)
            await self._tell_all()

    # A function of its own: what it holds goes when it has ended. In a loop that sleeps, who has left would be held on to.
    async def _tell_all(self) -> None:
        where = None
        for outlet, subscriptions in (await self._by_outlet()).items():
            for at in range(0, len(subscriptions), _TOLD_AT_ONCE):
                await self._between_entries()
                if where is None or where.last is not self.last:
                    where = _Standing(self._start, self.last, self.framing)
                self._tell(outlet, subscriptions[at : at + _TOLD_AT_ONCE], where)

    async def _by_outlet(self) -> dict[Outlet, list[Subscription]]:
        """The live subscriptions of our own types: what one client is told goes out together."""
        found: defaultdict[Outlet, list[Subscription]] = defaultdict(list)
        for group in list(self._groups.values()):
            if group.channel.resumable:
                for subscription in group.members:
                    found[subscription.outlet].append(subscription)
                self._work_us += _TELL_US * len(group.members)
            if self._work_us >= AT_ONCE_US:
                await self._breathe()
        return found

    async def _between_entries(self) -> None:
        """Lets others run, and returns where every view has had the same."""
        if self._work_us >= AT_ONCE_US:
            await self._breathe()
        self._awaited = True
        while self._within:  # noqa: ASYNC110  for a few milliseconds at most
            await trio.lowlevel.checkpoint()
        self._awaited = False

    def _tell(self, outlet: Outlet, subscriptions: Sequence[Subscription], where: _Standing) -> None:
        # Who is ahead of the hub's last entry has been sent more by its connection.
        told = [each for each in subscriptions if each.live and each.serial <= self._serial]
        frames = b"".join(
            [part for each in told for part in where.framed(each.channel.compress).next(each.name, each.seq + 1)[0]]
        )
        self._work_us += _PUSH_US + _TELL_US * len(told)
        if frames and outlet.offer((frames,), len(frames)):  # a socket that takes nothing now is told later
            for each in told:
                each.seq += 1

    def coins(self) -> frozenset[str]:
        """The coins in the ring, looked up at most once in TELL_S."""
        now = time.monotonic()
        if now - self._coins_read_s >= TELL_S:
            self._coins_read_s = now
            self._coins = frozenset().union(*(entry.slice.coin_counts for entry in self.ring))
        return self._coins

    def live_clients(self) -> int:
        """How many clients have a subscription at the head."""
        return len({subscription.outlet for group in self._groups.values() for subscription in group.members})


class _Standing:
    """Where who has had all so far stands, in each encoding that is asked for."""

    def __init__(self, start: Cursor, last: Entry | None, framing: Framing) -> None:
        self.last = last
        self._framing = framing
        self._message = position_message("cursor", last.after if last else start, last)
        self._framed: dict[Encoding | None, Framed] = {}

    def framed(self, encoding: Encoding | None) -> Framed:
        """The message."""
        if encoding not in self._framed:
            self._framed[encoding] = self._framing(compressed(self._message, encoding))
        return self._framed[encoding]


def _together(entries: Sequence[Entry], serial: int) -> Iterator[list[_Numbered]]:
    """Numbers entries, and puts them together: a system call for each of many small ones would cost more than all else."""
    some: list[_Numbered] = []
    size = 0
    for number, entry in enumerate(entries, serial):
        if some and (size + entry.slice.size_bytes > _TOGETHER_BYTES or len(some) == _TOGETHER):
            yield some
            some, size = [], 0
        some.append((number, entry))
        size += entry.slice.size_bytes
    if some:
        yield some


def _writes(said: Sequence[_Pushed]) -> Iterator[list[_Pushed]]:
    """What is said, in parts that may go to a client in one write."""
    some: list[_Pushed] = []
    room = _WRITE_BYTES
    for each in said:
        if some and each.size > room:
            yield some
            some, room = [], _WRITE_BYTES
        some.append(each)
        room -= each.size
    if some:
        yield some
