"""How fast the past is read."""

from __future__ import annotations

import math
from functools import partial

import pytest
import trio
import trio.testing

from hyperwatch.runtime.rate_limit import RateLimiter


async def test_what_is_taken_at_once_comes_at_the_rate(autojump_clock: trio.testing.MockClock) -> None:
    rate_limiter = RateLimiter(1000.0)
    began_s = autojump_clock.current_time()
    for _ in range(100):
        await rate_limiter.take(100)
    assert 9.9 <= autojump_clock.current_time() - began_s <= 10.0


async def test_an_idle_one_has_saved_up_a_twentieth_of_a_second(autojump_clock: trio.testing.MockClock) -> None:
    rate_limiter = RateLimiter(1000.0)
    await rate_limiter.take(1)
    await trio.sleep(1000)
    began_s = autojump_clock.current_time()
    await rate_limiter.take(1000)
    assert autojump_clock.current_time() - began_s == pytest.approx(0.95)


async def test_those_who_ask_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    rate_limiter, order = RateLimiter(1000.0), list[str]()

    async def read(name: str) -> None:
        for _ in range(3):
            await rate_limiter.take(500)
            order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, "a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read, "b")
    assert "".join(order) == "ababab"
    assert autojump_clock.current_time() > 2.0


async def test_who_gives_up_has_taken_nothing(autojump_clock: trio.testing.MockClock) -> None:
    rate_limiter = RateLimiter(1000.0)
    await rate_limiter.take(1000)
    with trio.move_on_after(1):
        await rate_limiter.take(10**9)
    began_s = autojump_clock.current_time()
    await rate_limiter.take(50)
    assert autojump_clock.current_time() == began_s


async def test_without_a_rate_nobody_waits(autojump_clock: trio.testing.MockClock) -> None:
    began_s = autojump_clock.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(partial(RateLimiter(math.inf).take, 10**12))
    assert autojump_clock.current_time() == began_s
