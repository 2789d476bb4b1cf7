"""A client's socket that is none: what is written to it is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio

from hyperwatch.feed.budget import Allowance, Budget
from support import messages_in


@attrs.define(eq=False)
class FakeSocket:
    """A client that takes `room` messages at once, and any number when it is waited for."""

    room: int = 10**9
    peer: str = "a fake"
    address: str = "a fake"
    unfinished: bool = False
    heard: list[dict[str, Any]] = attrs.Factory(list)

    allowance: Allowance = attrs.Factory(lambda: Budget(math.inf).open("a fake", 0))

    def offer(self, parts: Sequence[bytes], size: int) -> bool:
        assert size == sum(map(len, parts))
        if not self.room:
            return False
        self.room -= 1
        self.heard += map(json.loads, messages_in(b"".join(parts)))
        return True

    def when_rest_waits(self, call: Callable[[], None]) -> None:
        """It takes all or nothing."""

    def wake(self) -> None:
        """As an outlet: nobody sleeps here."""

    async def send(self, head: bytes, tail: bytes = b"", *, binary: bool = False) -> None:  # noqa: ARG002  as above
        await trio.lowlevel.checkpoint()
        self.heard.append(json.loads(head + tail))

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def blocks(self) -> list[int]:
        return [message["data"]["blockNumber"] for message in self.heard if message["channel"] == "orders"]
