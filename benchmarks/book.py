"""What was measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import attrs

__all__ = ["OURS", "Book", "percentile"]

OURS = "hyperwatch"

Numbers = dict[str, float]


@attrs.frozen
class Book:
    """The numbers of every turn, by case, subject and round; all subjects of a case take turns within a round."""

    turns: dict[str, dict[str, list[Numbers]]] = attrs.Factory(dict)
    failures: dict[str, str] = attrs.Factory(dict)
    """Cases that could not be measured."""

    def add(self, case: str, subject: str, **numbers: float) -> None:
        """A turn is over."""
        self.turns.setdefault(case, {}).setdefault(subject, []).append(numbers)

    def has(self, case: str, *subjects: str) -> bool:
        """Whether each of these had a turn."""
        return all(self.turns.get(case, {}).get(subject) for subject in subjects)

    def gave_up(self, case: str, subject: str) -> bool:
        """Whether it did not finish its last turn: it gets no more of them."""
        return self.has(case, subject) and not self.turns[case][subject][-1].get("done", True)

    def column(self, case: str, subject: str, number: str) -> list[float]:
        """One number of all turns."""
        return [turn[number] for turn in self.turns[case][subject]]

    def median(self, case: str, subject: str, number: str) -> float:
        """The middle one of all turns."""
        return median(self.column(case, subject, number))

    def ratio(self, case: str, subject: str, number: str, of: str) -> float:
        """How many times another subject's number, each round by itself; the middle one of all rounds."""
        return median(a / b for a, b in self._pairs(case, subject, number, of))

    def above(self, case: str, subject: str, number: str, of: str) -> float:
        """How much more than another subject's number, each round by itself; the middle one of all rounds."""
        return median(a - b for a, b in self._pairs(case, subject, number, of))

    def _pairs(self, case: str, subject: str, number: str, of: str) -> list[tuple[float, float]]:
        # Of those rounds that both had a turn in: see `gave_up`.
        return list(zip(self.column(case, subject, number), self.column(case, of, number), strict=False))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of all does not exceed."""
    return sorted(values)[max(0, -(-int(len(values) * share * 1000) // 1000) - 1)]
