"""Many filters, live at the rate of a busy day."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.live import ours, relay, replaced, turns
from benchmarks.node import Events, market
from benchmarks.run import Run
from hyperwatch.simulate.model import COINS

__all__ = ["ONE", "filters"]

ONE = "one filter"

_RATE = 23_500
_CLIENTS = 200
_EACH = 100  # subscriptions of a client
_USER = re.compile(rb'"user":"(0x[0-9a-f]{40})"')
_NAMES = sorted({coin.name for coin in COINS})


def filters(run: Run) -> None:
    """200 clients with a filter each; 10,000 filters on a coin each beside one that matches as much."""
    blocks = market(_RATE, run.few(30, 10))
    case = "filters/200"
    with run.case(case) as folder, ExitStack() as stack:
        wanted = [[{"type": "orders", "id": "x", **words}] for words in _two_hundred(blocks)]
        lanes = [ours(run, stack, case, folder, wanted)]
        if run.profiles is None:
            lanes += [relay(run, stack, folder), replaced(run, stack, folder, wanted)]
        turns(run, case, lanes, blocks)
    _many(run, blocks, _NAMES)
    _many(run, blocks, ["BTC"])


def _many(run: Run, blocks: Sequence[Events], trading: Sequence[str]) -> None:
    """Each of some coins that trade has a filter, and thousands that do not; beside one filter on the same coins."""
    count = run.few(10_000, 1_000)
    case = f"filters/{count:,} filters on a coin each, of which {len(trading)} trade"
    coins = [*trading, *(f"QUIET{number}" for number in range(count - len(trading)))]
    wanted = [
        [{"type": "orders", "id": coin, "coins": [coin]} for coin in coins[at : at + _EACH]]
        for at in range(0, count, _EACH)
    ]
    one: list[list[dict[str, Any]]] = [[{"type": "orders", "id": "x", "coins": list(trading)}]]
    with run.case(case) as folder, ExitStack() as stack:
        lanes = [ours(run, stack, case, folder, wanted)]
        if run.profiles is None:
            lanes.append(ours(run, stack, case, folder, one, subject=ONE))
        turns(run, case, lanes, blocks)


def _two_hundred(blocks: Sequence[Events]) -> list[dict[str, Any]]:
    """Coins with and without rejections, and the accounts that do most."""
    users = Counter(user for events in blocks for event in events for user in _USER.findall(event))
    words: list[dict[str, Any]] = [{"coins": [coin]} for coin in _NAMES]
    words += [{"coins": [coin], "notStatuses": ["rejected"]} for coin in _NAMES]
    words += [{"users": [user.decode()]} for user, _ in users.most_common(_CLIENTS - len(words))]
    return words
