"""What each client may have of the head's time. Pure: who asks says what time it is.

No client delays another: one that asks for more than its share of the event loop's time leaves the head, and is served
behind it with the time that is left (`turnstile`). Time is counted by `cost`.

A connection has a little time to itself, which a client with many of them cannot take from it. What goes over that is
taken from what the client's connections have together. Of that a tenth is the client's alone, enough for the whole feed at
a peak; the rest comes out of what all clients have together, so that ten that ask for much do not delay the others either.
"""

from __future__ import annotations

import math

import attrs

__all__ = ["DEFAULT_SHARE", "Allowance", "Budget"]

DEFAULT_SHARE = 0.1  # of the event loop's time, for the connections of one client together
_BURST_S = 0.1  # of that share may be used at once: 10 ms
_ALONE = 0.1  # of the share, which no other client can take
_TOGETHER = 1.5  # shares, for all clients: what is counted is a third to a half of what the loop then has to do. Tried: 4 shares made others 2 s late
_OWN = 0.03  # what a connection has to itself, as a part of that share: 3 ms a second. The whole feed takes as much on a busy day
_OWN_BURST_S = 1.0
_SMALL_S = _OWN_BURST_S / 2  # of it
_RESTED = 0.5  # how much of a burst must be there again before a client comes back to the head: else it came and went
_DEBT_S = 2.0  # what is owed longer is forgiven: it was done before anybody could say no
_LEAST_SHARE = 1e-6  # less is nothing, and not to be divided by
_PRUNE = 1000  # clients that are remembered; those who have gone and owe nothing are then forgotten


@attrs.define(eq=False)
class _Account:
    """Time that fills up at a rate, kept as one number: before which moment there is none.

    What is taken may be more than there is, where nobody asked before: the rest is owed.
    """

    share: float
    """Seconds of the head's time that come in a second; math.inf for no limit."""
    burst_s: float
    """How long it takes to fill up."""
    until_s: float = -math.inf
    us_s: float = attrs.field(init=False, default=attrs.Factory(lambda self: 1e-6 / self.share, takes_self=True))
    """How long a microsecond takes to come."""

    def lacks(self, work_us: float, now_s: float) -> bool:
        """Whether there is not so much."""
        takes_s = work_us * self.us_s
        return self.until_s + takes_s >= now_s or takes_s >= self.burst_s

    def take(self, work_us: float, now_s: float) -> None:
        """Takes it, whether it is there or not."""
        until_s = max(self.until_s, now_s - self.burst_s) + work_us * self.us_s
        self.until_s = min(until_s, now_s + _DEBT_S)

    def filled(self, part: float, now_s: float) -> bool:
        """Whether as much as that part of the burst is there."""
        return self.until_s <= now_s - part * self.burst_s


@attrs.define(eq=False)
class _Client:
    """The connections of one client."""

    account: _Account
    alone: _Account
    connections: int = 0


@attrs.define(eq=False)
class Allowance:
    """What one connection may have. Made by `Budget.open`."""

    client: str
    _own: _Account
    _common: _Account
    _alone: _Account
    _everybody: _Account
    _budget: Budget

    # The hub calls these for every client of every message: no call of theirs is worth its name.

    def pay(self, work_us: float, now_s: float) -> None:
        """Takes what was done for it: of its own where that is enough, else of what its client has in common."""
        self._budget.paid_us += work_us
        if self._budget.alone:
            return
        own = self._own
        takes_s = work_us * own.us_s  # as in `lacks`
        if own.until_s + takes_s < now_s and takes_s < _OWN_BURST_S:
            own.until_s = max(own.until_s, now_s - _OWN_BURST_S) + takes_s
        else:
            self._common.take(work_us, now_s)
            (self._everybody if self._alone.lacks(work_us, now_s) else self._alone).take(work_us, now_s)

    def modest(self, work_us: float, now_s: float) -> bool:
        """Whether what it has to itself is enough by far: then it is served before those who need more."""
        takes_s = work_us * self._own.us_s
        return takes_s < _SMALL_S and self._own.until_s + takes_s <= now_s - _SMALL_S

    def over(self, work_us: float, now_s: float) -> bool:
        """Whether that is more than it may have now."""
        own = self._own
        takes_s = work_us * own.us_s
        if takes_s < _SMALL_S and own.until_s + takes_s <= now_s - _SMALL_S:  # as in `modest`, which most are
            return False
        if not own.lacks(work_us, now_s) or self._budget.alone:
            return False
        return self._common.lacks(work_us, now_s) or self._shared_lacks(work_us, now_s)

    def rested(self, work_us: float, now_s: float) -> bool:
        """Whether it may come to the head, or back to it, where it asks for so much at once."""
        own, common = self._own, self._common
        shared = not common.lacks(work_us, now_s) and not self._shared_lacks(work_us, now_s)
        return (
            (shared and common.filled(_RESTED, now_s))
            or (own.filled(1.0, now_s) and not own.lacks(work_us, now_s))
            or self._budget.alone
        )

    def _shared_lacks(self, work_us: float, now_s: float) -> bool:
        return self._alone.lacks(work_us, now_s) and self._everybody.lacks(work_us, now_s)

    @property
    def spent_s(self) -> float:
        """How much of what its client has in common is used up: the more, the later. To be compared."""
        return self._common.until_s

    def close(self) -> None:
        """The connection is over. What it owes its client owes."""
        self._budget.leave(self.client)


class Budget:
    """The accounts of all clients.

    Args:
        share: of the head's time, for one client; math.inf for no limit.
    """

    def __init__(self, share: float = DEFAULT_SHARE) -> None:
        self._share = max(share, _LEAST_SHARE)
        self._clients: dict[str, _Client] = {}
        self._everybody = _Account(self._share * _TOGETHER, _BURST_S)
        self._connections = 0
        self.paid_us = 0.0
        """What all of them have had."""

    def open(self, client: str, now_s: float) -> Allowance:
        """For a new connection of a client."""
        if len(self._clients) >= _PRUNE:
            self._clients = {name: each for name, each in self._clients.items() if self._remembered(each, now_s)}
        made = _Client(_Account(self._share, _BURST_S), _Account(self._share * _ALONE, _OWN_BURST_S))
        known = self._clients.setdefault(client, made)
        known.connections += 1
        self._connections += 1
        # Of a client that has just used all it has, a new connection has nothing: else to connect again would be worth it.
        own = _Account(self._share * _OWN, _OWN_BURST_S, min(known.account.until_s, now_s))
        return Allowance(client, own, known.account, known.alone, self._everybody, self)

    def leave(self, client: str) -> None:
        """A connection of it is over."""
        self._clients[client].connections -= 1
        self._connections -= 1

    @property
    def alone(self) -> bool:
        """Whether there is one connection only: then nobody is delayed, and it may have all."""
        return self._connections <= 1

    @staticmethod
    def _remembered(client: _Client, now_s: float) -> bool:
        return client.connections > 0 or not client.account.filled(1.0, now_s)
