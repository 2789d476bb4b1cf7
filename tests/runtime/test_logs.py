"""The log never holds up who logs, whatever becomes of standard error."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio
from loguru import logger

from guarded import asked
from hyperwatch.runtime import logs
from hyperwatch.runtime.log_writer import Drain, write_all
from processes import free_port, until_up
from support import append, connected, event, hour_file, line

PROGRAM = (sys.executable, "-m", "hyperwatch")


@attrs.define
class Pipe:
    """A writer that stands still until it is told to go on."""

    written: list[bytes] = attrs.Factory(list)
    asked: threading.Event = attrs.Factory(threading.Event)
    go: threading.Event = attrs.Factory(threading.Event)
    fault: OSError | None = None

    def write(self, data: bytes) -> None:
        self.asked.set()
        assert self.go.wait(10)
        if self.fault is not None:
            raise self.fault
        self.written.append(data)


def drain_of(pipe: Pipe, *, max_lines: int = 3, max_bytes: int = 1000) -> Drain:
    drain = Drain(pipe.write, lambda lost: drain.put(b"(%d lost)" % lost), max_lines=max_lines, max_bytes=max_bytes)
    return drain


def test_who_logs_never_waits_and_what_is_lost_is_said_where_it_is_missing() -> None:
    pipe = Pipe()
    drain = drain_of(pipe)
    drain.put(b"a")
    assert pipe.asked.wait(10)
    for letter in b"bcdefg":
        drain.put(bytes((letter,)))
    assert (drain.dropped, drain.flush(0)) == (3, False)

    pipe.go.set()
    assert drain.flush(10)
    drain.put(b"h")
    assert drain.flush(10)
    assert b"".join(pipe.written) == b"abcd(3 lost)h"


def test_what_waits_is_bounded_in_bytes_too() -> None:
    pipe = Pipe()
    drain = drain_of(pipe, max_lines=100)
    drain.put(b"a")
    assert pipe.asked.wait(10)
    for _ in range(5):
        drain.put(b"x" * 300)
    assert drain.dropped == 2
    pipe.go.set()
    assert drain.flush(10)


def test_what_could_not_be_written_is_said_when_it_can_be() -> None:
    pipe = Pipe(fault=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    pipe.go.set()
    drain = drain_of(pipe)
    for letter in b"ab":
        drain.put(bytes((letter,)))
        assert drain.flush(10)
    pipe.fault = None
    drain.put(b"c")
    assert drain.flush(10)
    assert (pipe.written, drain.dropped) == ([b"(2 lost)c"], 2)


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = os.urandom(300_000)
    writing = threading.Thread(target=write_all, args=(writer, data), daemon=True)
    writing.start()
    got = b""
    while len(got) < len(data):
        got += os.read(reader, 65536)
    writing.join(10)
    os.close(reader)
    os.close(writer)
    assert got == data


@contextmanager
def stuck() -> Iterator[int]:
    """The end of a pipe that is full and that nobody empties."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def broken() -> Iterator[int]:
    """The end of a pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


@contextmanager
def full() -> Iterator[int]:
    """A file on a disk that is full."""
    with open("/dev/full", "wb", 0) as file:  # noqa: PTH123  there is no path that is ours
        yield file.fileno()


@contextmanager
def closed() -> Iterator[None]:
    """None at all."""
    yield None


@contextmanager
def started(command: Sequence[str], error: int | None) -> Iterator[subprocess.Popen[bytes]]:
    if error is None:
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=error)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("ends", [stuck, broken, full, closed])
async def test_the_feed_and_the_stop_need_nobody_who_reads_the_log(tmp_path: Path, ends: type, style: str) -> None:
    path, port = hour_file(tmp_path, "20260505/9"), free_port()
    append(path, line(7, [event(1)]))
    command = [*PROGRAM, "run", "--metrics-listen=", "--data-dir", str(tmp_path), "--listen", f"127.0.0.1:{port}"]
    command += ["--state-dir", f"{tmp_path}-state", "--log-level", "DEBUG", "--log-format", style]
    with trio.fail_after(40), ends() as error, started(command, error) as process:
        await until_up(port)
        async with connected(port) as client:
            await client.subscribe(type="orders")
            await client.hear("live")
            for block in range(8, 108):
                append(path, line(block, [event(block)]))
                assert [number for number, _, _ in await client.collect(1)] == [block]
        assert (await asked(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
        process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(process.wait, 8) == 0


def test_lines_that_were_lost_are_counted_in_the_metrics_and_said_when_it_flows_again() -> None:
    code = (
        "import sys; from loguru import logger; from hyperwatch.monitor import metrics; from hyperwatch.runtime import logs\n"
        "logs.own_process(); logs.to_stderr('ERROR', 'json')\n"
        "for number in range(9000): logger.error('line {}', number)\n"
        "(found,) = [each for each in metrics.METRICS if each.whole_name == 'hyperwatch_log_lines_dropped_total']\n"
        "((_, lost),) = found.values(None); print(lost, flush=True); sys.stdin.read(); logs.flush(20)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        lost = int(process.stdout.readline())  # and nobody has read standard error
        process.stdin.close()
        said = [json.loads(text)["record"]["message"] for text in process.stderr]
    assert lost > 0
    assert len(said) == 9000 - lost + 1
    assert said[-1].startswith(f"{lost} lines of this log are missing here")


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('of a test')",
        "import threading; each = threading.Thread(target=lambda: 1 / 0); each.start(); each.join(); 1 / 0",
        "import warnings; warnings.warn('of a test'); 1 / 0",
        "import logging; logging.getLogger('trio').error('of a test'); 1 / 0",
        "from hyperwatch.runtime.watchdog import end_process; end_process('a thread of a test')",
    ],
)
def test_a_crash_ends_the_process_and_shows_its_last_lines_to_who_reads_them(code: str) -> None:
    code = "from hyperwatch.runtime import logs; logs.own_process(); logs.to_stderr('INFO', 'text')\n" + code
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "of a test" in done.stderr or "ZeroDivisionError" in done.stderr
    with stuck() as error:
        ended = subprocess.run([sys.executable, "-c", code], check=False, stderr=error, timeout=20)
    assert ended.returncode == done.returncode != 0


@pytest.mark.parametrize(
    "words", [["run", "--data-dir", "/no/where"], ["watch", "ws://127.0.0.1:1/ws"], ["replay", "/no/where"], ["no"]]
)
def test_a_command_that_fails_ends_though_nobody_reads_why(tmp_path: Path, words: list[str]) -> None:
    clean = {**os.environ, "HYPERWATCH_STATE_DIR": str(tmp_path)}
    with stuck() as error:
        ended = subprocess.run([*PROGRAM, *words], check=False, stderr=error, timeout=20, env=clean)
    assert ended.returncode in (1, 2)


def test_a_traceback_in_the_log_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    logs.to_stderr("INFO", "text")
    token = "SECRETTOKEN" + "OF-A-CLIENT"
    try:
        int(token)
    except ValueError as error:
        error.args = ("no number",)
        logger.exception("a fault")
    logs.flush()
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert token not in said
