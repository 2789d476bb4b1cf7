"""Which order events a subscription wants. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Sequence
from typing import Self, cast

import attrs

from hyperwatch.feed.cost import ASK_US, DETAIL_US, EVENT_US
from hyperwatch.feed.filters.order_details import OrderConditions, address, refuse_empty
from hyperwatch.feed.filters.word_lists import WordList, shared
from hyperwatch.feed.routing import RoutingKeys, few, interest_in, positions_for
from hyperwatch.node.keys import OrderKeys
from hyperwatch.node.slices import BlockSlice
from hyperwatch.node.statuses import StatusClass, class_of_name

__all__ = ["CLASSES", "AnyOf", "Filter", "OrderFilter", "Statuses", "any_of", "doubtful_coins"]

CLASSES: dict[str, StatusClass] = {kind.value: kind for kind in StatusClass}

_PART = 100  # events whose details are looked up between pauses: a sixth of a millisecond
_VERDICTS = 256  # statuses that a filter remembers: 29 are known, and foreign data may have any number

_SIDES = {"Bid": "B", "Ask": "A"}  # as old files spell them


@attrs.frozen
class Statuses:
    """A set of statuses, by name and by class."""

    names: frozenset[str]
    classes: frozenset[StatusClass]
    _verdicts: dict[str, bool | None] = attrs.field(init=False, eq=False, repr=False, factory=dict)
    """Of the statuses that occurred: kept here, so that they go with the filter."""

    @classmethod
    def of(cls, words: Iterable[str]) -> Self:
        """From words of a subscription. `rejected` is a status and a class that holds it: the class is meant."""
        words = frozenset(words)
        return cls(shared(words.difference(CLASSES)), frozenset(CLASSES[word] for word in words.intersection(CLASSES)))

    def select(self, slice_: BlockSlice, numbers: Sequence[int], *, wanted: bool) -> Sequence[int]:
        """Those of a run's events whose status is among them; where `wanted` is false all others.

        What a status says of its order does not depend on the event, but for a rejection: each status is judged once.
        """
        by_status = slice_.statuses
        known = self._verdicts
        try:
            verdicts = {status: known[status] for status in by_status}
        except KeyError:
            verdicts = self._judge(by_status)
        late = slice_.late_rejections if None in verdicts.values() else frozenset()
        late_wanted = (StatusClass.REMOVED in self.classes) is wanted  # of two classes, of which one is among them
        if len(numbers) < slice_.count:
            keys = cast("Sequence[OrderKeys]", slice_.keys)
            return [
                number
                for number in numbers
                if (
                    (number in late) is late_wanted
                    if (verdict := verdicts[keys[number].status]) is None
                    else verdict is wanted
                )
            ]
        parts = [positions for status, positions in by_status.items() if verdicts[status] is wanted]
        doubtful = [positions for status, positions in by_status.items() if verdicts[status] is None]
        if late:
            parts += [[number for number in some if (number in late) is late_wanted] for some in doubtful]
        elif not late_wanted:
            parts += doubtful
        return parts[0] if len(parts) == 1 else sorted(itertools.chain.from_iterable(parts))

    def _judge(self, statuses: Iterable[str]) -> dict[str, bool | None]:
        """Says of statuses whether they are among them, and remembers it."""
        verdicts = {status: self._verdict(status) for status in statuses}
        if len(self._verdicts) + len(verdicts) > _VERDICTS:
            self._verdicts.clear()
        if len(verdicts) <= _VERDICTS:
            self._verdicts.update(verdicts)
        return verdicts

    def _verdict(self, status: str) -> bool | None:
        """Whether a status is among them; None where that depends on the event."""
        if status in self.names:
            return True
        named = class_of_name(status)
        if named is StatusClass.REJECTED and (named in self.classes) is not (StatusClass.REMOVED in self.classes):
            return None
        return named in self.classes


@attrs.frozen
class OrderFilter:
    """What must hold of an event, all of it. None asks nothing. Equal filters share their messages."""

    coins: frozenset[str] | None = None
    """Exact names; case matters."""
    dexes: tuple[str, ...] = ()
    """Beside `coins`, every coin that begins with one of these, as in `xyz:`."""
    users: frozenset[str] | None = None
    """Addresses in lower case."""
    statuses: Statuses | None = None
    not_statuses: Statuses | None = None
    sides: frozenset[str] | None = None
    """`B`, `A` or both."""
    details: OrderConditions | None = None
    """What is looked up in the event's bytes, where all else holds."""
    brief: bool = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(lambda self: self._is_brief(), takes_self=True)
    )
    """Whether it takes next to no time, whatever it is asked about."""

    @classmethod
    def of(
        cls,
        coins: Sequence[str] | None = None,
        users: Sequence[str] | None = None,
        statuses: Sequence[str] | None = None,
        not_statuses: Sequence[str] | None = None,
        sides: Sequence[str] | None = None,
        *,
        details: OrderConditions | None = None,
    ) -> Self:
        """From the words of a subscription or of a command line: `*` is every coin, `xyz:*` every coin of a dex.

        Raises:
            ValueError: where a `*` stands anywhere else, an address or a side is none, or a list is empty.
        """
        refuse_empty(coins=coins, users=users, statuses=statuses, notStatuses=not_statuses, sides=sides)
        exact, dexes = _patterns(coins)
        return cls(
            coins=exact,
            dexes=dexes,
            users=None if users is None else shared(address(user) for user in users),
            statuses=None if statuses is None else Statuses.of(statuses),
            not_statuses=None if not_statuses is None else Statuses.of(not_statuses),
            sides=None if sides is None else frozenset(_side(side) for side in sides),
            details=details,
        )

    @property
    def everything(self) -> bool:
        """Whether no event can fail it."""
        return self == _EVERYTHING

    @property
    def interest(self) -> RoutingKeys | None:
        """What must occur for any event to match; None for anything."""
        return interest_in(self.coins, self.dexes, self.users)

    @property
    def lists(self) -> Iterable[WordList]:
        """Its lists of words."""
        if self.coins is not None:
            yield self.coins
        if self.dexes:
            yield frozenset(self.dexes)
        if self.users is not None:
            yield self.users
        for statuses in (self.statuses, self.not_statuses):
            if statuses is not None:
                yield statuses.names
        if self.details is not None:
            yield from self.details.lists

    def select(self, slice_: BlockSlice) -> Sequence[int]:
        """The positions of a run's events that match: each condition is asked of those that all before it left."""
        chosen = self._routed(slice_)
        return chosen if self.details is None or not chosen else self._detailed(self.details, slice_, chosen)

    def select_in_parts(self, slice_: BlockSlice) -> Generator[None, None, Sequence[int]]:
        """The same, with pauses."""
        chosen = self._routed(slice_)
        yield
        if self.details is None or not chosen:
            return chosen
        found = list[int]()
        for at in range(0, len(chosen), _PART):
            found += self._detailed(self.details, slice_, chosen[at : at + _PART])
            yield
        return found

    def look_us(self, slice_: BlockSlice) -> float:
        """What `select` takes, in microseconds, about."""
        if self.brief:
            return ASK_US
        if self.details is not None:
            judge_us = EVENT_US * slice_.count if self._judges else 0.0
            return ASK_US + judge_us + DETAIL_US * len(self._routed(slice_))
        return ASK_US + EVENT_US * slice_.count

    def _is_brief(self) -> bool:
        routes = self.coins is not None or self.users is not None
        return self.details is None and few(self.coins, self.dexes, self.users) and (routes or not self._judges)

    @property
    def _judges(self) -> bool:
        """Whether it looks at sides or statuses."""
        return not (self.sides is None and self.statuses is None and self.not_statuses is None)

    def _routed(self, slice_: BlockSlice) -> Sequence[int]:
        """Those that match by what all events are routed by."""
        chosen = positions_for(slice_, self.coins, self.dexes, self.users)
        if not chosen:
            return chosen
        if self.sides is not None:
            keys = cast("Sequence[OrderKeys]", slice_.keys)
            chosen = [number for number in chosen if _side_of(keys[number]) in self.sides]
        if self.statuses is not None:
            chosen = self.statuses.select(slice_, chosen, wanted=True)
        if self.not_statuses is not None:
            chosen = self.not_statuses.select(slice_, chosen, wanted=False)
        return chosen

    @staticmethod
    def _detailed(details: OrderConditions, slice_: BlockSlice, chosen: Sequence[int]) -> list[int]:
        """Those of some whose details match."""
        hold = details.hold
        return [number for number, event in zip(chosen, slice_.some(chosen), strict=True) if hold(event)]


def _side_of(event: OrderKeys) -> str:
    side = event.order.side
    return _SIDES.get(side, side)


_EVERYTHING = OrderFilter()
_DOUBTS = 5


@attrs.frozen
class AnyOf:
    """At least one of several filters, none of which wants everything. Made by `any_of`."""

    filters: frozenset[OrderFilter]

    everything = False
    brief = False

    @property
    def coins(self) -> frozenset[str]:
        """The exact names in any of them."""
        return frozenset().union(*(each.coins or () for each in self.filters))

    @property
    def interest(self) -> RoutingKeys | None:
        """What must occur for any event to match any of them; None for anything."""
        return RoutingKeys.in_any(each.interest for each in self.filters)

    @property
    def lists(self) -> Iterable[WordList]:
        """Those of all of them."""
        return itertools.chain.from_iterable(each.lists for each in self.filters)

    def select(self, slice_: BlockSlice) -> list[int]:
        """The positions of a run's events that match, each once."""
        return sorted(set().union(*(each.select(slice_) for each in self.filters)))

    def select_in_parts(self, slice_: BlockSlice) -> Generator[None, None, Sequence[int]]:
        """The same, with pauses."""
        found = set[int]()
        for each in self.filters:
            found |= set((yield from each.select_in_parts(slice_)))
        return sorted(found)

    def look_us(self, slice_: BlockSlice) -> float:
        """What `select` takes, in microseconds, about."""
        return sum(each.look_us(slice_) for each in self.filters)


Filter = OrderFilter | AnyOf


def any_of(filters: Iterable[OrderFilter]) -> Filter:
    """The filter that wants what at least one of some does: equal ones are one, and beside everything nothing counts."""
    different = frozenset(filters)
    if _EVERYTHING in different:
        return _EVERYTHING
    return next(iter(different)) if len(different) == 1 else AnyOf(different)


def doubtful_coins(wanted: frozenset[str] | None, seen: frozenset[str], noun: str, where: str = "lately") -> list[str]:
    """Warnings for coins of a filter that did not occur there, which may be typing errors: case matters."""
    missing = sorted((wanted or frozenset()) - seen) if seen else []
    spelled = {coin.lower(): coin for coin in seen}
    suggestions = [
        f"no {noun} of {coin[:64]!r} was seen {where}"
        + (f"; did you mean {spelled[coin.lower()]!r}? Case matters" if coin.lower() in spelled else "")
        for coin in missing[:_DOUBTS]
    ]
    return suggestions if len(missing) <= _DOUBTS else [*suggestions, f"and {len(missing) - _DOUBTS} more coins"]


def _patterns(coins: Sequence[str] | None) -> tuple[frozenset[str] | None, tuple[str, ...]]:
    if coins is None or "*" in coins:
        return None, ()
    dexes = {coin[:-1] for coin in coins if coin.endswith(":*")}
    exact = shared(coin for coin in coins if not coin.endswith(":*"))
    for coin in [*exact, *dexes]:
        if "," in coin:
            msg = f"{coin[:64]!r} is no coin: a comma stands in it; name each coin by itself"
            raise ValueError(msg)
        if "*" in coin or not coin.strip(":"):
            msg = f"{coin!r} is no coin: a star stands alone or behind a dex and a colon, as in xyz:*"
            raise ValueError(msg)
    return exact, tuple(sorted(dexes))


def _side(word: str) -> str:
    side = _SIDES.get(word, word)
    if side not in ("A", "B"):
        msg = f"{word!r} is no side: B (bid) and A (ask) are"
        raise ValueError(msg)
    return side
