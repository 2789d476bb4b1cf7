"""What every filter answers, and the filter of events that have no more than a coin and a user. Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Protocol, Self

import attrs

from hyperwatch.feed.filters.orders import OrderFilter
from hyperwatch.feed.filters.word_lists import WordList
from hyperwatch.feed.routing import RoutingKeys, few, interest_in, positions_for, routing_us
from hyperwatch.node.slices import BlockSlice

__all__ = ["CoinUserFilter", "Filter"]


class Filter(Protocol):
    """A filter: which events of a run."""

    @property
    def coins(self) -> frozenset[str] | None:
        """Those that it names; None for all."""

    @property
    def everything(self) -> bool:
        """Whether no event can fail it."""

    @property
    def interest(self) -> RoutingKeys | None:
        """What must occur for any event to match; None for anything."""

    @property
    def lists(self) -> Iterable[WordList]:
        """Its lists of words."""

    def select(self, slice_: BlockSlice) -> Sequence[int]:
        """The positions of a run's events that match, in ascending order."""

    def select_in_parts(self, slice_: BlockSlice) -> Generator[None, None, Sequence[int]]:
        """The same, with pauses: none is much longer than a millisecond away."""

    @property
    def brief(self) -> bool:
        """Whether `select` takes ASK_US, whatever the run."""

    def look_us(self, slice_: BlockSlice) -> float:
        """What `select` takes, in microseconds, about."""


@attrs.frozen
class CoinUserFilter:
    """By coin and user, as OrderFilter has them. None asks nothing."""

    coins: frozenset[str] | None = None
    dexes: tuple[str, ...] = ()
    users: frozenset[str] | None = None

    @classmethod
    def of(cls, coins: Sequence[str] | None = None, users: Sequence[str] | None = None) -> Self:
        """From the words of a subscription. Raises ValueError as OrderFilter does."""
        words = OrderFilter.of(coins=coins, users=users)
        return cls(words.coins, words.dexes, words.users)

    @property
    def everything(self) -> bool:
        return self.coins is None and self.users is None

    @property
    def interest(self) -> RoutingKeys | None:
        return interest_in(self.coins, self.dexes, self.users)

    @property
    def brief(self) -> bool:
        return few(self.coins, self.dexes, self.users)

    @property
    def lists(self) -> Iterable[WordList]:
        if self.coins is not None:
            yield self.coins
        if self.dexes:
            yield frozenset(self.dexes)
        if self.users is not None:
            yield self.users

    def select(self, slice_: BlockSlice) -> Sequence[int]:
        return positions_for(slice_, self.coins, self.dexes, self.users)

    def select_in_parts(self, slice_: BlockSlice) -> Generator[None, None, Sequence[int]]:
        yield
        return self.select(slice_)

    def look_us(self, slice_: BlockSlice) -> float:
        return routing_us(slice_, self.coins, self.dexes, self.users)
