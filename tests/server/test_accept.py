"""Connections are accepted also where there is too little to accept them with."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from loguru import logger
from trio.testing import memory_stream_pair

from guarded import asked
from hyperwatch.server.accept import SPAN_S, accept_all
from processes import free_port, until_up
from support import append, connected, event, hour_file, line


@attrs.define(eq=False)
class Door(trio.abc.Listener[trio.SocketStream]):
    """A listener that fails so many times before each connection."""

    failures: list[int]
    code: int = errno.EMFILE

    async def accept(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        if not self.failures:
            await trio.sleep_forever()
        if self.failures[0]:
            self.failures[0] -= 1
            raise OSError(self.code, os.strerror(self.code))
        self.failures.pop(0)
        return memory_stream_pair()[0]  # type: ignore[return-value]  # any stream does

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EINVAL])
async def test_connections_that_cannot_be_accepted_are_one_line_a_minute_and_the_next_ones_are(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001  the fixture sets it
    code: int,
) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="DEBUG", format="{message}")
    served = 0

    async def handle(_: object) -> None:
        nonlocal served
        served += 1
        await trio.lowlevel.checkpoint()

    with trio.move_on_after(SPAN_S + 5):
        await accept_all(handle, [Door([3, 5, 0, 600, 0, 0], code)])
    logger.remove(sink)
    assert served == 6
    assert len(lines) == 2
    assert f"no connection can be accepted ({os.strerror(code)})" in lines[0]
    assert "more tries failed" in lines[1]
    assert "Traceback" not in "".join(lines)


async def test_with_64_open_files_the_service_says_so_and_goes_on_without_a_traceback(tmp_path: Path) -> None:
    path, port = hour_file(tmp_path / "data", "20260505/9"), free_port()
    append(path, line(7, [event(1)]))
    command = [sys.executable, "-m", "hyperwatch", "run", "--metrics-listen=", "--data-dir", str(tmp_path / "data")]
    command += ["--listen", f"127.0.0.1:{port}", "--state-dir", str(tmp_path / "state")]
    command = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *command]
    with (tmp_path / "said").open("wb") as error:
        process = await trio.to_thread.run_sync(partial(subprocess.Popen, command, stderr=error))
    crowd: list[socket.socket] = []
    try:
        with trio.fail_after(40):
            await until_up(port)
            async with connected(port) as client:
                await client.subscribe(type="orders")
                await client.hear("live")
                # So many at once that none of the descriptors is left before the first of them is refused.
                process.send_signal(signal.SIGSTOP)
                crowd += [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
                process.send_signal(signal.SIGCONT)
                for block in range(8, 28):
                    append(path, line(block, [event(block)]))
                    assert [number for number, _, _ in await client.collect(1)] == [block]
                for each in crowd:
                    each.close()
            status = 0
            while status != 200:  # those that wait in the queue go first
                status, _ = await asked(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            process.send_signal(signal.SIGTERM)
            assert await trio.to_thread.run_sync(process.wait, 8) == 0
    finally:
        for each in crowd:
            each.close()
        process.kill()
        process.wait()
    said = (tmp_path / "said").read_text()
    assert "Traceback" not in said
    assert said.count("no connection can be accepted (Too many open files)") == 1
    assert "there are open files for " in said
    assert "--max-connections 1000 needs 1512, with handshakes: raise the limit to 20" in said
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 200
