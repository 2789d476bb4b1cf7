"""Child processes: started, talked to in JSON lines, measured from outside, always ended."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

__all__ = ["BenchmarkError", "Others", "Process", "started"]

_ROOT = Path(__file__).resolve().parents[1]
_START_S = 20.0
_END_S = 10.0  # hyperwatch ends within 8 s of SIGTERM
_CPU_CLOCK = 2  # CPUCLOCK_SCHED, as clock_getcpuclockid(3) makes it


class BenchmarkError(Exception):
    """The instrument itself failed: nothing can be said of what it measured."""


class Process:
    """A child. Made by `started`.

    Args:
        child: its standard input and output are pipes.
        log: where its standard error goes.
        profiled: whether it is `benchmarks.profiled`.
    """

    def __init__(self, child: subprocess.Popen[bytes], log: Path, *, profiled: bool) -> None:
        self._profiled = profiled
        self._child = child
        self._log = log
        self._heard = b""
        self.pid = child.pid

    @property
    def cpu_s(self) -> float:
        """What it has used of the processors, all its threads, those that have ended too."""
        return time.clock_gettime((~self.pid << 3) | _CPU_CLOCK)

    @property
    def peak_mib(self) -> float:
        """The most that was resident since it began or `begin_turn` was called."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def begin_turn(self) -> None:
        """From now on it is measured: the peak is what is resident now, and a profile begins anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        if self._profiled:
            os.kill(self.pid, signal.SIGUSR1)

    @contextmanager
    def paused(self) -> Iterator[Self]:
        """It does nothing meanwhile."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield self
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def tell(self, message: object) -> None:
        """Writes a line to its standard input."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(message).encode() + b"\n")
        self._child.stdin.flush()

    def hear(self, within_s: float) -> Any:  # noqa: ANN401  JSON
        """The next line of its standard output. Raises BenchmarkError where none comes, or it says `error`."""
        assert self._child.stdout is not None
        stdout, until = self._child.stdout.fileno(), time.monotonic() + within_s
        while b"\n" not in self._heard:
            ready, _, _ = select.select([stdout], [], [], max(0.0, until - time.monotonic()))
            more = os.read(stdout, 1 << 20) if ready else b""
            if not more:
                raise BenchmarkError(self._why("said nothing" if not ready else "ended"))
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise BenchmarkError(self._why(answer["error"]))
        return answer

    def port(self) -> int:
        """Where it listens, as it says on standard error. Raises BenchmarkError where it does not."""
        until = time.monotonic() + _START_S
        while "ws://" not in (text := self._log.read_text()):
            if time.monotonic() > until or self._child.poll() is not None:
                raise BenchmarkError(self._why("does not listen"))
            time.sleep(0.01)
        return int(text.partition("ws://127.0.0.1:")[2].partition("/")[0])

    def _why(self, what: str) -> str:
        return f"{' '.join(map(str, self._child.args))[:200]}: {what}; its log ends\n{self._log.read_text()[-2000:]}"  # type: ignore[arg-type]  # a list


class Others:
    """What the machine does beside us, from the moment that this is made."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._before_s = self._busy_s()

    def cores(self) -> float:
        """How many processors everybody else has kept busy."""
        return round((self._busy_s() - self._before_s) / (time.monotonic() - self._began_s), 2)

    def _busy_s(self) -> float:
        user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        busy_s = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return busy_s - sum(each.ru_utime + each.ru_stime for each in own)


@contextmanager
def started(module: str, *arguments: str | Path | int, log: Path) -> Iterator[Process]:
    """A Python module as a process; SIGTERM, and then SIGKILL, end it with the context."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HYPERWATCH_")}
    command: Sequence[str] = [sys.executable, "-m", module, *map(str, arguments)]
    with log.open("wb") as errors:
        child = subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
    with child:
        try:
            yield Process(child, log, profiled=module == "benchmarks.profiled")
        finally:
            child.terminate()
            try:
                child.wait(_END_S)
            except subprocess.TimeoutExpired:
                child.kill()
