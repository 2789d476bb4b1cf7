"""What the operator's views see of the service: protocols, which the service fulfils."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from hyperwatch.ingest.counters import Counters
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.batches import Entry
from hyperwatch.log.tree import Log
from hyperwatch.server.connection import Connection

__all__ = ["ServiceProbe", "StreamProbe"]


class StreamProbe(Protocol):
    """A stream that is followed."""

    @property
    def log(self) -> Log:
        """Its files."""

    @property
    def ring(self) -> Ring:
        """Its newest batches."""

    @property
    def counters(self) -> Counters:
        """What has passed through."""

    @property
    def last(self) -> Entry | None:
        """The entry that was delivered last."""

    @property
    def in_flight_bytes(self) -> int:
        """What was taken from the files and has not been delivered."""

    @property
    def looked_s(self) -> float:
        """When all that the files had was taken, by the event loop's clock."""

    @property
    def stopped(self) -> bool:
        """Whether it was told to end."""

    @property
    def workers(self) -> int:
        """How many there are."""

    @property
    def workers_busy(self) -> int:
        """How many of them decode."""


class ServiceProbe(Protocol):
    """The service as it is now."""

    @property
    def probes(self) -> Sequence[StreamProbe]:
        """Of each stream that is followed, that of order statuses first."""

    @property
    def connections(self) -> Collection[Connection]:
        """The clients."""
