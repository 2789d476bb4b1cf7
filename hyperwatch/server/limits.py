"""What clients may take of the service: places, messages, open files. Pure, but for the process's own limit."""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address, IPv6Network, ip_address

import attrs

from hyperwatch.feed.budget import DEFAULT_SHARE
from hyperwatch.runtime.rate_limit import RateLimiter
from hyperwatch.server.refusals import Reason, RefusedError

__all__ = [
    "DEFAULT_CATCH_UP_MB_S",
    "DEFAULT_CLIENT_CATCH_UP_MB_S",
    "DEFAULT_CLIENT_WORDS",
    "DEFAULT_CONNECTIONS",
    "DEFAULT_CONNECTIONS_PER_ADDRESS",
    "DEFAULT_SUBSCRIPTIONS",
    "DEFAULT_WORDS",
    "Limits",
    "Slots",
    "TokenBucket",
    "address_group",
    "limit_for",
    "open_files",
    "raise_open_files",
    "sockets_end",
]

DEFAULT_CONNECTIONS = (
    1000  # a message at the head costs about 8 us a client: 15 blocks a second to all are an eighth of a core
)
DEFAULT_CONNECTIONS_PER_ADDRESS = 200  # the official API takes 10
DEFAULT_SUBSCRIPTIONS = 1000  # in one connection; the official API takes as many from one address

DEFAULT_WORDS = 120_000  # in the filters of all clients: about 25 MB
DEFAULT_CLIENT_WORDS = 40_000  # of one connection: two of the longest lists that there may be

DEFAULT_CATCH_UP_MB_S = (
    32.0  # twice what a node writes on a busy day; at twice this the live p99 grew by 7 ms on two cores
)
DEFAULT_CLIENT_CATCH_UP_MB_S = 16.0

_MB = 1e6
_FILES_SHARE = 4  # one part in so many of what the process may open is for the node's files
_NETWORK_BITS = 64


@attrs.frozen
class Limits:
    """What an operator may set."""

    connections: int = DEFAULT_CONNECTIONS
    connections_per_address: int = DEFAULT_CONNECTIONS_PER_ADDRESS
    subscriptions: int = DEFAULT_SUBSCRIPTIONS
    words: int = DEFAULT_WORDS
    """What the filters of all connections together may hold, as `word_lists` counts."""
    client_words: int = DEFAULT_CLIENT_WORDS
    """The same for one connection."""
    catch_up_mb_s: float = DEFAULT_CATCH_UP_MB_S
    """What all clients together may have read from the files, in MB a second; math.inf for no limit."""
    client_catch_up_mb_s: float = DEFAULT_CLIENT_CATCH_UP_MB_S
    """The same for one of them."""
    client_share: float = DEFAULT_SHARE
    """What one client may have of the event loop's time, as `budget` counts; math.inf for no limit."""

    def catch_up(self) -> RateLimiter:
        """For all clients together."""
        return RateLimiter(self.catch_up_mb_s * _MB)

    def client_past(self) -> RateLimiter:
        """For one of them."""
        return RateLimiter(self.client_catch_up_mb_s * _MB)


class Slots:
    """Counts who is inside.

    Args:
        total: at most so many.
        per_address: at most so many of one address group.
        full: why one more is refused, and what it is told.
        crowded: the same, where it is one of too many from its address group.
    """

    def __init__(self, total: int, per_address: int, full: tuple[Reason, str], crowded: tuple[Reason, str]) -> None:
        self._total = total
        self._per_address = per_address
        self._full = full
        self._crowded = crowded
        self._inside: Counter[str | None] = Counter()  # groups that have nobody inside are not in it
        self.count = 0

    @contextmanager
    def place(self, group: str | None) -> Iterator[None]:
        """A place for as long as the context lasts. Raises RefusedError, 503 or 429.

        Args:
            group: who takes it; None: many may, so that only the total counts.
        """
        if self.count >= self._total:
            raise RefusedError(self._full[0], 503, self._full[1])
        if group is not None and self._inside[group] >= self._per_address:
            raise RefusedError(self._crowded[0], 429, self._crowded[1])
        self._inside[group] += 1
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            self._inside[group] -= 1
            if not self._inside[group]:
                del self._inside[group]


class TokenBucket:
    """Holds at most `burst`, is full at first, and fills at `rate` a second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._seen_s = float("-inf")

    def take(self, amount: float, now_s: float) -> bool:
        """Takes it out; False where there is less."""
        if now_s > self._seen_s:
            self._level = min(self._burst, self._level + self._rate * (now_s - self._seen_s))
            self._seen_s = now_s
        if amount > self._level:
            return False
        self._level -= amount
        return True


def address_group(host: str) -> str:
    """For whom connections from an address are counted: the address itself; of IPv6 the /64, which any host has whole."""
    address = ip_address(host.partition("%")[0])
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((address, _NETWORK_BITS), strict=False))


def raise_open_files() -> None:
    """Lets the process open as many files and sockets as the system allows it: soft limits of 1,024 are common."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems take no more than a limit of their own; then it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_files() -> int:
    """How many the process has now; the three that every process has where the system does not say."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  one of them lists
    except OSError:
        return 3


def limit_for(sockets: int) -> int:
    """The limit of open files that keeps so many sockets, with the part that is the node's files'."""
    return -(-sockets * _FILES_SHARE // (_FILES_SHARE - 1))


def sockets_end() -> int | None:
    """The descriptor from which on no socket is kept; None: there is no limit.

    A new descriptor is the lowest that is free: when a socket gets one from here on, all below are taken, and the rest
    is for the node's files.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft - soft // _FILES_SHARE
