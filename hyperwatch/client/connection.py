"""A client of the feed: connects once, subscribes, and iterates messages. It notices what is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import urlsplit

import attrs
import msgspec
import trio

from hyperwatch.client.wire import ClientSocket, ClosedError, RefusedError, open_client
from hyperwatch.errors import HyperwatchError, UsageError

__all__ = ["Answer", "Client", "FeedError", "LossError", "Message", "complete", "connect"]

_ANSWER_S = 30.0  # to a subscription; finding the start of one takes the service a moment on a slow disk
_NORMAL = 1000
_NUMBERED = frozenset(("orders", "live", "cursor", "gap"))


class FeedError(HyperwatchError):
    """The feed cannot be reached, closed the connection, or said what no feed says."""


class LossError(FeedError):
    """A message is missing: the numbers of a subscription have a hole."""


@attrs.frozen
class Message:
    """What the feed said."""

    channel: str
    data: bytes
    """JSON, as it came."""


@attrs.frozen
class Answer:
    """What the feed answered to a subscription."""

    id: str
    cursor: str
    """Where it starts; "" for official types."""
    warnings: tuple[str, ...]


class _Envelope(msgspec.Struct):
    channel: str
    data: msgspec.Raw
    cursor: str = ""
    warnings: tuple[str, ...] = ()


class _Numbered(msgspec.Struct):
    id: str
    seq: int
    cursor: str


class _Subscription(msgspec.Struct):
    id: str = ""


class _Subscribed(msgspec.Struct):
    subscription: _Subscription


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_DATA = msgspec.json.Decoder(_Numbered)


class Client:
    """A connection to a feed.

    Made by `connect`. One task at a time may subscribe or iterate. The iteration ends when the feed says goodbye with
    1000, as a recording does at its end.
    """

    def __init__(self, socket: ClientSocket, url: str) -> None:
        self._socket = socket
        self._url = url
        self._early: deque[Message] = deque()  # came while an answer was awaited; at most _ANSWER_S of them
        self._seqs: dict[str, int] = {}
        self._cursor = ""

    async def subscribe(self, subscription: Mapping[str, object]) -> Answer:
        """Subscribes, and waits for the answer.

        Args:
            subscription: as in the protocol, with its `type`.

        Raises:
            UsageError: where the feed refuses it.
            FeedError: where there is no answer.
        """
        document = msgspec.json.encode(subscription).decode()
        try:
            await self._socket.send(f'{{"method":"subscribe","subscription":{document}}}')
        except ClosedError as error:
            raise self._end(error) from error
        with trio.move_on_after(_ANSWER_S):
            while (envelope := await self._receive()) is not None:
                if envelope.channel == "error":
                    raise _refusal(envelope, document)
                if envelope.channel == "subscriptionResponse":
                    return self._begin(envelope)
                self._early.append(Message(envelope.channel, bytes(envelope.data)))
        what = f"{self._url} did not answer to a subscription"
        raise FeedError(what, "check that hyperwatch is what listens there")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message.

        Raises:
            FeedError: where the connection ended in any way but a normal one.
            LossError: where a message is missing.
        """
        if self._early:
            return self._early.popleft()
        envelope = await self._receive()
        if envelope is None:
            raise StopAsyncIteration
        return Message(envelope.channel, bytes(envelope.data))

    async def _receive(self) -> _Envelope | None:
        """The next message, its number checked; None after a normal end."""
        try:
            text = await self._socket.receive()
        except ClosedError as error:
            if error.code == _NORMAL:
                return None
            raise self._end(error) from error
        try:
            envelope = _ENVELOPE.decode(text)
            if envelope.channel in _NUMBERED:
                self._check(_DATA.decode(envelope.data))
        except msgspec.DecodeError as error:
            what = f"{self._url} sent what is no message of a feed ({error})"
            raise FeedError(what, "check that hyperwatch is what listens there") from error
        return envelope

    def _check(self, message: _Numbered) -> None:
        expected = self._seqs.get(message.id, 0) + 1
        if message.seq != expected:
            what = f"message {expected} of subscription {message.id!r} is missing: {message.seq} came in its place"
            raise LossError(what, self._resume())
        self._seqs[message.id] = message.seq
        self._cursor = message.cursor

    def _begin(self, envelope: _Envelope) -> Answer:
        try:
            name = msgspec.json.decode(envelope.data, type=_Subscribed).subscription.id
        except msgspec.DecodeError as error:
            what = f"{self._url} answered to a subscription what no feed answers ({error})"
            raise FeedError(what, "check that hyperwatch is what listens there") from error
        self._seqs[name] = 0
        self._cursor = self._cursor or envelope.cursor
        return Answer(name, envelope.cursor, envelope.warnings)

    def _end(self, error: ClosedError) -> FeedError:
        how = "broke off" if error.code == 1006 else "was closed by the service"  # noqa: PLR2004  RFC 6455: no closing frame
        reason = f": {error.reason}" if error.reason else ""
        return FeedError(f"the connection to {self._url} {how} (code {error.code}{reason})", self._resume())

    def _resume(self) -> str:
        """What to do next."""
        if not self._cursor:
            return "connect again"
        return f"connect again from where it ended (--from, or from in a subscription): {self._cursor}"


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Client]:
    """Connects to a feed, and yields the connection: to subscribe, then to iterate.

    Args:
        url: `ws://HOST:PORT/ws`, or what `complete` completes.

    Raises:
        UsageError: for what is no such address.
        FeedError: where nobody answers, or somebody refuses.
    """
    url = complete(url)
    opening = True
    try:
        async with open_client(url) as socket:
            opening = False
            yield Client(socket, url)
    except RefusedError as error:
        what = f"cannot connect to {url} ({error})"
        raise FeedError(what, "check the address, and that hyperwatch run listens there") from error
    except ValueError as error:
        if not opening:
            raise
        raise _no_address(url) from error  # a host's name that IDNA refuses


def complete(text: str) -> str:
    """The URL that is meant: `HOST:PORT` is a feed's at that port, and a URL without a path has the feed's.

    Raises:
        UsageError: for what is no WebSocket URL.
    """
    url = text if "://" in text else f"ws://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port  # raises ValueError for what is no port
    except ValueError as error:
        raise _no_address(text) from error
    plain = url.isascii() and url.split() == [url]
    if not plain or not parts.hostname or parts.scheme not in ("ws", "wss") or (port is None and url != text):
        raise _no_address(text)
    return url if parts.path or parts.query else f"{url}/ws"


def _no_address(text: str) -> UsageError:
    return UsageError(f"{text!r} is no address of a feed", "write it as ws://127.0.0.1:8000/ws or 127.0.0.1:8000")


def _refusal(envelope: _Envelope, document: str) -> UsageError:
    """The feed's own words but for the subscription, which it repeats."""
    text = msgspec.json.decode(envelope.data)
    return UsageError("the feed refused the subscription", str(text).replace(f" {document}", ""))
