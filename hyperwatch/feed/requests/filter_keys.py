"""The filter keys of `orders` as clients write them, and what may not be what a client meant. Pure."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NewType

import attrs

from hyperwatch.feed.filters.order_details import ORDER_TYPES, TIFS, OrderConditions
from hyperwatch.feed.filters.orders import CLASSES, Filter, OrderFilter, any_of
from hyperwatch.node.statuses import OFFICIAL, StatusClass, class_of_name

__all__ = ["FILTERS", "WORDS", "DecimalText", "FilterKeys", "few", "filter_of", "near", "suggestions"]

WORDS = 20_000  # in one list: as many addresses are 900 KB, and a message may have 1020 KiB
FILTERS = 16  # in one subscription: each of them may look at every event
_STATUSES = 100
_FEW = 5  # of several alike; an answer is no place for thousands
_LOOKED_AT = 100  # words of a kind that are compared with those known, which takes 0.05 ms each
_NAME_CHARACTERS = 64  # no name that is known is longer

DecimalText = NewType("DecimalText", str)


@attrs.frozen(kw_only=True)
class FilterKeys:
    """The keys of one filter."""

    coins: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    statuses: tuple[str, ...] | None = None
    notStatuses: tuple[str, ...] | None = None
    sides: tuple[str, ...] | None = None
    minNotional: DecimalText | None = None
    minPx: DecimalText | None = None
    maxPx: DecimalText | None = None
    tifs: tuple[str, ...] | None = None
    orderTypes: tuple[str, ...] | None = None
    oids: tuple[int, ...] | None = None
    cloids: tuple[str, ...] | None = None
    builders: tuple[str, ...] | None = None

    def given(self) -> list[str]:
        """The keys that are there."""
        return [field.name for field in attrs.fields(FilterKeys) if getattr(self, field.name) is not None]

    def filter(self) -> OrderFilter:
        """The filter that is meant.

        Raises:
            ValueError: where a word is none of its kind, or there are too many.
        """
        named = len(self.statuses or ()) + len(self.notStatuses or ())
        if named > _STATUSES:
            msg = f"{named} statuses are named: at most {_STATUSES} may be, and classes name many at once"
            raise ValueError(msg)
        details = OrderConditions.of(
            min_notional=self.minNotional,
            min_px=self.minPx,
            max_px=self.maxPx,
            tifs=self.tifs,
            order_types=self.orderTypes,
            oids=self.oids,
            cloids=self.cloids,
            builders=self.builders,
        )
        return OrderFilter.of(self.coins, self.users, self.statuses, self.notStatuses, self.sides, details=details)


def filter_of(alone: FilterKeys, several: Sequence[FilterKeys] | None) -> Filter:
    """What a subscription wants by the filter keys that stand in it, or by the objects of its `filters`.

    Raises:
        ValueError: where it has both, or an object is empty or wrong, which is named.
    """
    if several is None:
        return alone.filter()
    if given := alone.given():
        msg = f"{given[0]} stands beside filters: put it into each of their objects, or leave filters out"
        raise ValueError(msg)
    return any_of(_named(number, words) for number, words in enumerate(several))


def _named(number: int, words: FilterKeys) -> OrderFilter:
    if not words.given():
        msg = f"filters[{number}] is empty, which every event matches; leave filters out to mean all"
        raise ValueError(msg)
    try:
        return words.filter()
    except ValueError as error:
        msg = f"filters[{number}]: {error}"
        raise ValueError(msg) from None


def suggestions(filters: Sequence[FilterKeys]) -> tuple[str, ...]:
    """Warnings for words that may be typing errors: at most a few of each kind.

    Statuses that no table has and no ending tells; of tifs and order types, which nobody can list, only those that are
    written nearly as one that is known.
    """
    statuses = [
        word
        for words in filters
        for word in (*(words.statuses or ()), *(words.notStatuses or ()))
        if word not in CLASSES and class_of_name(word) is StatusClass.UNKNOWN
    ]
    tifs = _nearly(TIFS, [word for words in filters for word in words.tifs or ()])
    types = _nearly(ORDER_TYPES, [word for words in filters for word in words.orderTypes or ()])
    return (
        *few(list(dict.fromkeys(statuses)), partial(_doubt, "status", [*OFFICIAL, *CLASSES])),
        *few(tifs, partial(_doubt, "tif", TIFS)),
        *few(types, partial(_doubt, "order type", ORDER_TYPES)),
    )


def few(things: Sequence[str], say: Callable[[str], str]) -> tuple[str, ...]:
    """What there is to say of the first of several things, and how many more there are."""
    more = [f"and {len(things) - _FEW} more"] if len(things) > _FEW else []
    return (*map(say, things[:_FEW]), *more)


def near(word: str, known: Iterable[str]) -> str | None:
    """The known word that is written nearly as another; case does not matter. None where none is."""
    if len(word) > _NAME_CHARACTERS:
        return None
    lower = {each.lower(): each for each in known}
    return next((lower[like] for like in difflib.get_close_matches(word.lower(), lower, 1)), None)


def _nearly(known: Sequence[str], words: Sequence[str]) -> list[str]:
    """The words that are written nearly as one that is known, and are not known."""
    different = itertools.islice(dict.fromkeys(words), _LOOKED_AT)
    return [word for word in different if word not in known and near(word, known)]


def _doubt(kind: str, known: Sequence[str], word: str) -> str:
    like = near(word, known)
    return f"no {kind} {word[:_NAME_CHARACTERS]!r} is known" + (f"; did you mean {like!r}?" if like else "")
