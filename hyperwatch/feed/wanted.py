"""What every filter answers, and the filter of events that have no more than a coin and a user. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import attrs

from hyperwatch.feed.filters import OrderFilter
from hyperwatch.node.events import Run

__all__ = ["EventFilter", "Wanted"]


class Wanted(Protocol):
    """A filter: which events of a run."""

    @property
    def coins(self) -> frozenset[str] | None:
        """Those that it names; None for all."""

    @property
    def everything(self) -> bool:
        """Whether no event can fail it."""

    def may_match(self, run: Run) -> bool:
        """False where none of a run's events can match."""

    def select(self, run: Run) -> list[int]:
        """The positions of a run's events that match."""


@attrs.frozen
class EventFilter:
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

    def may_match(self, run: Run) -> bool:
        if self.users is not None and self.users.isdisjoint(run.users):
            return False
        return self.coins is None or bool(self.dexes) or not self.coins.isdisjoint(run.coins)

    def select(self, run: Run) -> list[int]:
        return [
            number
            for number, event in enumerate(run.keys)
            if (
                self.coins is None
                or event.coin in self.coins
                or (bool(self.dexes) and event.coin.startswith(self.dexes))
            )
            and (self.users is None or event.user in self.users)
        ]
