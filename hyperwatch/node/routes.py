"""What the feed routes events by, read from their bytes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import msgspec

from hyperwatch.node.keys import Keys
from hyperwatch.node.streams import Stream

__all__ = ["UNREADABLE", "Routes", "routes_of"]

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding raises for bytes that are not what was expected."""


@attrs.define
class Routes:
    """The keys of some events."""

    keys: list[Keys] = attrs.Factory(list)
    """As many as events."""
    unrouted: list[int] = attrs.Factory(list)
    """The positions of those that cannot be routed; their keys are the stream's `nothing`."""

    def add(self, more: Routes) -> None:
        """Those of the events that follow."""
        if more.unrouted:
            self.unrouted += [len(self.keys) + position for position in more.unrouted]
        self.keys += more.keys

    def part(self, start: int, stop: int) -> Routes:
        """Those of some of the events."""
        return Routes(
            self.keys[start:stop], [position - start for position in self.unrouted if start <= position < stop]
        )


def routes_of(stream: Stream, events: Sequence[bytes | msgspec.Raw]) -> Routes:
    """Reads the keys of events that are JSON.

    An event without what its stream's events have is an event all the same, and goes to whoever asks for none of it: an
    exchange adds kinds of them without notice.
    """
    try:
        return Routes(stream.many.decode(b"[%b]" % b",".join(events)))
    except UNREADABLE:
        routes = Routes()
        for event in events:
            routes.add(_of_one(stream, event))
        return routes


def _of_one(stream: Stream, event: bytes | msgspec.Raw) -> Routes:
    try:
        return Routes([stream.keys.decode(event)])
    except UNREADABLE:
        return Routes([stream.nothing], [0])
