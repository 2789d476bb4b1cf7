"""What must occur in an entry for a view to say anything of it, and who is asked about an entry. Pure.

Thousands may want a coin each, and few of those coins trade. So it is looked up who wants what occurs: the cost follows
the matches, not the subscriptions.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import attrs

from hyperwatch.feed.cost import ASK_US, EVENT_US
from hyperwatch.log.batches import Entry
from hyperwatch.node.slices import BlockSlice

__all__ = ["Interested", "RoutingIndex", "RoutingKeys", "few", "interest_in", "positions_for", "routing_us"]

_FEW = 8  # words that are looked up in next to no time
_WORDS = 1_000  # as many are looked up one by one; who wants more is asked always, which takes less than joining would


@attrs.frozen
class RoutingKeys:
    """Coins and accounts of which one occurs in every entry with events that match."""

    coins: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()

    @classmethod
    def in_any(cls, interests: Iterable[RoutingKeys | None]) -> RoutingKeys | None:
        """That of several together; None, which is to say in whatever occurs, where one of them has it."""
        coins, users = set[str](), set[str]()
        for interest in interests:
            if interest is None:
                return None
            coins |= interest.coins
            users |= interest.users
        return cls(frozenset(coins), frozenset(users)) if len(coins) + len(users) <= _WORDS else None


def interest_in(
    coins: frozenset[str] | None, dexes: tuple[str, ...], users: frozenset[str] | None
) -> RoutingKeys | None:
    """That of a filter which asks for these, for both where both are given: one that fewer entries have is enough."""
    if users is not None and len(users) <= _WORDS:
        return RoutingKeys(users=users)
    if coins is not None and not dexes and len(coins) <= _WORDS:
        return RoutingKeys(coins=coins)
    return None


def positions_for(
    slice_: BlockSlice, coins: frozenset[str] | None, dexes: tuple[str, ...], users: frozenset[str] | None
) -> Sequence[int]:
    """The positions of a run's events by coin and by user, in ascending order; a dex is how its coins begin."""
    if users is None:
        return range(slice_.count) if coins is None else _places(slice_.coins, coins, dexes)
    chosen = _places(slice_.users, users)
    if coins is None or not chosen:
        return chosen
    among = set(_places(slice_.coins, coins, dexes))
    return [number for number in chosen if number in among]


def routing_us(
    slice_: BlockSlice, coins: frozenset[str] | None, dexes: tuple[str, ...], users: frozenset[str] | None
) -> float:
    """What it takes to ask a filter that asks for these, in microseconds: many words may be those of all events."""
    return ASK_US if few(coins, dexes, users) else ASK_US + EVENT_US * slice_.count


def few(coins: frozenset[str] | None, dexes: tuple[str, ...], users: frozenset[str] | None) -> bool:
    """Whether a filter asks for so few words that they are looked up in next to no time."""
    return (coins is None or len(coins) <= _FEW) and (users is None or len(users) <= _FEW) and not dexes


def _places(
    found: Mapping[str, Sequence[int]], wanted: frozenset[str], openings: tuple[str, ...] = ()
) -> Sequence[int]:
    """Where any of some words stands, or any word that begins with an opening, in ascending order."""
    if openings:
        hits = [each for word, each in found.items() if word in wanted or word.startswith(openings)]
    elif len(wanted) < len(found):
        hits = [found[word] for word in wanted if word in found]
    else:
        hits = [each for word, each in found.items() if word in wanted]
    if len(hits) == 1:
        return hits[0]
    if len(hits) == len(found):
        return range(sum(map(len, hits)))
    return sorted(itertools.chain.from_iterable(hits))


class Interested(Protocol):
    """Who may be asked."""

    @property
    def interest(self) -> RoutingKeys | None:
        """In what; None for whatever occurs."""


_Asked = TypeVar("_Asked", bound=Interested)
_T = TypeVar("_T")


_SPARSE_BYTES = 600  # a word takes 50 to 150 in a dict that has grown to what it holds


class _ByWord(Generic[_Asked]):
    """Who asks for each word: one alone, or several.

    Most words are asked for by one alone, and a dict for that one would take more memory than all else that the word takes.
    Dicts, not sets: all are asked in an order that the entries and their coming set, never by chance.
    """

    def __init__(self) -> None:
        self.known: dict[str, _Asked | dict[_Asked, None]] = {}

    def add(self, words: Iterable[str], one: _Asked) -> None:
        for word in words:
            known = self.known.get(word)
            if known is None:
                self.known[word] = one
            elif isinstance(known, dict):
                known[one] = None
            else:
                self.known[word] = {known: None, one: None}

    def remove(self, words: Iterable[str], one: _Asked) -> None:
        for word in words:
            known = self.known[word]
            if isinstance(known, dict):
                del known[one]
            if known is one or not known:
                del self.known[word]
        self.known = _shrunk(self.known)

    def collect(self, asked: dict[_Asked, None], found: Iterable[str]) -> None:
        """Adds those who ask for any of the words that were found."""
        by_word = self.known
        for word in found:
            if word in by_word:
                known = by_word[word]
                if known.__class__ is dict:  # isinstance is a call, for every word of every entry
                    asked |= known
                else:
                    asked[known] = None  # type: ignore[index]  # by its class it is one


def _shrunk(by_word: dict[str, _T]) -> dict[str, _T]:
    """Returns the same, in a dict that fits: one of which nearly all was deleted keeps the room that it once needed."""
    return dict(by_word) if sys.getsizeof(by_word) > _SPARSE_BYTES * (len(by_word) + 100) else by_word


class RoutingIndex(Generic[_Asked]):
    """Who is to be asked about an entry."""

    def __init__(self) -> None:
        self._always: dict[_Asked, None] = {}
        self._by_coin: _ByWord[_Asked] = _ByWord()
        self._by_user: _ByWord[_Asked] = _ByWord()

    def add(self, one: _Asked) -> None:
        """From now on it is asked."""
        if one.interest is None:
            self._always[one] = None
        else:
            self._by_coin.add(one.interest.coins, one)
            self._by_user.add(one.interest.users, one)

    def remove(self, one: _Asked) -> None:
        """It is asked no more."""
        if one.interest is None:
            del self._always[one]
        else:
            self._by_coin.remove(one.interest.coins, one)
            self._by_user.remove(one.interest.users, one)

    def asked(self, entry: Entry) -> list[_Asked]:
        """Those for whom it may have events, each once."""
        asked = dict(self._always)
        if self._by_coin.known:  # which words a run has is looked up where anyone asks
            self._by_coin.collect(asked, entry.slice.coins)
        if self._by_user.known:
            self._by_user.collect(asked, entry.slice.users)
        return list(asked)
