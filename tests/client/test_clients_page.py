"""The clients in docs/clients.md do what the page says: each is run against a service, as it stands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from support import append, event, hour_file, line, running, works
from terminal import environment

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "clients.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EXPECTED = [
    ["open 1 65045.0", "filled 2 65045.0", "open 3 65045.0"],
    ["2 events of block 7", "1 events of block 8"],
    ["bids 2", "bids 1", "filled 1"],
    ["open 1", "filled 2", "open 3"],
]
SCRIPT, SHELL = (re.findall(rf"```{word}\n(.*?)```", PAGE, re.DOTALL)[0] for word in ("js", "sh"))
NODE = [shutil.which("node") or "node", "--experimental-websocket", "--no-warnings"]


async def lines_of(command: list[str], folder: Path, count: int) -> list[str]:
    """The first lines that a program prints; then it is ended."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, start_new_session=True,
        env=environment(folder) | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    said = b""
    try:
        with trio.fail_after(30):
            while said.count(b"\n") < count:
                piece = await process.stdout.receive_some()
                assert piece, said
                said += piece
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()
    return said.decode().splitlines()[:count]


def write(root: Path) -> None:
    """Two blocks with three events."""
    first = [event(1), event(2, status="filled")]
    append(hour_file(root, "20260505/9"), line(7, first) + line(8, [event(3)]))


@pytest.mark.parametrize("number", range(len(PYTHON)))
async def test_every_python_client_of_the_page_hears_every_order(tmp_path: Path, number: int) -> None:
    write(tmp_path)
    async with running(tmp_path) as port:
        code = PYTHON[number].replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        expected = EXPECTED[number]
        assert sorted(await lines_of([sys.executable, "-c", code], tmp_path, len(expected))) == sorted(expected)


async def test_the_client_that_keeps_its_place_goes_on_there(tmp_path: Path) -> None:
    write(tmp_path)
    async with running(tmp_path) as port:
        code = PYTHON[1].replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        await lines_of([sys.executable, "-c", code], tmp_path, 2)  # killed behind block 8, or before it has noted that
        append(hour_file(tmp_path, "20260505/9"), line(9, [event(4)]))
        assert (await lines_of([sys.executable, "-c", code], tmp_path, 1))[0].endswith(("block 8", "block 9"))


@pytest.mark.skipif(not works(*NODE, "-e", "WebSocket"), reason="there is no Node with a WebSocket here")
async def test_the_browsers_client_hears_every_order(tmp_path: Path) -> None:
    write(tmp_path)
    async with running(tmp_path) as port:
        code = SCRIPT.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        assert await lines_of([*NODE, "-e", code], tmp_path, 3) == EXPECTED[3]


async def test_the_client_on_the_command_line_hears_orders(tmp_path: Path) -> None:
    write(tmp_path)
    async with running(tmp_path) as port:
        code = SHELL.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace(
            "python -m", f"{shlex.quote(sys.executable)} -m"
        )
        code = code.replace('"coins"', '"from":"earliest","coins"')
        said = "".join(await lines_of(["bash", "-c", code], tmp_path, 3))
    assert '"channel":"subscriptionResponse"' in said
