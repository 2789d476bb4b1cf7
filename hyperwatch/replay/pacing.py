"""When what was recorded goes out again. Pure: the clock is handed in."""

from __future__ import annotations

__all__ = ["Pace"]


class Pace:
    """Maps block time to the event loop's clock, from the first time it is asked about on.

    Args:
        speed: recorded seconds in one second.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._origin: tuple[float, int] | None = None

    def wait_s(self, time_ms: int | None, now_s: float) -> float:
        """How long what happened at `time_ms` has to wait; 0 for what is due, or carries no time."""
        if time_ms is None:
            return 0.0
        if self._origin is None:
            self._origin = now_s, time_ms
        begun_s, first_ms = self._origin
        return max(0.0, begun_s + (time_ms - first_ms) / 1000 / self._speed - now_s)
