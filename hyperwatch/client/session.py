"""Connections one after the other, for as long as it takes: whatever breaks one, the next goes on where it ended."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus

import attrs
import trio

from hyperwatch.client.connection import Connection, End, Socket
from hyperwatch.client.errors import FeedError, again
from hyperwatch.client.subscription_state import SubscriptionState
from hyperwatch.client.websocket import RefusedError

__all__ = ["Opener", "Session"]

# Full jitter: a wait is anything up to twice the bound of the one before. A service that restarts is back within a
# second or two; a thousand clients should not all ask in the same instant, nor keep asking a machine that is down.
_FIRST_S = 0.2
_LONGEST_S = 10.0
_DOUBLINGS = 10  # more than it takes to the longest
_STEADY_S = 10.0  # a connection that lasted so long had nothing wrong when it began
_ADDRESS = "check the address, and that hyperwatch run listens there"
_TOKEN = "give a token of that service: hyperwatch watch takes it from HYPERWATCH_TOKEN, and connect as token="  # noqa: S105  no token
_TRY_AGAIN = frozenset((408, 425, 429))  # of HTTP's 4xx, those that time heals

Opener = Callable[[str, str | None], AbstractAsyncContextManager[Socket]]


@attrs.define(eq=False)
class Session:
    """What one `connect` owns.

    Args:
        url: of the feed.
        token: None for none.
        opener: connects.
        on_break: is told why a connection ended, before the next is tried.
    """

    url: str
    _token: str | None = attrs.field(repr=False)
    _opener: Opener
    _on_break: Callable[[FeedError], object]
    _tracks: list[SubscriptionState] = attrs.field(factory=list)
    _names: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    _stirred: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _serving: trio.CancelScope | None = None
    _reached: bool = False
    _left: bool = False
    _over: FeedError | None = None

    async def run(  # noqa: ASYNC128  `_connect` calls started()
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves the subscriptions until the feed says goodbye, or refuses for good.

        Args:
            task_status: is told when there is a connection.

        Raises:
            FeedError: where there is none the first time.
        """
        tries = 0
        while True:
            began_s = trio.current_time()
            end, live = await self._connect(task_status.started)
            if end.error is not None and not self._reached:
                raise end.error
            if end.error is None or end.final:
                self._finish(end.error)
                return
            for track in self._tracks:
                track.broken()
            self._on_break(end.error)
            if live or trio.current_time() - began_s >= _STEADY_S:
                tries = 0
            await trio.sleep(random.uniform(0, min(_LONGEST_S, _FIRST_S * 2 ** min(tries, _DOUBLINGS))))
            tries += 1

    def add(self, track: SubscriptionState) -> None:
        """A subscription to be served.

        Raises:
            FeedError: where the connection is over.
        """
        if self._over is not None:
            raise again(self._over)
        self._tracks[:] = [*(other for other in self._tracks if not other.done), track]

    def notify(self) -> None:
        """A subscription has something to ask for, or was taken from."""
        self._stirred.unpark_all()

    def leave(self) -> bool:
        """Ends it: whoever still iterates is told so.

        Returns:
            Whether it ends by itself now, with a goodbye; else nothing is open, and it is to be cancelled.
        """
        self._left = True
        self._finish(FeedError(f"the connection to {self.url} was closed on this side", "connect again"))
        if self._serving is None:
            return False
        self._serving.cancel("the client leaves")
        return True

    async def _connect(self, reached: Callable[[], None]) -> tuple[End, bool]:
        """One connection; how it ended, and whether a subscription was live on it."""
        try:
            async with self._opener(self.url, self._token) as socket:
                if not self._reached:
                    self._reached = True
                    reached()
                connection = Connection(socket, self.url, self._tracks, map(str, self._names), self._stirred)
                with trio.CancelScope() as self._serving:
                    end = await connection.run()
                self._serving = None
                return (End() if self._left else end), connection.live
        except RefusedError as error:
            what = f"cannot connect to {self.url} ({error})"
            remedy = _TOKEN if error.status == HTTPStatus.UNAUTHORIZED else _ADDRESS
            final = error.status is not None and 400 <= error.status < 500 and error.status not in _TRY_AGAIN  # noqa: PLR2004  HTTP's own
            return End(FeedError(what, remedy), final), False

    def _finish(self, error: FeedError | None) -> None:
        self._over = self._over or error or FeedError(f"the feed at {self.url} has ended", "connect again")
        for track in self._tracks:
            if error is None:
                track.finish()
            else:
                track.fail(error)
