"""Every command of the tutorial and the how-to pages is run as it stands there, or named below with the reason."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import pytest
import trio

from hyperwatch.log.state import State
from hyperwatch.node.runs import Damage
from support import append, event, hour_file, line, running

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]

NOT_RUN = {
    "git clone ": "the checkout is what runs this",
    "cd ": "the same",
    "make ": "installs from a registry; the checks of a change run it",
    "docker ": "needs a Docker engine; tests/test_container.py checks what can be checked without",
    "HYPERWATCH_NODE_VOLUME=": "the same",
    "sudo ": "changes the machine; tests/test_container.py checks the unit",
    "journalctl ": "needs systemd",
    "curl ": "the endpoints have their own tests",
    "ssh ": "needs another machine",
    "promtool ": "tests/test_alerts.py runs it, where it is installed",
    "duckdb ": "not installed for this; replay's own tests check what it reads",
}
"""How a command begins, and why no test runs it."""

BEFORE = {
    "alerts.md": [],
    "move-state.md": ["hyperwatch simulate /tmp/node --rate 200 --blocks 5"],
    "runbook.md": ["hyperwatch simulate /tmp/node --rate 2000", "hyperwatch run --data-dir /tmp/node"],
}
"""What the reader of a page has running already."""


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return [command for block in blocks for command in block.splitlines() if command]


def to_run(page: Path) -> list[str]:
    return [command for command in commands(page) if not command.startswith(tuple(NOT_RUN))]


def is_endless(command: str) -> bool:
    """Whether it goes on until it is ended."""
    if command.startswith("hyperwatch simulate"):
        return "--blocks" not in command
    if command.startswith("hyperwatch watch"):
        return "--count" not in command
    return command.startswith("hyperwatch run") or "--to ws" in command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@attrs.define
class Machine:
    """A reader's machine: /tmp, the home directory and the ports are its own."""

    root: Path
    ports: tuple[int, int] = attrs.field(factory=lambda: (free_port(), free_port()))
    _running: list[tuple[str, subprocess.Popen[bytes], Path]] = attrs.field(factory=list)

    def set_up(self) -> None:
        """A node's data directory at home, a state directory with one unreadable line, and the program on the path."""
        (self.root / "tmp" / "node").mkdir(parents=True)
        (self.root / "hl").mkdir()
        (self.root / "hl" / "data").symlink_to(self.root / "tmp" / "node")
        (self.root / "work").mkdir()
        (self.root / "bin").mkdir()
        with State(self.root / "state") as state:
            state.keep("20260505/9", [Damage(0, 4, "torn", b"torn")])
        program = self.root / "bin" / "hyperwatch"
        # `watch` has no variable for where the feed is.
        program.write_text(
            f'#!/bin/sh\n[ "$1" = watch ] && case "$2" in ws:*) ;; *) shift; '
            f'set -- watch ws://127.0.0.1:{self.ports[0]}/ws "$@";; esac\n'
            f'exec {sys.executable} -m hyperwatch "$@"\n'
        )
        program.chmod(0o755)

    def run(self, command: str) -> None:
        """To its end; what is endless until it has something to show, and then on."""
        if command.startswith(("hyperwatch run", "mv ")):  # the page tells its reader to end what runs
            self.end("hyperwatch watch")
            self.end("hyperwatch run")
        process, said = self._begin(command)
        self._running.append((command, process, said))
        if is_endless(command):
            wait_for_sign(command, process, said)
        else:
            assert process.wait() == 0, (command, said.read_bytes())
            self._running.pop()

    def end(self, beginning: str = "") -> None:
        """Ends what is endless, the newest first, and sees that it ended in order. A recording may be at its end."""
        for each in reversed([each for each in self._running if each[0].startswith(beginning)]):
            command, process, said = each
            self._running.remove(each)
            process.send_signal(signal.SIGTERM)  # does nothing where it has ended
            assert process.wait(10) in {0, 128 + signal.SIGTERM, 128 + signal.SIGINT}, (command, said.read_bytes())

    def kill(self) -> None:
        for _, process, _ in self._running:
            process.kill()
            process.wait()

    def _begin(self, command: str) -> tuple[subprocess.Popen[bytes], Path]:
        said = self.root / f"said-{len(list(self.root.glob('said-*')))}"
        shell = ["/usr/bin/env", "bash", "-c", self._mine(command)]  # which makes way for a command that stands alone
        with said.open("wb") as file:
            process = subprocess.Popen(shell, cwd=self.root / "work", env=self._environment, stdout=file, stderr=file)
        return process, said

    def _mine(self, command: str) -> str:
        command = command.replace("/tmp/", f"{self.root}/tmp/")  # noqa: S108  that is what is replaced
        for shown, port in zip((8000, 8001), self.ports, strict=True):
            command = command.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{port}")
        return command

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", "HOME": str(self.root), "PYTHONPATH": str(ROOT),
            "HYPERWATCH_STATE_DIR": str(self.root / "state"), "HYPERWATCH_LISTEN": f"127.0.0.1:{self.ports[0]}",
        }  # fmt: skip


def wait_for_sign(command: str, process: subprocess.Popen[bytes], said: Path) -> None:
    """Until it has something to show."""
    if command.startswith("hyperwatch simulate"):
        return  # says nothing
    sign = b'"status"' if command.startswith("hyperwatch watch") else b"ws://"
    while sign not in said.read_bytes():
        assert process.poll() is None, (command, said.read_bytes())
        time.sleep(0.01)  # another process decides; the test's own timeout bounds it


@contextmanager
def machine(root: Path) -> Iterator[Machine]:
    here = Machine(root)
    here.set_up()
    try:
        yield here
        here.end()
    finally:
        here.kill()


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)], ids=lambda page: page.name)
def test_every_command_of_the_page_works(page: Path, tmp_path: Path) -> None:
    with machine(tmp_path) as here:
        for command in [*BEFORE.get(page.name, []), *to_run(page)]:
            here.run(command)


def test_what_is_not_run_is_on_some_page() -> None:
    shown = [command for page in PAGES for command in commands(page)]
    assert [start for start in NOT_RUN if not any(command.startswith(start) for command in shown)] == []


def test_a_command_that_fails_is_seen(tmp_path: Path) -> None:
    """A test that would pass whatever the commands do would be none."""
    with pytest.raises(AssertionError), machine(tmp_path) as here:
        here.run("hyperwatch gaps --state-dir /nowhere")
    with pytest.raises(AssertionError), machine(tmp_path / "more") as here:
        here.run("hyperwatch run --data-dir /nowhere")


def program_of(page: str, port: int) -> str:
    """The page's Python, with the feed at another port."""
    [source] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return str(source).replace("127.0.0.1:8000", f"127.0.0.1:{port}")


async def test_the_client_of_the_page_on_resuming_has_every_event_once_though_it_is_killed(tmp_path: Path) -> None:
    path = hour_file(tmp_path / "data", "20260505/9")
    append(path, line(1, [event(0)]))
    store = tmp_path / "fills.db"
    async with running(tmp_path / "data") as port:
        command = [sys.executable, "-c", program_of("how-to/resume.md", port)]
        for life in range(3):
            process = await trio.lowlevel.open_process(command, cwd=tmp_path)
            try:
                await until_it_has_subscribed(store, before=life)
                for number in range(10 * life, 10 * life + 10):
                    append(path, line(number + 2, [event(number, status="filled"), event(number, status="open")]))
                await until_stored(store, 10 * life + (10 if life == 2 else 3))
            finally:
                process.kill()
            await process.wait()
    assert stored(store) == list(range(30))


async def until_it_has_subscribed(store: Path, before: int) -> None:
    while before == 0 and not place(store):  # noqa: ASYNC110  another process decides
        await trio.sleep(0.01)


async def until_stored(store: Path, count: int) -> None:
    while len(stored(store)) < count:  # noqa: ASYNC110  another process decides
        await trio.sleep(0.005)


def place(store: Path) -> list[tuple[str]]:
    return read(store, "SELECT cursor FROM place")


def stored(store: Path) -> list[int]:
    return [int(oid) for (oid,) in read(store, "SELECT oid FROM filled ORDER BY rowid")]


def read(store: Path, query: str) -> list[tuple[str]]:
    with closing(sqlite3.connect(store)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []  # not made yet
