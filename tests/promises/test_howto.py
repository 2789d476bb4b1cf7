"""Every command of the tutorial and the how-to pages is run as it stands there, or named below with the reason."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
import trio
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from hyperwatch.ledger.state_dir import StateDir
from hyperwatch.log.advice import FLAGS, UNBUFFERED
from hyperwatch.node.slices import UnreadableLine
from hyperwatch.node.streams import STREAMS, Layout
from support import append, event, hour_file, line, running, works

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]

NOT_RUN = {
    "a fresh checkout: the slow test below runs it": (
        "git clone URL hyperwatch",
        "cd hyperwatch",
        "make demo SECONDS=10",
    ),
    "needs a Docker engine; what it names is checked below, the files by tests/promises/test_container.py": (
        "docker compose build hyperwatch",
        "docker compose build --pull hyperwatch",
        "docker compose up --detach hyperwatch",
        "docker compose up --detach --no-build hyperwatch",
        "HYPERWATCH_NODE_VOLUME=my-volume HYPERWATCH_PORT=8001 docker compose up --detach hyperwatch",
        "docker compose stop hyperwatch",
        "docker compose logs --follow hyperwatch",
        'docker compose logs --follow hyperwatch | grep -E "📦|✅ All parallel|📡|⏰"',
        "docker compose --profile demo up",
        "docker compose --profile demo down --volumes",
        "docker compose --profile node --profile monitoring up --detach",
        "docker tag hyperwatch:before hyperwatch:latest",
        "docker buildx imagetools inspect python:3.13-slim",
        (
            'docker run --rm --volume hyperwatch_state:/from:ro --volume "$PWD/state:/to" --user 0 --entrypoint cp '
            "hyperwatch -a /from/. /to"
        ),
    ),
    "changes users, services or owners of the machine; tests/promises/test_container.py checks the unit": (
        "sudo useradd --system --home-dir /var/lib/hyperwatch --shell /usr/sbin/nologin hyperwatch",
        "sudo install -m 0644 deploy/systemd/hyperwatch.service /etc/systemd/system/",
        "sudo systemctl edit hyperwatch",
        "sudo systemctl daemon-reload",
        "sudo systemctl enable --now hyperwatch",
        "sudo systemctl restart hyperwatch",
        "sudo -u hyperwatch -g hluser ls /home/hluser/hl/data",
        "sudo chown -R 10000:10000 state",
        "sudo chown 10000:10000 tokens",
        "chmod 600 tokens",
    ),
    "writes to /opt from a registry; tests/promises/test_container.py builds an environment by the same steps": (
        "sudo python3.11 -m venv /opt/hyperwatch",
        "sudo /opt/hyperwatch/bin/pip install --require-hashes -r constraints.txt",
        "sudo /opt/hyperwatch/bin/pip install --no-deps --no-build-isolation .",
        "sudo /opt/hyperwatch/bin/pip install --no-deps --no-build-isolation --force-reinstall .",
    ),
    "needs systemd": ("journalctl --unit hyperwatch --follow",),
    "needs another machine": ("ssh -L 3000:127.0.0.1:3000 -L 8000:127.0.0.1:8000 my-node",),
    "needs a public name with a certificate": (
        "curl https://feed.example.com/readyz",
        "HYPERWATCH_TOKEN=... hyperwatch watch wss://feed.example.com/ws --count 3",
    ),
    "not installed for this; replay's own tests check what it reads": (
        "duckdb -c \"SELECT event.status, count(*) FROM 'all.jsonl' GROUP BY 1 ORDER BY 2 DESC\"",
    ),
}
"""By reason. Each stands here as a whole: a new command is run, or somebody says why not."""

SKIPPED = frozenset(command for group in NOT_RUN.values() for command in group)

LANGUAGES = {"sh", "python", "yaml", "ini", "text"}
"""Of the pages' blocks. Commands stand in `sh`, where they are found."""

BEFORE = {
    "alerts.md": [],
    "monitoring.md": ["hyperwatch simulate /tmp/node --rate 200", "hyperwatch run --data-dir /tmp/node"],
    "move-state.md": ["hyperwatch simulate /tmp/node --rate 200 --blocks 5"],
    "runbook.md": ["hyperwatch simulate /tmp/node --rate 2000", "hyperwatch run --data-dir /tmp/node"],
    "tokens-and-tls.md": ["hyperwatch simulate /tmp/node --rate 2000"],
}
"""What the reader of a page has running already."""


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return [command for block in blocks for command in block.splitlines() if command]


def to_run(page: Path) -> list[str]:
    return [command for command in commands(page) if command not in SKIPPED]


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
        (self.root / "work" / "deploy").symlink_to(ROOT / "deploy")  # the reader is in a checkout
        (self.root / "bin").mkdir()
        with StateDir(self.root / "state") as state:
            state.keep("20260505/9", [UnreadableLine(0, 4, "torn", b"torn")])
        program = self.root / "bin" / "hyperwatch"
        # `watch` has no variable for where the feed is.
        program.write_text(
            f'#!/bin/sh\n[ "$1" = watch ] && case "$2" in ws:*) ;; *) shift; '
            f'set -- watch ws://127.0.0.1:{self.ports[0]}/ws "$@";; esac\n'
            f'exec {shlex.quote(sys.executable)} -m hyperwatch "$@"\n'
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
        command = command.replace("/tmp/", f"{shlex.quote(str(self.root))}/tmp/")  # noqa: S108  that is what is replaced
        for shown, port in zip((8000, 8001), self.ports, strict=True):
            command = command.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{port}")
        return command

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", "HOME": str(self.root), "PYTHONPATH": str(ROOT),
            "HYPERWATCH_STATE_DIR": str(self.root / "state"), "HYPERWATCH_LISTEN": f"127.0.0.1:{self.ports[0]}",
            "HYPERWATCH_METRICS_LISTEN": "127.0.0.1:0",
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
    for program, asked, package in (
        ("curl", "--version", "curl"), ("openssl", "version", "openssl"), ("promtool", "--version", "prometheus"),
    ):  # fmt: skip
        if any(command.startswith(program) for command in to_run(page)) and not works(program, asked):
            pytest.skip(f"needs Debian's package {package}: here `{program} {asked}` does not work")
    with machine(tmp_path) as here:
        for command in [*BEFORE.get(page.name, []), *to_run(page)]:
            here.run(command)


def test_what_is_not_run_is_on_some_page() -> None:
    shown = {command for page in PAGES for command in commands(page)}
    assert shown >= SKIPPED


def test_the_page_on_containers_names_the_nodes_flags_before_its_first_command() -> None:
    before, _, _ = (ROOT / "docs" / "how-to" / "container.md").read_text().partition("```sh")
    [block] = re.findall(r"```yaml\n(.*?)```", before, re.DOTALL)
    flags = {word for word in yaml.safe_load(block)["services"]["node"]["entrypoint"] if word.startswith("--")}
    assert flags == {stream.flag for stream in STREAMS.values()} | {FLAGS[Layout.STREAMING].strip(), UNBUFFERED}


def test_no_command_hides_in_a_block_of_another_kind() -> None:
    for page in PAGES:
        blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE)
        assert {language for language, _ in blocks} <= LANGUAGES, page.name
        others = [body for language, body in blocks if language != "sh"]
        assert not [
            body for body in others if re.search(r"^ *(\$|hyperwatch|docker|curl|make|sudo) ", body, re.MULTILINE)
        ]


def test_what_the_commands_of_docker_name_is_in_the_compose_file() -> None:
    document = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services, profiles = (
        document["services"],
        {name for each in document["services"].values() for name in each["profiles"]},
    )
    named = [shlex.split(command.partition("|")[0]) for command in SKIPPED if "docker compose" in command]
    assert named
    for words in named:
        assert {after for before, after in pairwise(words) if before == "--profile"} <= profiles
        verb = next(number for number, word in enumerate(words) if word in {"build", "up", "down", "stop", "logs"})
        assert {word for word in words[verb + 1 :] if not word.startswith("-")} <= services.keys()
    volumes = [f"{document['name']}_{name}" for name in document["volumes"]]
    assert [
        name for command in SKIPPED for name in re.findall(r"--volume (\w+):", command) if name not in volumes
    ] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("registry")
def test_a_fresh_checkout_shows_a_feed_by_the_first_commands_of_the_tutorial(tmp_path: Path) -> None:
    """Asks the registry."""
    first = commands(PAGES[0])[:3]
    assert first == list(next(iter(NOT_RUN.values())))
    script = "\n".join(first).replace("URL", shlex.quote(str(ROOT))).replace("SECONDS=10", "SECONDS=3")
    clean = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    shell = ["/usr/bin/env", "bash", "-euc", script]
    done = subprocess.run(shell, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lost 0 by seq and 0 by count" in done.stdout


async def test_the_client_of_the_tutorial_goes_on_where_it_was(tmp_path: Path) -> None:
    path, place = hour_file(tmp_path / "data", "20260505/9"), tmp_path / "cursor.txt"
    append(path, line(1, [event(0)]))
    heard = []
    async with running(tmp_path / "data") as port:
        command = [sys.executable, "-u", "-c", program_of("tutorial.md", port)]
        for number in (1, 2):
            process = await trio.lowlevel.open_process(command, cwd=tmp_path, stdout=subprocess.PIPE)
            try:
                if number == 1:
                    await until_noted(place, "")
                    append(path, line(2, [event(1)]))
                before = place.read_text()
                assert process.stdout is not None
                heard.append(await first_line(process.stdout))
                await until_noted(place, before)
            finally:
                process.kill()
            await process.wait()
            append(path, line(number + 2, [event(number + 1)]))  # while it is away
    assert heard == ["open 1", "open 2"]


async def until_noted(place: Path, before: str) -> None:
    while not place.exists() or place.read_text() in {"", before}:  # noqa: ASYNC110  another process decides
        await trio.sleep(0.01)


async def first_line(stream: trio.abc.ReceiveStream) -> str:
    said = b""
    while b"\n" not in said:
        got = await stream.receive_some()
        assert got, "it ended"
        said += got
    return said.partition(b"\n")[0].decode()


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
