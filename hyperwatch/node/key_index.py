"""What the feed routes events by, read from their bytes."""

from __future__ import annotations

import attrs
import msgspec

from hyperwatch.node.json_lines import again
from hyperwatch.node.keys import Keys, words_of
from hyperwatch.node.lenient_keys import UNREADABLE
from hyperwatch.node.streams import Stream

__all__ = ["UNREADABLE", "KeyIndex", "of_document", "routes_of", "views_of"]


@attrs.define
class KeyIndex:
    """The keys of some events."""

    keys: list[Keys] = attrs.Factory(list)
    """As many as events."""
    unkeyed: list[int] = attrs.Factory(list)
    """The positions of those whose account, coin or status cannot be read, and is "" in their keys; of whom nothing can be,
    the keys are the stream's `nothing`."""
    texts: int = 0
    """How many texts they were read from: where to go on, as long as there are more."""

    def add(self, more: KeyIndex) -> None:
        """Those of the events that follow."""
        if more.unkeyed:
            self.unkeyed += [len(self.keys) + position for position in more.unkeyed]
        self.keys += more.keys
        self.texts += more.texts

    def part(self, start: int, stop: int) -> KeyIndex:
        """Those of some of the events."""
        return KeyIndex(
            self.keys[start:stop], [position - start for position in self.unkeyed if start <= position < stop]
        )


def routes_of(stream: Stream, text: bytes) -> KeyIndex:
    """Reads the keys of events that are JSON, with commas between them.

    An event without what its stream's events have is an event all the same, and goes to whoever asks for nothing but what
    it has: an exchange adds kinds of them without notice, and changes a key.
    """
    try:
        return KeyIndex(stream.many.decode(b"[%b]" % text), texts=1)
    except UNREADABLE:
        routes = KeyIndex(texts=1)
        for event in views_of(text):
            routes.add(_of_one(stream, event))
        return routes


def views_of(text: bytes) -> list[msgspec.Raw]:
    """Each of some events with commas between them."""
    return again(_VIEWS, b"[%b]" % text)


_VIEWS = msgspec.json.Decoder(list[msgspec.Raw])


def _of_one(stream: Stream, event: msgspec.Raw) -> KeyIndex:
    try:
        return KeyIndex([stream.keys.decode(event)])
    except UNREADABLE:
        keys = stream.loose(event)
    if keys is None or not any(words_of(keys)):
        return KeyIndex([stream.nothing], [0])
    return _routed(keys)


def of_document(stream: Stream, line: bytes) -> KeyIndex:
    """The keys of a plain line, each as far as it can be read. Raises ValueError where it is no event of the stream's shape."""
    keys = stream.loose(line)
    if keys is None:
        msg = f"no {stream.noun}"
        raise ValueError(msg)
    return _routed(keys)


def _routed(keys: Keys) -> KeyIndex:
    return KeyIndex([keys], [] if all(words_of(keys)) else [0])
