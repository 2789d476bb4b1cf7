"""The lists of words that clients' filters hold: equal ones are kept once, and all of them are bounded. Pure.

Filters are what a client can fill memory with and keep it filled. So each word has a price, a connection may hold so many of
them, and all connections together too. A list that several subscriptions share lies in memory once, and is paid once by
the service.

A word is measured as about 150 bytes of memory: the text or number, its place in the list, and its place in the index of who wants
what. Long words count as several.
"""

from __future__ import annotations

import bisect
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Protocol
from weakref import ReferenceType, WeakKeyDictionary, ref

import attrs

__all__ = ["SUBSCRIPTION_WORDS", "ConnectionWords", "HasLists", "OidSet", "TooManyWordsError", "WordBudget", "shared"]

SUBSCRIPTION_WORDS = 4
"""What a subscription counts beside the words of its filters."""

_WORD_BYTES = 64  # of text: a longer word counts once more for each of them
_OIDS = 8  # oids lie side by side in eight bytes each: so many count as one word
_SHARED = 64  # shorter lists are not worth a look-up

# Both sides are weak: a list that nobody holds any more goes.
_lists: WeakKeyDictionary[frozenset[str], ReferenceType[frozenset[str]]] = WeakKeyDictionary()


class OidSet:
    """A set of order ids, eight bytes each. Equal sets are equal."""

    __slots__ = ("_hash", "_sorted")

    def __init__(self, oids: Iterable[int]) -> None:
        """Raises OverflowError for a number outside 0 to 2^64 - 1."""
        self._sorted = array("Q", sorted(set(oids)))
        self._hash = hash(self._sorted.tobytes())

    def __contains__(self, oid: int) -> bool:
        at = bisect.bisect_left(self._sorted, oid)
        return at < len(self._sorted) and self._sorted[at] == oid

    def __len__(self) -> int:
        return len(self._sorted)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OidSet) and self._hash == other._hash and self._sorted == other._sorted

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"OidSet({self._sorted.tolist()})"


WordList = frozenset[str] | OidSet


class HasLists(Protocol):
    """A filter, or what has one."""

    @property
    def lists(self) -> Iterable[WordList]:
        """Its lists of words."""


class TooManyWordsError(Exception):
    """A subscription would hold more words than there is room for.

    Attributes:
        asked: what it counts.
        held: how many are held already.
        most: how many may be.
        alone: whether its own connection holds them; else all connections together do.
    """

    def __init__(self, asked: int, held: int, most: int, *, alone: bool) -> None:
        super().__init__(f"{asked} words asked, {held} of {most} held")
        self.asked = asked
        self.held = held
        self.most = most
        self.alone = alone


def shared(words: Iterable[str]) -> frozenset[str]:
    """Returns the words as a set; an equal set that is in use already is returned again, so that memory holds it once."""
    made = frozenset(words)
    if len(made) < _SHARED:
        return made
    known = _lists.setdefault(made, ref(made))()
    return made if known is None else known


@attrs.frozen
class _Held:
    """What one subscription holds."""

    own: int
    """Words that it alone pays for."""
    shared: tuple[tuple[WordList, int], ...]
    """Lists that others may hold too, each with its words."""

    @property
    def words(self) -> int:
        return self.own + sum(words for _, words in self.shared)


class WordBudget:
    """Counts the words that all connections hold.

    Args:
        most: how many they may hold together.
        each: how many one of them may hold.
    """

    def __init__(self, most: int, each: int) -> None:
        self.most = most
        self.each = each
        self.held = 0
        self.given_back = 0
        """How many were, ever."""
        self._holders: Counter[WordList] = Counter()  # of shared lists

    def connection(self) -> ConnectionWords:
        """Returns the count of one connection, which holds nothing yet."""
        return ConnectionWords(self)

    def take(self, held: _Held) -> None:
        """Counts what a subscription holds. Raises TooManyWordsError where there is no room."""
        asked = held.own + sum(words for each, words in held.shared if each not in self._holders)
        if self.held + asked > self.most:
            raise TooManyWordsError(asked, self.held, self.most, alone=False)
        self.held += asked
        self._holders.update(each for each, _ in held.shared)

    def give_back(self, held: _Held) -> None:
        """Counts it no more."""
        before = self.held
        self.held -= held.own
        for each, words in held.shared:
            self._holders[each] -= 1
            if not self._holders[each]:
                del self._holders[each]
                self.held -= words
        self.given_back += before - self.held


class ConnectionWords:
    """Counts the words that the subscriptions of one connection hold.

    Args:
        budget: of all connections.
    """

    def __init__(self, budget: WordBudget) -> None:
        self._budget = budget
        self._held: dict[str, _Held] = {}
        self.held = 0

    def take(self, id: str, channel: HasLists) -> None:  # noqa: A002  the wire's own name
        """Counts the words of a subscription.

        Raises:
            TooManyWordsError: where there is no room for them. Then nothing is counted.
        """
        held = _held(channel.lists)
        if self.held + held.words > self._budget.each:
            raise TooManyWordsError(held.words, self.held, self._budget.each, alone=True)
        self._budget.take(held)
        self._held[id] = held
        self.held += held.words

    def give_back(self, id: str) -> None:  # noqa: A002  as above
        """Counts the words of a subscription no more. One that holds none changes nothing."""
        held = self._held.pop(id, None)
        if held is not None:
            self.held -= held.words
            self._budget.give_back(held)

    def close(self) -> None:
        """Counts nothing of this connection any more."""
        for id in list(self._held):  # noqa: A001  as above
            self.give_back(id)


def _held(lists: Iterable[WordList]) -> _Held:
    own, others = SUBSCRIPTION_WORDS, dict[WordList, int]()
    for each in lists:
        words = -(-len(each) // _OIDS) if isinstance(each, OidSet) else sum(map(_price, each))
        if len(each) < _SHARED or isinstance(each, OidSet):
            own += words
        else:
            others[each] = words
    return _Held(own, tuple(others.items()))


def _price(word: str) -> int:
    return 1 + len(word.encode("utf-8", "surrogatepass")) // _WORD_BYTES
