"""Places in the log. Pure.

A cursor names the place *after* the last event considered: up to two open hour files with an offset in each (a node may
still append to the old hour while it already writes the new one), and the block being written with the number of its
events that lie before the cursor.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Annotated

import attrs
import msgspec

from hyperwatch.errors import CursorError

__all__ = ["Cursor", "FilePlace", "covers"]

_VERSION = 1
_REMEDY = 'subscribe with a cursor that this service sent, or with "from": "earliest"'


@attrs.frozen
class FilePlace:
    """A place in one file."""

    file: str
    """The hour file's name in its log, as in `20260505/17`."""
    offset: int
    """Start of the next line, in bytes (of the uncompressed file)."""
    taken: int = 0
    """How many events of that line lie before the place."""


@attrs.frozen
class Cursor:
    """A place in the log of one stream in one layout."""

    directory: str
    """The stream's directory, as in `node_order_statuses_streaming`."""
    places: tuple[FilePlace, ...] = ()
    """Oldest file first. Empty: before everything."""
    block: int | str | None = None
    """The last block read, in the plain layout the last event time."""
    count: int = 0
    """How many events of that block lie before the cursor."""

    def encode(self) -> str:
        """The cursor as clients carry it: opaque, URL-safe, about 100 characters."""
        places = [(place.file, place.offset, place.taken) for place in self.places]
        wire = _Wire(_VERSION, self.directory, places, self.block, self.count)
        return base64.urlsafe_b64encode(msgspec.json.encode(wire)).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """The cursor that `encode` made.

        Raises:
            CursorError: where the text is none.
        """
        try:
            raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
            wire = _WIRE.decode(raw)
        except (UnicodeEncodeError, binascii.Error, msgspec.MsgspecError) as error:
            what = "the cursor is damaged"
            raise CursorError(what, _REMEDY) from error
        if wire.version != _VERSION:
            what = f"the cursor is of version {wire.version}, this service reads version {_VERSION}"
            raise CursorError(what, _REMEDY)
        places = tuple(FilePlace(*place) for place in wire.places)
        return cls(wire.directory, places, wire.block, wire.count)


_Natural = Annotated[int, msgspec.Meta(ge=0)]


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    directory: str
    places: Annotated[list[tuple[str, _Natural, _Natural]], msgspec.Meta(max_length=2)]
    block: int | str | None
    count: _Natural


_WIRE = msgspec.json.Decoder(_Wire)


def covers(later: Cursor, earlier: Cursor, rank: Callable[[str], int]) -> bool:
    """Whether everything before `earlier` is also before `later`.

    Args:
        later: a cursor at a line's start in each of its files.
        earlier: any cursor of the same log.
        rank: orders file names by time. A file older than all that `later` names is wholly before it, a newer one not
            at all.
    """
    known = {place.file: place for place in later.places}
    oldest = min((rank(name) for name in known), default=0)
    for place in earlier.places:
        match = known.get(place.file)
        if match is not None:
            if (match.offset, match.taken) < (place.offset, place.taken):
                return False
        elif rank(place.file) > oldest and (place.offset or place.taken):
            return False
    return True
