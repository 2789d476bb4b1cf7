"""What clients make the log say: the first lines of each, and then how many more."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
import trio
from loguru import logger

from hyperwatch.monitor.health import HealthMonitor
from hyperwatch.server.admission import Admission
from hyperwatch.server.client_log import ADDRESSES, FEW, SPAN_S, ClientLog


@attrs.define
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def told() -> Iterator[list[str]]:
    lines: list[str] = []
    number = logger.add(lines.append, level="DEBUG", format="{level} {message}")
    yield lines
    logger.remove(number)


def test_an_address_that_says_the_same_for_ever_is_a_few_lines_and_a_number(told: list[str]) -> None:
    clock = Clock()
    client_log = ClientLog(clock)
    for number in range(1000):
        client_log.say("INFO", "10.0.0.1", "client {} left", number)
        clock.now_s += 0.01
    assert told == [f"INFO client {number} left\n" for number in range(FEW)]

    clock.now_s += SPAN_S
    client_log.settle()
    client_log.settle()
    assert told[FEW:] == ["INFO 995 more of these from 10.0.0.1 in the last 70 s, the last one: client 999 left\n"]
    client_log.say("INFO", "10.0.0.1", "client {} left", "again")
    assert told[-1] == "INFO client again left\n"


def test_a_span_that_is_over_is_told_by_the_next_line_of_anybody(told: list[str]) -> None:
    clock = Clock()
    client_log = ClientLog(clock)
    for _ in range(FEW + 1):
        client_log.say("ERROR", "10.0.0.1", "a fault")
    clock.now_s += SPAN_S
    client_log.say("DEBUG", "10.0.0.2", "{} is refused", "{0}")
    assert told[FEW:] == [
        "ERROR 1 more of these from 10.0.0.1 in the last 60 s, the last one: a fault\n",
        "DEBUG {0} is refused\n",
    ]


def test_who_floods_the_log_takes_no_line_from_others_nor_from_another_kind(told: list[str]) -> None:
    client_log = ClientLog(Clock())
    for _ in range(100):
        client_log.say("INFO", "10.0.0.1", "client {} left", 1)
    client_log.say("INFO", "10.0.0.2", "client {} left", 2)
    client_log.say("INFO", "10.0.0.1", "client {} connected", 3)
    assert told[FEW:] == ["INFO client 2 left\n", "INFO client 3 connected\n"]


def test_any_number_of_addresses_is_a_bounded_number_of_lines_and_of_memory(told: list[str]) -> None:
    client_log = ClientLog(Clock())
    for number in range(10_000):
        for _ in range(2):
            client_log.say("INFO", f"2001:db8:{number:x}::/64", "client {} left", number)
    assert len(told) == 2 * ADDRESSES + FEW
    assert len(client_log._spans) == ADDRESSES + 1


def test_a_fault_brings_its_traceback_a_few_times_only() -> None:
    client_log, faults = ClientLog(Clock()), []
    number = logger.add(lambda message: faults.append(message.record["exception"]), level="ERROR", format="{message}")
    for _ in range(50):
        client_log.say("ERROR", "10.0.0.1", "a fault", fault=ValueError("x"))
    logger.remove(number)
    assert [fault.type for fault in faults] == [ValueError] * FEW


@pytest.mark.usefixtures("autojump_clock")
async def test_what_was_not_said_is_told_when_nobody_says_anything_more(told: list[str]) -> None:
    clock, admission = Clock(), Admission()
    admission.client_log = ClientLog(clock)
    for _ in range(FEW + 3):
        admission.client_log.say("INFO", "10.0.0.1", "a line")
    clock.now_s += SPAN_S
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HealthMonitor(admission, stall_s=60, behind_s=10).watch)
        await trio.sleep(1)
        nursery.cancel_scope.cancel("seen")
    assert told[FEW:] == ["INFO 3 more of these from 10.0.0.1 in the last 60 s, the last one: a line\n"]
