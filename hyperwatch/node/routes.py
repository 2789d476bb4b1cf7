"""What the feed routes events by, read from their bytes."""

from __future__ import annotations

import attrs
import msgspec

from hyperwatch.node.documents import again
from hyperwatch.node.keys import Keys, words_of
from hyperwatch.node.loose import UNREADABLE
from hyperwatch.node.streams import Stream

__all__ = ["UNREADABLE", "Routes", "of_document", "routes_of", "views_of"]


@attrs.define
class Routes:
    """The keys of some events."""

    keys: list[Keys] = attrs.Factory(list)
    """As many as events."""
    unrouted: list[int] = attrs.Factory(list)
    """The positions of those whose account, coin or status cannot be read, and is "" in their keys; of whom nothing can be,
    the keys are the stream's `nothing`."""
    texts: int = 0
    """How many texts they were read from: where to go on, as long as there are more."""

    def add(self, more: Routes) -> None:
        """Those of the events that follow."""
        if more.unrouted:
            self.unrouted += [len(self.keys) + position for position in more.unrouted]
        self.keys += more.keys
        self.texts += more.texts

    def part(self, start: int, stop: int) -> Routes:
        """Those of some of the events."""
        return Routes(
            self.keys[start:stop], [position - start for position in self.unrouted if start <= position < stop]
        )


def routes_of(stream: Stream, text: bytes) -> Routes:
    """Reads the keys of events that are JSON, with commas between them.

    An event without what its stream's events have is an event all the same, and goes to whoever asks for nothing but what
    it has: an exchange adds kinds of them without notice, and changes a key.
    """
    try:
        return Routes(stream.many.decode(b"[%b]" % text), texts=1)
    except UNREADABLE:
        routes = Routes(texts=1)
        for event in views_of(text):
            routes.add(_of_one(stream, event))
        return routes


def views_of(text: bytes) -> list[msgspec.Raw]:
    """Each of some events with commas between them."""
    return again(_VIEWS, b"[%b]" % text)


_VIEWS = msgspec.json.Decoder(list[msgspec.Raw])


def _of_one(stream: Stream, event: msgspec.Raw) -> Routes:
    try:
        return Routes([stream.keys.decode(event)])
    except UNREADABLE:
        keys = stream.loose(event)
    if keys is None or not any(words_of(keys)):
        return Routes([stream.nothing], [0])
    return _routed(keys)


def of_document(stream: Stream, line: bytes) -> Routes:
    """The keys of a plain line, each as far as it can be read. Raises ValueError where it is no event of the stream's shape."""
    keys = stream.loose(line)
    if keys is None:
        msg = f"no {stream.noun}"
        raise ValueError(msg)
    return _routed(keys)


def _routed(keys: Keys) -> Routes:
    return Routes([keys], [] if all(words_of(keys)) else [0])
