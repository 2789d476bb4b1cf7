"""The intake: what is read on the event loop, and what in a thread."""

from __future__ import annotations

from collections import deque
from typing import cast

import attrs
import trio
import trio.testing

from hyperwatch.ingest import tail as module
from hyperwatch.ingest.tail import Tail
from hyperwatch.log.batches import RawBatch
from hyperwatch.log.line_reader import LOOK_S, LineReader

FULL = b"x" * 99 + b"\n"
FULL *= module._CACHED_BYTES // len(FULL)


@attrs.define
class Files:
    """A walk over data that is there; what it was asked for is kept."""

    data: deque[bytes]
    cached: bool = True
    asked: list[str] = attrs.Factory(list)
    again: bool = False

    def take(self, max_bytes: int) -> RawBatch | None:
        self.asked.append("thread")
        return self._next(max_bytes)

    def take_cached(self, max_bytes: int) -> RawBatch | None:
        if not self.cached:
            raise BlockingIOError
        self.asked.append("loop")
        return self._next(max_bytes)

    def look_again(self) -> None:
        self.again = True

    def _next(self, max_bytes: int) -> RawBatch | None:
        data = self.data.popleft() if self.data else b""
        assert len(data) <= max_bytes
        return RawBatch("20260505/9", "", 0, data, (), 0, 0, False, False, 0) if data else None


def intake(files: Files, *, grows: bool = True) -> Tail:
    return Tail(cast("LineReader", files), 1, grows=grows)


async def take(intake: Tail, times: int) -> list[tuple[int, bool]]:
    """(how many bytes, whether there is more) of each look."""
    taken = [await intake.take() for _ in range(times)]
    return [(sum(len(span.data) for span, _ in each.batches), each.more) for each in taken]


def files(*data: bytes, cached: bool = True) -> Files:
    return Files(deque(data), cached)


async def test_what_is_in_memory_is_read_at_once(autojump_clock: trio.testing.MockClock) -> None:
    found = files()
    begun = intake(found)
    await begun.take()
    found.data += [b"a\nb\n", b"c\n"]

    assert await take(begun, 3) == [(4, False), (2, False), (0, False)]
    assert found.asked == ["loop", "thread", "loop", "loop", "loop"]
    assert autojump_clock.autojump_threshold == 0


async def test_what_is_not_in_memory_is_read_in_a_thread() -> None:
    found = files(b"a\n", b"b\n", cached=False)

    assert await take(intake(found), 3) == [(2, False), (2, False), (0, False)]
    assert found.asked == ["thread"] * 3


async def test_a_log_that_does_not_grow_is_read_in_threads() -> None:
    found = files(b"a\n", b"")
    await take(intake(found, grows=False), 2)

    assert found.asked == ["thread"] * 2


async def test_a_backlog_is_read_in_a_thread_until_it_is_gone() -> None:
    found = files(*[FULL] * 11, b"a\n", b"b\n")
    asked = await take(intake(found), 13)

    assert [more for _, more in asked] == [True] * 11 + [False] * 2
    assert found.asked == ["loop"] * 8 + ["thread"] * 4 + ["loop"]


async def test_directories_are_looked_at_although_the_open_files_say_nothing_of_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    found = files()
    begun = intake(found)
    first = await begun.take()
    second = await begun.take()
    await trio.sleep(LOOK_S)
    third = await begun.take()
    begun.look_again()
    fourth = await begun.take()

    assert [each.everywhere for each in (first, second, third, fourth)] == [True, False, True, True]
    assert found.again
    assert autojump_clock.autojump_threshold == 0
