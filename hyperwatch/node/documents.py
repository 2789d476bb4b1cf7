"""One document of each line, all of them parsed at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar, cast

import msgspec

__all__ = ["Several", "of_lines", "of_parts"]

_T = TypeVar("_T")
Several = msgspec.json.Decoder[list[_T | Literal[""]]]
"""Decodes an array of documents, between which there may be empty strings."""

_BETWEEN = b',"",'


def of_lines(decoder: Several[_T], piece: bytes) -> list[_T]:
    """What each line of a piece holds; raises ValueError where one holds nothing, or more or less than one document.

    What reads documents one after the other takes two on a line, one on two lines, and blank lines. So they are read as
    one array, in which `,"",` stands for each newline: between documents it is an element, nearly everywhere else it is
    an error, inside a string too. Where it is an element of another array, one is missing in this one.
    """
    array = b"[%b]" % piece[:-1].replace(b"\n", _BETWEEN)
    return _decoded(decoder, array, 1 + (len(array) - len(piece) - 1) // (len(_BETWEEN) - 1))


def of_parts(decoder: Several[_T], parts: Sequence[bytes | msgspec.Raw]) -> list[_T]:
    """The same of documents that are apart already."""
    return _decoded(decoder, b"[%b]" % _BETWEEN.join(parts), len(parts)) if parts else []


def _decoded(decoder: Several[_T], array: bytes, count: int) -> list[_T]:
    elements = decoder.decode(array)
    if len(elements) != 2 * count - 1 or not elements[1::2].count("") == elements.count("") == count - 1:
        msg = "not one document a line"
        raise ValueError(msg)
    return cast("list[_T]", elements[::2])
