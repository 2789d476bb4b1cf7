"""One client: what it asks for, and its subscriptions that are behind.

Two tasks: one reads what the client says (always, or its pings would go unanswered), one serves the subscriptions that
are not at the head. At the head the hub pushes.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import trio

from hyperwatch.errors import CursorError, DataError
from hyperwatch.feed.channels.events import Channel, gap, position_message
from hyperwatch.feed.cost import BRIEF_US, DOUBT_US, READ_US, made_us, request_us
from hyperwatch.feed.filters.orders import doubtful_coins
from hyperwatch.feed.filters.word_lists import TooManyWordsError
from hyperwatch.feed.hub import TELL_S
from hyperwatch.feed.look import look
from hyperwatch.feed.messages import Message, compressed
from hyperwatch.feed.registry import Streams, StreamSource
from hyperwatch.feed.requests.answers import (
    AUTHORIZED,
    PONG,
    Auth,
    Ping,
    ProtocolError,
    Subscribe,
    Unsubscribe,
    acknowledgement,
    already_subscribed,
    already_unsubscribed,
    bad_cursor,
    binary,
    files_away,
    not_written,
    too_many_subscriptions,
    too_many_words,
    unauthorized,
)
from hyperwatch.feed.requests.parse import parse
from hyperwatch.feed.subscription import Subscription
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Entry
from hyperwatch.log.gaps import PLACE_GONE, Gap
from hyperwatch.log.positions import is_at_or_after, same_progress
from hyperwatch.server.admission import Admission
from hyperwatch.server.client_log import Level
from hyperwatch.server.framing import FrameCache
from hyperwatch.server.refusals import Reason
from hyperwatch.server.websocket import ServerWebSocket

__all__ = ["Connection"]

_AHEAD = "nothing at or behind that place has been written yet: it begins at the newest complete line"
_READERS = 4  # of one connection at once: each holds two files; the others wait as cursors
_READS = 32  # of one of them, 8 MiB, where others wait
_RETRY_S = 1.0
_REST_S = 0.05  # for a client without time for the head
_JOIN_US = 10  # to join the hub, and to leave it
_LET_GO_S = 10.0  # how long a message may take before the subscription's files are let go
_WAIT_S = 0.25  # for a head that has not got to where a subscription starts


class Connection:
    """A client's subscriptions.

    Args:
        socket: the way to the client; its owner closes it.
        streams: what it can subscribe to; a stream that the node begins to write is added.
        admission: what the client may take.
        client: for whom the work counts that is done for it; None: for its address.
    """

    def __init__(
        self, socket: ServerWebSocket, streams: Streams, admission: Admission | None = None, client: str | None = None
    ) -> None:
        self._admission = admission or Admission()
        self._socket = socket
        self._streams = streams
        self._subscriptions: dict[str, Subscription] = {}
        self._numbers = itertools.count(1)
        self._behind = trio.Event()
        self._over: list[Subscription] = []
        self._reading = 0  # how many have a reader
        self._crowded = False  # whether others wait for one
        self._turn = trio.Lock()
        self._share = self._admission.limits.client_past()
        self._words = self._admission.words.connection()
        self.allowance = self._admission.budget.open(client or socket.address, trio.current_time())
        """What it may have of the head's time: what is looked at for it counts, by the hub or here."""
        self.offer = socket.offer
        """How the hub pushes: without waiting, and without a way through here."""
        socket.when_rest_waits(self.wake)

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._socket.peer

    @property
    def subscriptions(self) -> Collection[Subscription]:
        """What it has asked for."""
        return self._subscriptions.values()

    @property
    def over_budget(self) -> bool:
        """Whether what is behind is served in turns, for the client asks for more of the head's time than is its share."""
        return any(found.why == "budget" and not found.live for found in self._subscriptions.values())

    @property
    def behind(self) -> bool:
        """Whether the client still has to be sent something that is in the log."""
        return self._socket.unfinished or any(not found.live for found in self._subscriptions.values())

    async def run(self) -> None:
        """Serves the client until it is gone. Raises ClientGoneError, in a group."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_behind)
                nursery.start_soon(self._let_files_go)
                await self._listen()
        finally:
            for subscription in [*self._subscriptions.values(), *self._over]:
                self._source(subscription).hub.leave(subscription)
                self._close_reader(subscription)
            # What ended the connection may keep it alive until cycles are collected, which is seldom: not so its filters.
            self._subscriptions.clear()
            self._over.clear()
            self._words.close()
            self.allowance.close()

    async def close(self, code: int, reason: str) -> bool:
        """The closing handshake; the caller bounds it. False where the client's socket was stalled: it was reset."""
        return await self._socket.close(code, reason)

    # What the hub and subscriptions see of a connection.

    def wake(self) -> None:
        """A subscription is behind, or part of a message is left."""
        self._behind.set()

    # What the client says.

    async def _listen(self) -> None:
        while True:
            await self._hear(await self._socket.receive())

    # A function of its own: a megabyte that a client once said goes when it has ended, not with the client's next word.
    async def _hear(self, message: str | bytes) -> None:
        try:
            if isinstance(message, bytes):
                raise binary()
            async with self._turn_for(request_us(message)):
                request = parse(message)
            if isinstance(request, Subscribe):
                self._charge(DOUBT_US * len(request.warnings), over=not self._rested)
            await self._obey(request)
        except ProtocolError as error:
            for answer in error.answers():
                await self._socket.send(answer)

    async def _obey(self, request: Auth | Ping | Subscribe | Unsubscribe) -> None:
        match request:
            case Ping():
                await self._socket.send(PONG)
            case Auth():
                await self._authorize(request)
            case Subscribe():
                await self._subscribe(request)
            case Unsubscribe():
                await self._unsubscribe(request)

    async def _authorize(self, request: Auth) -> None:
        """It is in already: no token is needed, or it came before."""
        if not self._admission.allows(request.token):
            self._admission.refusals[Reason.TOKEN] += 1
            raise unauthorized(sent=True)
        await self._socket.send(AUTHORIZED)

    async def _subscribe(self, request: Subscribe) -> None:
        if request.id in self._subscriptions or (request.id is None and self._equal(request.channel)):
            raise already_subscribed(request.echo)
        if len(self._subscriptions) >= self._admission.limits.subscriptions:
            self._admission.refusals[Reason.SUBSCRIPTIONS] += 1
            raise too_many_subscriptions(request, self._admission.limits.subscriptions)
        name = request.id or self._free_id(request.channel)
        source = self._streams.get(request.channel.stream)
        if source is None:
            raise not_written(request)
        try:
            self._words.take(name, request.channel)
        except TooManyWordsError as error:
            self._admission.refusals[Reason.WORDS] += 1
            raise too_many_words(error, request) from None
        try:
            start = await source.catch_up.start(request.start)
        except CursorError as error:
            self._words.give_back(name)
            raise bad_cursor(error, request) from error
        except (DataError, OSError) as error:
            self._words.give_back(name)
            raise files_away(error, request) from error
        warnings = (*request.warnings, *self._doubts(request.channel, source), *([_AHEAD] if start.ahead else []))
        if request.channel.resumable:
            cursor = start.cursor.encode()
            answer = acknowledgement("subscribe", request.echo, id=name, cursor=cursor, warnings=warnings)
        else:
            answer = acknowledgement("subscribe", request.echo, warnings=warnings)
        await self._socket.send(answer)
        for message in request.channel.snapshot:
            await self._socket.send(b"", message.tail)
        serial = -1 if start.serial is None else start.serial
        subscription = Subscription(
            request.channel, name, self, start.cursor, serial, gap=start.gap, told_s=trio.current_time()
        )
        self._subscriptions[name] = subscription
        self.wake()

    async def _unsubscribe(self, request: Unsubscribe) -> None:
        found = self._subscriptions.get(request.id) if request.id else self._equal(request.channel)
        if found is None:
            raise already_unsubscribed(request.echo)
        del self._subscriptions[found.id]
        self._words.give_back(found.id)
        found.over = True
        self._source(found).hub.leave(found)
        self._over.append(found)  # its reader may be at work: the serving task closes it
        self.wake()
        async with self._turn:  # a message of it that is being sent comes first, and none comes after
            await self._socket.send(acknowledgement("unsubscribe", request.echo))

    def _doubts(self, channel: Channel, source: StreamSource) -> list[str]:
        coins, noun = channel.coins, source.catch_up.log.stream.noun
        return doubtful_coins(coins, source.hub.coins(), noun) if coins else []

    def _free_id(self, channel: Channel) -> str:
        return channel.name or next(
            name for number in self._numbers if (name := str(number)) not in self._subscriptions
        )

    def _equal(self, channel: Channel | None) -> Subscription | None:
        return next((found for found in self._subscriptions.values() if found.channel == channel), None)

    def _source(self, subscription: Subscription) -> StreamSource:
        return self._streams[subscription.channel.stream]

    # The subscriptions that are behind.

    async def _serve_behind(self) -> None:
        while True:
            await self._behind.wait()
            self._behind = trio.Event()
            await self._socket.flush()
            while behind := [found for found in self._subscriptions.values() if not found.live]:
                idle = 0
                for subscription in behind:
                    if self._waits(subscription):
                        idle += 1
                    elif not subscription.over:
                        idle += not await self._step(subscription)
                self._close_over()
                if idle == len(behind):
                    await trio.sleep(_REST_S)
            self._close_over()

    def _waits(self, subscription: Subscription) -> bool:
        """Whether it has had all that there is, and its client has no time for the head: thousands may, so it is seen at once."""
        if subscription.serial != self._source(subscription).hub.ring.end_serial or subscription.reader is not None:
            return False
        if self._socket.unfinished or (subscription.channel.resumable and not subscription.arrived):
            return False
        return not self.allowance.rested(subscription.looked_us, trio.current_time())

    async def _step(self, subscription: Subscription) -> bool:
        """Brings one subscription a little forward: by a batch from the files, an entry from the ring, or to the head.

        Returns:
            False where it waits: for a reader of the files, or, having had all that there is, for time at the head.
        """
        hub = self._source(subscription).hub
        if subscription.reader is not None:
            await self._step_in_files(subscription, subscription.reader)
        elif subscription.serial < hub.ring.first_serial:
            return await self._open_files(subscription)
        elif (entry := hub.ring.at(subscription.serial)) is not None:
            await self._send_entry(subscription, entry)
            subscription.serial += 1
        elif subscription.channel.resumable and not subscription.arrived:
            subscription.arrived = True
            await self._tell(subscription, position_message("live", subscription.cursor, hub.last))
        elif self._socket.unfinished:
            await self._socket.flush()
        elif not subscription.over:
            # Else all that wait would come to the head when there is time for one, and be sent away again.
            self.allowance.pay(_JOIN_US + subscription.looked_us, trio.current_time())
            subscription.why = "past"
            hub.join(subscription)  # nothing was awaited since the look at the ring
        return True

    async def _open_files(self, subscription: Subscription) -> bool:
        """False where others read: it waits for its turn as a cursor, which holds no file."""
        subscription.arrived = False
        if self._reading >= _READERS:
            self._crowded = True
            await trio.lowlevel.checkpoint()
            return False
        try:
            subscription.reader = await self._source(subscription).catch_up.open(
                subscription.cursor, needs_keys=subscription.channel.needs_keys
            )
            subscription.reads = 0
            self._reading += 1
        except CursorError as error:
            await self._skip_to_ring(subscription, error)
        except (OSError, DataError) as error:
            await self._wait_for_files(subscription, error)
        return True

    async def _wait_for_files(self, subscription: Subscription, error: Exception) -> None:
        """The files are there and cannot be read now: tries again later, from the same place."""
        self._say("WARNING", "subscription {!r} of {} waits for its files: {}", subscription, error)
        self._close_reader(subscription)
        subscription.serial = -1
        await trio.sleep(_RETRY_S)

    def _say(self, level: Level, words: str, subscription: Subscription, error: Exception) -> None:
        self._admission.client_log.say(level, self._socket.address, words, subscription.id, self._socket.peer, error)

    async def _step_in_files(self, subscription: Subscription, reader: BatchReader) -> None:
        missing = subscription.gap or reader.gap
        subscription.gap = reader.gap = None
        if missing is not None:
            await self._tell_gap(subscription, missing)
            return
        hub, catch_up = (source := self._source(subscription)).hub, source.catch_up
        seam = hub.ring.boundary(reader.cursor, catch_up.log.rank)
        if seam is None:
            with trio.move_on_after(_WAIT_S):
                await hub.published()
            return
        until, serial = seam
        try:
            async with self._turn_for(READ_US):
                pass
            batch = await catch_up.next(reader, until, self._share)
            begun = any(place.offset or place.events_read for place in until.places)
            if batch is None and begun and not is_at_or_after(reader.cursor, until, catch_up.log.rank):
                what = f"the files end before {until.places[-1].file} at {until.places[-1].offset}"
                raise CursorError(what, "they were truncated or replaced")  # noqa: TRY301  as if the reader had said it
        except CursorError as error:
            await self._skip_to_ring(subscription, error)
            return
        except (OSError, DataError) as error:
            await self._wait_for_files(subscription, error)
            return
        if batch is None:
            if same_progress(reader.cursor, until):  # else it reads on, until it has read what the head has left out
                self._close_reader(subscription)
                subscription.cursor, subscription.serial = until, serial
            return
        for entry in batch.entries:
            await self._send_entry(subscription, subscription.complete(entry))
            if subscription.over:
                return
        subscription.cursor = batch.after
        self._take_turns(subscription)

    def _take_turns(self, subscription: Subscription) -> None:
        """Lets another have its reader, where one waits and it has read much."""
        subscription.reads += 1
        if self._crowded and subscription.reads >= _READS:
            self._crowded = False
            self._close_reader(subscription)
            subscription.serial = -1

    @property
    def _rested(self) -> bool:
        """Whether its client has time for the head."""
        return self.allowance.rested(0.0, trio.current_time())

    def _charge(self, work_us: float, *, over: bool) -> None:
        self._admission.turnstile.work(work_us, over=over)
        if not over:
            self.allowance.pay(work_us, trio.current_time())

    @asynccontextmanager
    async def _turn_for(self, work_us: float, *, over: bool = False) -> AsyncIterator[None]:
        """A turn for something that is to be done for the client and takes so long. In it nobody is waited for."""
        over = over or not self._rested
        turnstile = self._admission.turnstile
        async with turnstile.turn(self.allowance.client) if over else turnstile.short_cut():
            self._charge(work_us, over=over)
            yield

    async def _look(self, subscription: Subscription, entry: Entry) -> Sequence[Message]:
        """What a subscription hears of an entry. Who has no time left waits for a turn."""
        channel, over = subscription.channel, not self.allowance.rested(subscription.looked_us, trio.current_time())
        if over:
            subscription.why = "budget"  # until it is at the head again
        async with self._turn_for(0.0, over=over):  # what it takes is known in it
            took_us = channel.look_us(entry)
            brief = took_us < BRIEF_US
            messages = channel.messages(entry) if brief else await look(channel, entry, self._admission.turnstile.pause)
            took_us += made_us(messages)
            self._charge(took_us, over=over)
        subscription.looked_us = took_us
        return messages

    async def _skip_to_ring(self, subscription: Subscription, error: Exception) -> None:
        """What lies between cannot be read: says so, and goes on with what the ring holds."""
        self._say(
            "WARNING", "subscription {!r} of {} misses a part of the log, and is told so: {}", subscription, error
        )
        self._close_reader(subscription)
        before, ring = subscription.cursor, self._source(subscription).hub.ring
        subscription.cursor, subscription.serial = ring.start, ring.first_serial
        await self._tell_gap(subscription, Gap(subscription.channel.stream, PLACE_GONE, before, subscription.cursor))

    async def _tell_gap(self, subscription: Subscription, missing: Gap) -> None:
        if subscription.channel.resumable:
            await self._tell(subscription, gap(missing))

    async def _send_entry(self, subscription: Subscription, entry: Entry) -> None:
        messages = await self._look(subscription, entry)
        for message in messages:
            await self._send(subscription, message)
        subscription.cursor = entry.after
        if entry.paired is not None:
            subscription.held = entry.paired.after
        now = trio.current_time()
        if subscription.channel.resumable and now - subscription.told_s >= TELL_S:
            subscription.told_s = now
            await self._tell(subscription, position_message("cursor", entry.after, entry, behind=subscription.why))
        await trio.lowlevel.checkpoint()  # what is offered waits for nobody, and others want to run too

    async def _tell(self, subscription: Subscription, message: Message) -> None:
        """Sends what no entry holds."""
        await self._send(subscription, compressed(message, subscription.channel.compress))

    async def _send(self, subscription: Subscription, message: Message) -> None:
        """Sends at once what the socket has room for, and else waits: a client that is behind for once soon is not."""
        if not subscription.over and self.offer(*FrameCache(message).next(subscription.name, subscription.seq + 1)):
            subscription.seq += 1
            return
        async with self._turn:
            if not subscription.over:
                subscription.sending_s = trio.current_time()
                await self._socket.send(subscription.head(message), message.tail, binary=message.binary)
                subscription.sending_s = None
                subscription.seq += 1

    async def _let_files_go(self) -> None:
        """A client that takes nothing keeps no file open: pruned files are to leave the disk. Its cursor is enough."""
        while True:
            await trio.sleep(_LET_GO_S)
            long_ago_s = trio.current_time() - _LET_GO_S
            for subscription in self._subscriptions.values():
                slow = subscription.sending_s is not None and subscription.sending_s < long_ago_s
                if slow and subscription.reader is not None:
                    self._close_reader(subscription)  # it is not being read: its messages are being sent
                    subscription.serial = -1  # of no meaning while there is a reader

    def _close_over(self) -> None:
        while self._over:
            self._close_reader(self._over.pop())

    def _close_reader(self, subscription: Subscription) -> None:
        if subscription.reader is not None:
            subscription.reader.close()
            subscription.reader = None
            self._reading -= 1
