"""One run of the benchmarks: how much of everything, where, and what came of it."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from benchmarks.book import Book
from benchmarks.processes import BenchmarkError, Process, started

__all__ = ["Clients", "Run"]

_READY_S = 120.0  # for clients to connect: 10,000 subscriptions are the most
_ROUNDS = 5


@attrs.frozen
class Clients:
    """A process of clients."""

    process: Process

    def expect(self, **turn: Any) -> None:  # noqa: ANN401  JSON
        """A turn begins: when this returns, what comes counts."""
        self.process.tell(turn)
        self.process.hear(_READY_S)

    def answer(self, within_s: float) -> dict[str, Any]:
        """What came of it."""
        answer: dict[str, Any] = self.process.hear(within_s + 10)
        return answer


@attrs.frozen(kw_only=True)
class Run:
    """Settings, and the book."""

    folder: Path
    """For everything that is written; empty at first."""
    quick: bool
    samples: Path | None
    """Where the recordings of mainnet are."""
    profiles: Path | None = None
    """Where to write what hyperwatch spent its time on; then nothing but that is of worth."""
    book: Book = attrs.Factory(Book)

    @property
    def rounds(self) -> int:
        """Turns of each subject."""
        return 1 if self.quick or self.profiles else _ROUNDS

    def few(self, usual: int, quick: int) -> int:
        """How much of something."""
        return quick if self.quick else usual

    @contextmanager
    def case(self, name: str) -> Iterator[Path]:
        """Something to measure: yields a directory. Where the instrument fails, that is said, and the next case goes on."""
        folder = self.folder / _file_name(name)
        folder.mkdir()
        began_s = time.monotonic()
        try:
            yield folder
        except BenchmarkError as error:
            self.book.failures[name] = str(error)
            self.say(f"{name}: {error}")
        else:
            self.say(f"{name}: {time.monotonic() - began_s:.1f} s")
        finally:
            shutil.rmtree(folder)

    @contextmanager
    def server(self, case: str, data: Path) -> Iterator[Process]:
        """`hyperwatch run`."""
        arguments: list[str | Path] = ["run", "--data-dir", data, "--state-dir", data / "state"]
        # The past at full speed: what it can do is measured, not what it is allowed.
        arguments += ["--listen", "127.0.0.1:0", "--catch-up-rate", "0", "--client-catch-up-rate", "0"]
        arguments += ["--metrics-listen", ""]  # several run at once
        log = data / "server.log"
        if self.profiles is None:
            with started("hyperwatch", *arguments, log=log) as server:
                yield server
        else:
            report = self.profiles / f"{_file_name(case)}.txt"
            with started("benchmarks.profiled", report, *arguments, log=log) as server:
                yield server

    @contextmanager
    def baseline(self, name: str, folder: Path, *arguments: str | Path | int) -> Iterator[Process]:
        """One of `benchmarks/baselines`."""
        with started(f"benchmarks.baselines.{name}", *arguments, log=folder / f"{name}.log") as process:
            yield process

    @contextmanager
    def clients(
        self,
        server: Process,
        connections: Sequence[Sequence[dict[str, Any]]],
        folder: Path,
        **more: Any,  # noqa: ANN401  JSON
    ) -> Iterator[Clients]:
        """Clients of a server, subscribed."""
        with started("benchmarks.client", log=folder / "client.log") as process:
            process.tell({"port": server.port(), "connections": connections, **more})
            process.hear(_READY_S)
            yield Clients(process)

    def say(self, text: str) -> None:
        """Progress, on standard error."""
        print(text, file=sys.stderr, flush=True)


def _file_name(case: str) -> str:
    return re.sub(r"\W+", "-", case)
