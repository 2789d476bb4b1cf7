"""One connection: asks for what is wanted, and gives each subscription its messages.

Two tasks: one asks, one thing at a time; one reads. A subscription that nobody takes from holds the reader up only
while nobody else waits for it. Where somebody does, it is parked: the feed is told to end it, and it goes on from its
cursor when it has been taken from. So no order in which a program iterates its subscriptions can make them wait for
each other.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Protocol

import attrs
import msgspec
import trio

from hyperwatch.client.errors import FeedError, LossError
from hyperwatch.client.subscription_state import Answer, Item, Stage, SubscriptionState
from hyperwatch.client.websocket import ClosedError
from hyperwatch.errors import UsageError

__all__ = ["Connection", "End", "Socket"]

_ANSWER_S = 30.0  # to a subscription; finding the start of one takes the service a moment on a slow disk
_QUIET_S = 20.0  # without a word, then it is asked for one; a connection that is gone may not say so
_NORMAL = 1000
_BROKE = 1006  # RFC 6455: no closing frame
# Where asking again is answered alike: what was sent is not understood, too much, or not allowed (44xx: as HTTP's 4xx).
_FINAL = frozenset((1002, 1003, 1007, 1008, 1009, 1010, *range(4400, 4500)))
_NUMBERED = frozenset(("orders", "fills", "bookDiffs", "live", "cursor", "gap"))


class Socket(Protocol):
    """A WebSocket connection. Both raise ClosedError."""

    async def send(self, text: str) -> None: ...
    async def receive(self) -> bytes: ...


@attrs.frozen
class End:
    """How a connection ended."""

    error: FeedError | None = None
    """None: as it should."""
    final: bool = True
    """Whether another connection would end alike."""


@attrs.frozen
class _Asked:
    """What the feed was asked and has not answered yet."""

    method: str
    track: SubscriptionState
    document: str
    answered: trio.Event = attrs.field(factory=trio.Event)


# The node's files cannot be read just now. The place is kept, and asked for until they can: who waits for ever has a scope of his own.
_AWAY = "files-away"
_AGAIN_S = 1.0


class _Envelope(msgspec.Struct):
    channel: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    cursor: str = ""
    warnings: tuple[str, ...] = ()
    user: str = ""
    code: str = ""


class _Done(msgspec.Struct):
    """What an acknowledgement says was carried out."""

    method: str = ""


class _Numbered(msgspec.Struct):
    id: str
    seq: int
    cursor: str


class _About(msgspec.Struct):
    """Whose an official message is."""

    user: str = ""
    coin: str = ""


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_DONE = msgspec.json.Decoder(_Done)
_DATA = msgspec.json.Decoder(_Numbered)
_ABOUT = msgspec.json.Decoder(_About | list[_About])


class Connection:
    """Serves subscriptions on one socket until it ends.

    Args:
        socket: open; its owner closes it.
        url: of the feed, for messages.
        tracks: the subscriptions; may grow.
        names: what the feed is to call them.
        stirred: unparked when one of them has something to ask for, or was taken from.
    """

    def __init__(
        self,
        socket: Socket,
        url: str,
        tracks: Sequence[SubscriptionState],
        names: Iterator[str],
        stirred: trio.lowlevel.ParkingLot,
    ) -> None:
        self._socket = socket
        self._url = url
        self._tracks = tracks
        self._names = names
        self._stirred = stirred
        self._asked: _Asked | None = None
        self._over = End()
        self.live = False
        """Whether a subscription has reached the head."""

    async def run(self) -> End:
        """Serves until the connection ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, nursery.cancel_scope)
            self._over = await self._read()
            nursery.cancel_scope.cancel("the connection has ended")
        return self._over

    # What is asked.

    async def _ask(self, scope: trio.CancelScope) -> None:
        while True:
            self._asked = asked = self._next()
            if asked is None:
                with trio.move_on_at(min((track.again_s for track in self._wanted()), default=math.inf)):
                    await self._stirred.park()
                continue
            try:
                await self._socket.send(f'{{"method":"{asked.method}","subscription":{asked.document}}}')
            except ClosedError:
                return  # the reader hears of it too, and says why
            with trio.move_on_after(_ANSWER_S) as waiting:
                await asked.answered.wait()
            if waiting.cancelled_caught:
                break
        what = f"{self._url} did not answer to a subscription within {_ANSWER_S:g} s"
        self._over = End(FeedError(what, "check that hyperwatch is what listens there"), final=False)
        scope.cancel("no answer")

    def _next(self) -> _Asked | None:
        """What has to be asked next. Ending comes first: of an official type the feed holds one alike at most."""
        for track in self._tracks:
            if track.unwanted:
                return _Asked("unsubscribe", track, track.farewell())
        for track in self._wanted():
            if track.again_s <= trio.current_time():
                return _Asked("subscribe", track, track.request(next(self._names)))
        return None

    def _wanted(self) -> list[SubscriptionState]:
        return [track for track in self._tracks if track.stage is Stage.WANTED]

    def _answer(self, asked: _Asked, envelope: _Envelope, text: bytes) -> None:
        if asked.method == "unsubscribe":
            asked.track.held = False
        elif envelope.channel == "error" and envelope.code == _AWAY:
            asked.track.again_s = trio.current_time() + random.uniform(0.5, 1.5) * _AGAIN_S
        elif envelope.channel == "error":
            asked.track.fail(_refusal(envelope, asked.document))
        else:
            answer = Answer(envelope.cursor, envelope.warnings)
            asked.track.answered(answer, Item(envelope.channel, text, bytes(envelope.data)))
        self._asked = None
        asked.answered.set()

    # What is read.

    async def _read(self) -> End:
        try:
            while True:
                text = await self._receive()
                if text is None:
                    what = f"{self._url} has said nothing for {2 * _QUIET_S:g} s"
                    return End(FeedError(what, "connect again"), final=False)
                envelope = _ENVELOPE.decode(text)
                if envelope.channel not in ("subscriptionResponse", "error"):
                    await self._hand_over(envelope, text)
                elif self._is_echo(envelope):
                    continue
                elif self._asked is not None:
                    self._answer(self._asked, envelope, text)
                else:
                    what = f"{self._url} said: {bytes(envelope.data).decode(errors='replace')}"
                    return End(FeedError(what, "connect again"), final=False)
        except ClosedError as error:
            return self._closed(error)
        except LossError as error:
            return End(error, final=False)
        except msgspec.DecodeError as error:
            what = f"{self._url} sent what is no message of a feed ({error})"
            return End(FeedError(what, "check that hyperwatch is what listens there"))

    def _is_echo(self, envelope: _Envelope) -> bool:
        """Whether it ends what was not asked to end: it follows an error, for clients that look for nothing else."""
        if envelope.channel == "error" or (self._asked is not None and self._asked.method == "unsubscribe"):
            return False
        return _DONE.decode(envelope.data).method == "unsubscribe"

    async def _receive(self) -> bytes | None:
        """The next message; None where none comes, though one was asked for."""
        for ping in ("", '{"method":"ping"}'):
            with trio.move_on_after(_QUIET_S):
                if ping:
                    await self._socket.send(ping)
                return await self._socket.receive()
        return None

    async def _hand_over(self, envelope: _Envelope, text: bytes) -> None:
        channel, data = envelope.channel, bytes(envelope.data)
        if channel in _NUMBERED:
            numbered = _DATA.decode(data)
            for track in self._open(ours=True):
                if track.id == numbered.id:
                    track.count(numbered.seq)
                    self.live = self.live or channel == "live"
                    await self._put(track, Item(channel, text, data, numbered.cursor))
                    break
        elif channel != "pong":
            for track in self._open(ours=False):
                if _concerns(track, envelope):
                    await self._put(track, Item(channel, text, data))

    def _open(self, *, ours: bool) -> list[SubscriptionState]:
        return [track for track in self._tracks if track.stage is Stage.OPEN and track.ours is ours]

    async def _put(self, track: SubscriptionState, item: Item) -> None:
        """Gives a subscription its message, and waits until it has room, unless others wait."""
        track.put(item)
        while track.full and track.stage is Stage.OPEN:
            if any(other.waits for other in self._tracks):
                track.park()
                self._stirred.unpark_all()
            else:
                await self._stirred.park()

    def _closed(self, error: ClosedError) -> End:
        if error.code == _NORMAL:
            return End()
        how = "broke off" if error.code == _BROKE else "was closed by the service"
        reason = f": {error.reason}" if error.reason else ""
        what = f"the connection to {self._url} {how} (code {error.code}{reason})"
        return End(FeedError(what, "connect again"), final=error.code in _FINAL)


def _concerns(track: SubscriptionState, envelope: _Envelope) -> bool:
    """Whether an official message is one of this subscription's: where it has a user or a coin, that says so."""
    if envelope.channel != track.wanted.get("type"):
        return False
    try:
        found = _ABOUT.decode(envelope.data)
    except msgspec.ValidationError:
        found = []  # of a shape that names nobody
    about = (found[0] if found else _About()) if isinstance(found, list) else found
    user, coin = envelope.user or about.user, about.coin
    wished_user, wished_coin = str(track.wanted.get("user", user)), track.wanted.get("coin", coin)
    return (not user or user.lower() == wished_user.lower()) and (not coin or coin == wished_coin)


def _refusal(envelope: _Envelope, document: str) -> UsageError:
    """The feed's own words but for the subscription, which it repeats."""
    text = msgspec.json.decode(envelope.data)
    return UsageError("the feed refused the subscription", str(text).replace(f" {document}", ""))
