"""Services that run as processes of their own: where they listen, when they are up, what memory they take."""

from __future__ import annotations

import socket
from pathlib import Path

import trio


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def until_up(port: int) -> None:
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.02)  # the process is on its way up; nothing announces it
        else:
            await stream.aclose()
            return


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


async def port_of(log: Path) -> int:
    while "ws://" not in (text := log.read_text()):  # noqa: ASYNC110  another process announces it
        await trio.sleep(0.05)
    return int(text.partition("ws://127.0.0.1:")[2].partition("/")[0])
