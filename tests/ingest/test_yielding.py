"""Threads that decode let the event loop run, where anybody else waits for it."""

from __future__ import annotations

import time

import pytest
import trio

from hyperwatch.ingest.yielding import Yielder


class Naps:
    """A clock that only sleeping, and what a test says, moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.naps = 0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.naps += 1


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Naps:
    naps = Naps()
    monkeypatch.setattr(time, "sleep", naps.sleep)
    monkeypatch.setattr(time, "monotonic", lambda: naps.now_s)
    return naps


@pytest.mark.parametrize(("clients", "expected"), [(0, 0), (1, 0), (2, 8)])
async def test_a_thread_rests_after_half_a_millisecond_of_work_where_others_wait(
    naps: Naps, clients: int, expected: int
) -> None:
    yielder = Yielder(lambda: clients)

    def work() -> None:
        for _ in range(16):
            naps.now_s += 0.0003
            yielder.pause()

    await trio.to_thread.run_sync(work)

    assert naps.naps == expected


async def test_a_cancelled_job_ends_at_its_next_pause() -> None:
    yielder = Yielder(lambda: 0)
    begun = trio.Event()

    def work() -> None:
        trio.from_thread.run_sync(begun.set)
        while True:
            yielder.pause()

    with trio.fail_after(5), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, work)
            await begun.wait()
            scope.cancel("the test says so")

    assert scope.cancelled_caught
