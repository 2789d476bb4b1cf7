"""How fast the past may be read: the node and the live feed come first."""

from __future__ import annotations

import math

import trio

__all__ = ["RateLimiter"]

_BURST_S = 0.05  # what an idle one may have saved up: one read at once, no second's worth that delays the live feed


class RateLimiter:
    """Lets through at most so many bytes a second, in the order in which they ask.

    Args:
        bytes_s: the rate; math.inf lets everything through.
    """

    def __init__(self, bytes_s: float = math.inf) -> None:
        self._bytes_s = bytes_s
        self._free_s = -math.inf
        self._turn = trio.Lock()

    async def take(self, size_bytes: int) -> None:
        """Returns when so many bytes may pass. Cancelled while it waits, it has let nothing through."""
        async with self._turn:
            free_s = max(self._free_s, trio.current_time() - _BURST_S) + size_bytes / self._bytes_s
            await trio.sleep_until(free_s)
            self._free_s = free_s
