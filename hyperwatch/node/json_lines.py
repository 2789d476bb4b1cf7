"""One document of each line, all of them parsed at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, TypeVar, cast

import msgspec

__all__ = ["BETWEEN", "Lines", "again", "of_lines"]

BETWEEN: Final = "\x7f"
_T = TypeVar("_T")
# `Literal` takes no name, so that the character stands here twice.
Lines = msgspec.json.Decoder[list[_T | Literal["\x7f"]]]
"""Decodes an array of documents, between which there may be BETWEEN."""

_SEPARATOR = b',"%b",' % BETWEEN.encode()


def of_lines(decoder: Lines[_T], piece: bytes) -> list[_T]:
    """What each line of a piece holds; raises ValueError where one holds nothing, or more or less than one document.

    What reads documents one after the other takes two on a line, one on two lines, and blank lines. So they are read as
    one array, in which a string that no line holds stands for each newline: between documents it is an element, nearly
    everywhere else it is an error, inside a string too. Where it is an element of another array, one is missing in this.
    """
    array = b"[%b]" % piece[:-1].replace(b"\n", _SEPARATOR)
    newlines = (len(array) - len(piece) - 1) // (len(_SEPARATOR) - 1)
    elements = decoder.decode(array)
    whole = len(elements) == 2 * newlines + 1 and elements[1::2].count(BETWEEN) == newlines
    # Where the piece itself holds none, there are no more than newlines. A line alone may hold one, but not be one.
    if not whole or (_holds_between(piece) if newlines else elements[0] == BETWEEN):
        msg = "not one document a line"
        raise ValueError(msg)
    return cast("list[_T]", elements[::2])


def again(decoder: msgspec.json.Decoder[_T], data: bytes | msgspec.Raw) -> _T:
    """Decodes what was decoded before, in whole or as part of something else: what could be read then can be read now."""
    # Until Python 3.12 the parser counts its depth together with that of all calls around it: what is nested 960 levels deep
    # could be read in a worker and cannot be read further up. A thread that was just started has no calls around it. To
    # raise the limit of the interpreter instead was tried: it is one for all threads, of which the first to lower it again
    # made the others fail. To refuse deep events when they are first decoded needs a look at every byte, which took as long
    # as decoding them.
    try:
        return decoder.decode(data)
    except RecursionError:
        with ThreadPoolExecutor(1) as fresh:
            return fresh.submit(decoder.decode, data).result()


def _holds_between(piece: bytes) -> bool:
    """As it is, or spelled as an escape."""
    return BETWEEN.encode() in piece or (b"\\" in piece and rb"\u007f" in piece.lower())
