"""The command `replay` in this process."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import pytest

from hyperwatch.cli.main import _exit_code


@attrs.frozen
class Ended:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[bytes]:
        return self.out.splitlines()


Run = Callable[..., Ended]


@pytest.fixture
def replay(capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    def run(*arguments: object) -> Ended:
        code = _exit_code(["replay", *map(str, arguments)])
        captured = capsysbinary.readouterr()
        return Ended(code, captured.out, captured.err.decode())

    return run


def oids(out: bytes) -> list[int]:
    return [json.loads(each)["order"]["oid"] for each in out.splitlines()]
