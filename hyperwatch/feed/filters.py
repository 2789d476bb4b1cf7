"""Which order events a subscription wants. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self, cast

import attrs

from hyperwatch.node.events import Run
from hyperwatch.node.keys import Keys, OrderKeys
from hyperwatch.node.statuses import StatusClass, class_of

__all__ = ["CLASSES", "OrderFilter", "Statuses", "address", "doubtful_coins"]

CLASSES: dict[str, StatusClass] = {kind.value: kind for kind in StatusClass}

_SIDES = {"Bid": "B", "Ask": "A"}  # as old files spell them


@attrs.frozen
class Statuses:
    """A set of statuses, by name and by class."""

    names: frozenset[str]
    classes: frozenset[StatusClass]

    @classmethod
    def of(cls, words: Iterable[str]) -> Self:
        """From words of a subscription. `rejected` is a status and a class that holds it: the class is meant."""
        words = frozenset(words)
        return cls(words.difference(CLASSES), frozenset(CLASSES[word] for word in words.intersection(CLASSES)))

    def __contains__(self, event: OrderKeys) -> bool:
        return event.status in self.names or (bool(self.classes) and class_of(event) in self.classes)


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

    @classmethod
    def of(
        cls,
        coins: Sequence[str] | None = None,
        users: Sequence[str] | None = None,
        statuses: Sequence[str] | None = None,
        not_statuses: Sequence[str] | None = None,
        sides: Sequence[str] | None = None,
    ) -> Self:
        """From the words of a subscription or of a command line: `*` is every coin, `xyz:*` every coin of a dex.

        Raises:
            ValueError: where a `*` stands anywhere else, an address or a side is none, or a list is empty.
        """
        for name, words in _named(coins=coins, users=users, statuses=statuses, notStatuses=not_statuses, sides=sides):
            if not words:
                msg = f"{name} is empty, which no event matches; leave it out to mean all"
                raise ValueError(msg)
        exact, dexes = _patterns(coins)
        return cls(
            coins=exact,
            dexes=dexes,
            users=None if users is None else frozenset(address(user) for user in users),
            statuses=None if statuses is None else Statuses.of(statuses),
            not_statuses=None if not_statuses is None else Statuses.of(not_statuses),
            sides=None if sides is None else frozenset(_side(side) for side in sides),
        )

    @property
    def everything(self) -> bool:
        """Whether no event can fail it."""
        return self == _EVERYTHING

    def may_match(self, run: Run) -> bool:
        """False where none of a run's events can match: most filters want few coins or users."""
        if self.users is not None and self.users.isdisjoint(run.users):
            return False
        return self.coins is None or bool(self.dexes) or not self.coins.isdisjoint(run.coins)

    def select(self, keys: Sequence[Keys]) -> list[int]:
        """The positions of the events that match."""
        if self.everything:
            return list(range(len(keys)))
        matches = self.matches
        return [number for number, event in enumerate(cast("Sequence[OrderKeys]", keys)) if matches(event)]

    def matches(self, event: OrderKeys) -> bool:
        """Whether one event does."""
        order = event.order
        return (
            (self.coins is None or order.coin in self.coins or (bool(self.dexes) and order.coin.startswith(self.dexes)))
            and (self.users is None or event.user in self.users)
            and (self.sides is None or _SIDES.get(order.side, order.side) in self.sides)
            and (self.statuses is None or event in self.statuses)
            and (self.not_statuses is None or event not in self.not_statuses)
        )


_EVERYTHING = OrderFilter()
_DOUBTS = 5


def address(text: str) -> str:
    """An account's address as the node writes it, in lower case.

    Raises:
        ValueError: where it is none.
    """
    digits = text[2:].lower()
    if text[:2].lower() != "0x" or len(digits) != 40 or not set(digits) <= _HEX:  # noqa: PLR2004  hex digits of 20 bytes
        msg = f"{text!r} is no address: 0x and 40 hex digits are"
        raise ValueError(msg)
    return "0x" + digits


_HEX = set("0123456789abcdef")


def doubtful_coins(wanted: frozenset[str] | None, seen: frozenset[str], noun: str) -> list[str]:
    """Warnings for coins of a filter that did not occur lately, which may be typing errors: case matters."""
    missing = sorted((wanted or frozenset()) - seen) if seen else []
    spelled = {coin.lower(): coin for coin in seen}
    doubts = [
        f"no {noun} of {coin[:64]!r} was seen lately"
        + (f"; did you mean {spelled[coin.lower()]!r}? Case matters" if coin.lower() in spelled else "")
        for coin in missing[:_DOUBTS]
    ]
    return doubts if len(missing) <= _DOUBTS else [*doubts, f"and {len(missing) - _DOUBTS} more coins"]


def _named(**lists: Sequence[str] | None) -> list[tuple[str, Sequence[str]]]:
    return [(name, words) for name, words in lists.items() if words is not None]


def _patterns(coins: Sequence[str] | None) -> tuple[frozenset[str] | None, tuple[str, ...]]:
    if coins is None or "*" in coins:
        return None, ()
    dexes = {coin[:-1] for coin in coins if coin.endswith(":*")}
    exact = frozenset(coin for coin in coins if not coin.endswith(":*"))
    for coin in [*exact, *dexes]:
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
