"""What a program holds of a feed: `connect`, and subscriptions to iterate."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Generic, Literal, Self, TypeVar, cast, overload

import attrs
import msgspec
import trio
from loguru import logger

from hyperwatch.client.errors import FeedError
from hyperwatch.client.messages import (
    BookDiffs,
    Fills,
    Gap,
    GapError,
    Interrupted,
    Live,
    Message,
    Orders,
    Position,
    message_of,
)
from hyperwatch.client.session import Session
from hyperwatch.client.subscription_state import Answer, Item, SubscriptionState
from hyperwatch.client.url import normalize_url
from hyperwatch.client.websocket import open_client
from hyperwatch.errors import UsageError

__all__ = ["Feed", "OnGap", "Start", "Subscription", "connect"]

M_co = TypeVar("M_co", covariant=True)

Start = str | Mapping[str, int]
"""A cursor, "earliest", {"time": ms} or {"block": number}."""

OnGap = Literal["yield", "raise"]

_RAW = ("subscriptionResponse", "gap")  # where a raw iteration has to look


class Subscription(AsyncIterator[M_co], Generic[M_co]):
    """A subscription, to be iterated: by one task or by several, which then share its messages.

    Made by Feed. It asks the feed when it is iterated for the first time. Every message is handed out exactly once,
    whatever happens to connections and however an iteration was cancelled. It holds no file and no task, so one that is
    left in the middle may simply be forgotten; `aclose` tells the feed to send no more of it.
    """

    def __init__(self, track: SubscriptionState, read: Callable[[Item], M_co], session: Session) -> None:
        self._track = track
        self._read = read
        self._session = session
        self._added = False
        self._cursor = ""

    @property
    def cursor(self) -> str:
        """Behind the newest message that was handed out: what to give as `start` to go on there, in another process too.

        "" before the feed has answered, and always for official types.
        """
        return self._cursor or (self._track.answer.cursor if self._track.answer else "")

    async def begin(self) -> Answer:
        """Asks the feed for it where that has not been done, and waits for the answer.

        Raises:
            UsageError: where the feed refuses it.
            FeedError: where there is no feed any more.
        """
        self._add()
        return await self._track.begin()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> M_co:
        """The next message. The iteration ends when the feed says goodbye with 1000, as a recording does at its end.

        Raises:
            UsageError: where the feed refuses the subscription.
            FeedError: where the connection ended and another one would end alike.
            LossError: where a message is missing, and again when it was asked for again.
            GapError: where gaps are to be raised.
        """
        self._add()
        item = await self._track.take()
        if item is None:
            raise StopAsyncIteration
        self._cursor = item.cursor
        return self._read(item)

    async def aclose(self) -> None:
        """Ends it: nothing is handed out any more."""
        self._track.close()
        await trio.lowlevel.checkpoint()

    def _add(self) -> None:
        if not self._added:
            self._session.add(self._track)
            self._added = True


class Feed:
    """A feed, over one connection at a time.

    Made by `connect`. Filters are named as in the protocol, or in Python's way: `notStatuses` and `not_statuses` are the
    same. Those that are None count as left out.

    Every kind of subscription takes:
        start: where to begin; None for the newest complete line.
        on_gap: "yield" hands gaps out as messages, "raise" raises them as GapError. Either way iterating goes on behind.
        raw: whether to hand out the messages' bytes, untouched, instead of objects.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @overload
    def orders(
        self, *, start: Start | None = None, on_gap: OnGap = "yield", raw: Literal[False] = False, **filters: object
    ) -> Subscription[Orders | Live | Position | Gap]: ...
    @overload
    def orders(
        self, *, start: Start | None = None, on_gap: OnGap = "yield", raw: Literal[True], **filters: object
    ) -> Subscription[bytes]: ...
    def orders(
        self, *, start: Start | None = None, on_gap: OnGap = "yield", raw: bool = False, **filters: object
    ) -> Subscription[Orders | Live | Position | Gap] | Subscription[bytes]:
        """Order events, all or those that match."""
        found = self._ours("orders", start, on_gap, filters, raw=raw)
        return cast("Subscription[Orders | Live | Position | Gap] | Subscription[bytes]", found)

    @overload
    def fills(
        self, *, start: Start | None = None, on_gap: OnGap = "yield", raw: Literal[False] = False, **filters: object
    ) -> Subscription[Fills | Live | Position | Gap]: ...
    @overload
    def fills(
        self, *, start: Start | None = None, on_gap: OnGap = "yield", raw: Literal[True], **filters: object
    ) -> Subscription[bytes]: ...
    def fills(
        self, *, start: Start | None = None, on_gap: OnGap = "yield", raw: bool = False, **filters: object
    ) -> Subscription[Fills | Live | Position | Gap] | Subscription[bytes]:
        """Fills, all or those that match."""
        found = self._ours("fills", start, on_gap, filters, raw=raw)
        return cast("Subscription[Fills | Live | Position | Gap] | Subscription[bytes]", found)

    @overload
    def book_diffs(
        self, *, start: Start | None = None, on_gap: OnGap = "yield", raw: Literal[False] = False, **filters: object
    ) -> Subscription[BookDiffs | Live | Position | Gap]: ...
    @overload
    def book_diffs(
        self, *, start: Start | None = None, on_gap: OnGap = "yield", raw: Literal[True], **filters: object
    ) -> Subscription[bytes]: ...
    def book_diffs(
        self, *, start: Start | None = None, on_gap: OnGap = "yield", raw: bool = False, **filters: object
    ) -> Subscription[BookDiffs | Live | Position | Gap] | Subscription[bytes]:
        """Changes of the book, all or those that match."""
        found = self._ours("bookDiffs", start, on_gap, filters, raw=raw)
        return cast("Subscription[BookDiffs | Live | Position | Gap] | Subscription[bytes]", found)

    @overload
    def subscribe(
        self, subscription: Mapping[str, object], *, on_gap: OnGap = "yield", raw: Literal[False] = False
    ) -> Subscription[Message]: ...
    @overload
    def subscribe(
        self, subscription: Mapping[str, object], *, on_gap: OnGap = "yield", raw: Literal[True]
    ) -> Subscription[bytes]: ...
    def subscribe(
        self, subscription: Mapping[str, object], *, on_gap: OnGap = "yield", raw: bool = False
    ) -> Subscription[Message] | Subscription[bytes]:
        """Any subscription, as the protocol has it, with its `type`.

        Official types have no cursor. Where one was made anew, after a connection broke or because it was taken from too
        slowly, Interrupted comes first (raw: the new acknowledgement), and is raised as a GapError where gaps are.
        """
        return self._subscription(dict(subscription), on_gap, raw=raw)

    def _ours(
        self, kind: str, start: object, on_gap: OnGap, filters: Mapping[str, object], *, raw: bool
    ) -> Subscription[Message] | Subscription[bytes]:
        given = {_wire_name(key): value for key, value in filters.items()} | {"from": start}
        wanted = {"type": kind} | {key: value for key, value in given.items() if value is not None}
        return self._subscription(wanted, on_gap, raw=raw)

    def _subscription(
        self, wanted: Mapping[str, object], on_gap: OnGap, *, raw: bool
    ) -> Subscription[Message] | Subscription[bytes]:
        for key, remedy in (
            ("id", "subscriptions are told apart by themselves"),
            ("compress", "this client reads text"),
        ):
            if key in wanted:
                what = f"{key} in a subscription of the client library"
                raise UsageError(what, f"leave it out: {remedy}")
        track = SubscriptionState(wanted, self._session.notify)
        reader = _Reader(on_gap == "raise")
        if raw:
            return Subscription(track, reader.bytes_of, self._session)
        return Subscription(track, reader.message_of, self._session)


@attrs.frozen
class _Reader:
    raises: bool
    """Whether gaps are raised."""

    def message_of(self, item: Item) -> Message:
        try:
            message = message_of(item.channel, item.data)
        except msgspec.DecodeError as error:
            what = f"a message of {item.channel!r} is not what it should be ({error})"
            raise FeedError(what, "take it raw, and bring client and service to one version") from error
        if self.raises and isinstance(message, Gap | Interrupted):
            raise GapError(message)
        return message

    def bytes_of(self, item: Item) -> bytes:
        if self.raises and item.channel in _RAW:
            self.message_of(item)  # raises
        return item.text


@asynccontextmanager
async def connect(
    url: str, *, token: str | None = None, on_break: Callable[[FeedError], object] | None = None
) -> AsyncIterator[Feed]:
    """Connects to a feed, and keeps it connected until the block ends.

    A connection that breaks later is made again, with growing waits, for as long as it takes: bound that by a cancel
    scope of your own. Subscriptions go on where they were.

    Args:
        url: `ws://HOST:PORT/ws`, or what `complete` completes.
        token: where the service asks for one.
        on_break: is told why a connection ended, before the next is tried; by default that is a warning in the log.

    Raises:
        UsageError: for what is no such address, or no token.
        FeedError: where nobody answers the first time, or somebody refuses.
    """
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        what = "the token is empty, or has signs that no token has"
        raise UsageError(what, "give it as it stands in the service's file, without spaces around it")
    session = Session(normalize_url(url), token, open_client, on_break or _warn)
    failure: Exception | None = None  # raised outside the nursery, which would wrap it in a group
    try:
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(session.run)
                yield Feed(session)
            except Exception as error:  # noqa: BLE001  it goes on below
                failure = error
            finally:
                if not session.leave():
                    nursery.cancel_scope.cancel("there is nobody to say goodbye to")
    finally:
        if failure is not None:
            raise failure


def _warn(error: FeedError) -> None:
    logger.warning("{}; connecting again", error.what)


def _wire_name(name: str) -> str:
    """`not_statuses` is `notStatuses` on the wire."""
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)
