"""Places in the log. Pure.

A cursor names the place *after* the last event considered: the open hour files with an offset in each (a node may still
append to the old hour while it already writes the new one; files between two that are named have not been read), and the block being written with the number of its
events that lie before the cursor. A file is known by its name, by its first line, and by what stands before the place; where it is not
what it was, the block says where to go on: in another file, in another layout, on another node.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
from collections.abc import Callable
from typing import Annotated

import attrs
import msgspec

from hyperwatch.errors import CursorError
from hyperwatch.node.times import ms_of

__all__ = ["BEFORE_BYTES", "OPEN_FILES", "Block", "Cursor", "FilePosition", "is_at_or_after", "same_progress"]

Block = int | str
"""A block as far as a layout tells: its number, in the plain layout the time that its events carry."""

OPEN_FILES = 3
"""How many a cursor names at most: the newest, the one before it, and one that appears late between them."""

BEFORE_BYTES = 512
"""By so many bytes before a place it is recognised: a whole line of the plain layout, and the last events of any other."""

_VERSION = 2
_READ = (1, 2)  # a cursor of version 1 does not say what stands before its places
_REMEDY = 'subscribe with a cursor that this service sent, or with "from": "earliest"'


@attrs.frozen
class FilePosition:
    """A place in one file."""

    file: str
    """The hour file's name in its log, as in `20260505/17`."""
    offset: int
    """Start of the next line, in bytes (of the uncompressed file)."""
    events_read: int = 0
    """How many events of that line lie before the place."""
    fingerprint: str = ""
    """What its first line is known by; "" where that was not complete yet."""
    before: bytes = attrs.field(default=b"", eq=False, repr=False)
    """What stands right before the offset, at most BEFORE_BYTES; b"" where that is not at hand."""
    trace: str = attrs.field(default="", eq=False)
    """What a cursor's text says of that: how many bytes, in hex, and their digest. "" where it says nothing."""

    def is_behind(self, before: bytes) -> bool:
        """Whether the place is right behind these bytes, as far as it knows what stands before it."""
        if self.before:
            return before.endswith(self.before)
        return not self.trace or self.trace == _trace(before[-int(self.trace.partition("-")[0], 16) :])

    def traced(self) -> str:
        """What a cursor's text is to say of the bytes before."""
        return _trace(self.before) if self.before else self.trace


@attrs.frozen
class Cursor:
    """A place in the log of one stream in one layout."""

    directory: str
    """The stream's directory, as in `node_order_statuses_streaming`."""
    places: tuple[FilePosition, ...] = ()
    """Oldest file first. Empty: before everything."""
    block: int | None = None
    """The highest block read; None in the plain layout, and before everything."""
    time: str = ""
    """That block's time, as the node wrote it."""
    count: int = 0
    """How many events of that block lie before the cursor."""

    @property
    def key(self) -> Block | None:
        """The highest block, by number or, in the plain layout, by time; None before everything."""
        return self.block if self.block is not None else self.time or None

    def encode(self) -> str:
        """The cursor as clients carry it: opaque, URL-safe, 150 to 300 characters."""
        return self._text

    @functools.cached_property
    def _text(self) -> str:
        """Made once: every message of an entry carries it, however many filters want one of their own."""
        places = [
            _Place(each.file, each.offset, each.events_read, each.fingerprint, each.traced()) for each in self.places
        ]
        wire = _Wire(_VERSION, self.directory, places, self.block, self.time, self.count)
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
            ms_of(wire.time)  # every reader of a cursor may take it for a time
        except (UnicodeEncodeError, binascii.Error, msgspec.MsgspecError, ValueError) as error:
            what = "the cursor is damaged"
            raise CursorError(what, _REMEDY) from error
        if wire.version not in _READ:
            what = f"the cursor is of version {wire.version}, this service reads version {_VERSION}"
            raise CursorError(what, _REMEDY)
        places = tuple(
            FilePosition(each.file, each.offset, each.taken, each.head, trace=each.trace) for each in wire.places
        )
        return cls(wire.directory, places, wire.block, wire.time, wire.count)


_TIME = r"^([0-9]{1,14}|[ -~]*[^0-9][ -~]*)?\Z"  # milliseconds before the year 5138, or text; `ms_of` judges the rest
_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**60)]


class _Place(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    file: str
    offset: _Natural
    taken: _Natural
    head: str
    trace: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{1,3}-[0-9a-f]{12})?\Z")] = ""


def _trace(before: bytes) -> str:
    return f"{len(before):x}-{hashlib.blake2b(before, digest_size=6).hexdigest()}"


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    directory: str
    places: Annotated[list[_Place], msgspec.Meta(max_length=OPEN_FILES)]
    block: _Natural | None
    time: Annotated[str, msgspec.Meta(max_length=40, pattern=_TIME)]
    count: _Natural


_WIRE = msgspec.json.Decoder(_Wire)


def is_at_or_after(later: Cursor, earlier: Cursor, rank: Callable[[str], int]) -> bool:
    """Whether everything before `earlier` is also before `later`.

    Args:
        later: a cursor at a line's start in each of its files.
        earlier: any cursor of the same log.
        rank: orders file names by time. A file older than all that `later` names is wholly before it, a newer one not
            at all.
    """
    known = {place.file: place for place in later.places}
    named = {place.file for place in earlier.places}
    oldest = min((rank(name) for name in known), default=0)
    for place in earlier.places:
        match = known.get(place.file)
        if match is not None:
            if (match.offset, match.events_read) < (place.offset, place.events_read):
                return False
        elif rank(place.file) > oldest and (place.offset or place.events_read or not known.keys() & named):
            return False  # the start of a newer file lies behind all of the older ones
    return True


def same_progress(one: Cursor, other: Cursor) -> bool:
    """Whether the same has been read before two cursors of one place, as far as their highest block tells.

    Behind a node's restart it may not be: who began between what was written first and what was written again takes as
    new what others leave out.
    """
    return one.key == other.key and (one.key is None or one.count == other.count)
