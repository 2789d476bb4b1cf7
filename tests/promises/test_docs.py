"""The documentation says what the program does."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import string
from http import HTTPStatus
from pathlib import Path

import click
import pytest

from hyperwatch.cli.main import program
from hyperwatch.errors import HyperwatchError
from hyperwatch.feed.requests import nesting
from hyperwatch.feed.requests.answers import ProtocolError, Subscribe, Unsubscribe
from hyperwatch.feed.requests.parse import parse
from hyperwatch.node.statuses import OFFICIAL
from hyperwatch.runtime.watchdog import EXIT_STUCK
from hyperwatch.server import admission, client_log, frames, http, info_proxy, limits, server, transport, websocket
from hyperwatch.server.refusals import Reason

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_command_reference_is_what_the_program_says_of_itself() -> None:
    spec = importlib.util.spec_from_file_location("make_commands", ROOT / "docs" / "make_commands.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)

    assert (ROOT / "docs" / "commands.md").read_text() == made.page(), "run `make docs`"


def test_every_command_has_help_and_is_shown_in_use() -> None:
    shown = "".join(path.read_text() for path in PAGES if path.name != "commands.md")
    for name, command in program.commands.items():
        assert command.help
        assert f"hyperwatch {name}" in shown, name
        assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_in_the_table_of_contents() -> None:
    docs = ROOT / "docs"
    pages = {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    assert {page for page in pages if f"]({page})" not in (docs / "index.md").read_text()} == {"index.md"}


def command_lines() -> list[str]:
    """What is shown of the program in use."""
    pages = [path.read_text() for path in PAGES if path.name != "commands.md"]
    blocks = [block for page in pages for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)]
    return sorted({line for block in blocks for line in block.splitlines() if line.startswith("hyperwatch ")})


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_that_is_shown_uses_options_that_exist(line: str) -> None:
    command: click.Command = program
    known: set[str] = {name for option in program.params for name in option.opts}
    words = re.split(r"[#|>]", line)[0].split()[1:]
    for word in words:
        if isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
            known |= {name for option in command.params for name in option.opts}
    assert command is not program
    assert {word for word in words if word.startswith("--")} <= known


def documents() -> list[str]:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "protocol.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.mark.parametrize("text", documents(), ids=range(len(documents())))
def test_every_message_in_the_protocol_reference_is_one(text: str) -> None:
    message = json.loads(text)
    if "method" in message:
        parse(text)
        if message["method"] not in ("ping", "auth"):
            assert isinstance(parse(text), Subscribe | Unsubscribe)
    else:
        assert "channel" in message


def test_the_protocol_reference_has_every_official_status() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    assert [status for status in OFFICIAL if f"`{status}`" not in text] == []


def test_the_protocol_reference_has_every_code_of_an_error() -> None:
    source = (ROOT / "hyperwatch" / "feed" / "requests" / "answers.py").read_text()
    codes = set(re.findall(r'"((?:bad|unknown|already|invalid|too-many|not)-[a-z]+|unauthorized)"', source))
    text = (ROOT / "docs" / "protocol.md").read_text()
    assert codes
    assert [code for code in codes if f"`{code}`" not in text] == []


def test_every_exit_code_of_an_error_is_in_the_table_and_so_are_those_of_signals() -> None:
    def codes(kind: type[HyperwatchError]) -> set[int]:
        return {kind.exit_code}.union(*map(codes, kind.__subclasses__()))

    table = (ROOT / "docs" / "commands.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert told == {0, EXIT_STUCK, 128 + signal.SIGINT, 128 + signal.SIGTERM} | codes(HyperwatchError)


def test_every_mark_of_the_log_is_in_its_page() -> None:
    source = "".join(path.read_text() for path in (ROOT / "hyperwatch").rglob("*.py"))
    marks = set(re.findall(r'"([^\w\s"]) ', source)) - set(string.punctuation)
    told = set(re.findall(r"^\| (\S)(?: All parallel)? \|", (ROOT / "docs" / "log.md").read_text(), re.MULTILINE))
    assert len(marks) == 4
    assert told == marks


def test_the_table_of_limits_is_what_the_code_says() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    kib = 1024
    silent_s = websocket.BEAT_S * websocket.SILENT_BEATS
    for what, default in (
        ("WebSocket connections", limits.DEFAULT_CONNECTIONS),
        ("those of one address", limits.DEFAULT_CONNECTIONS_PER_ADDRESS),
        ("handshakes and plain requests under way", admission.HANDSHAKES),
        ("those of one address", admission.HANDSHAKES_PER_ADDRESS),
        ("seconds for a request's head, for its body, for a token", f"{server.HANDSHAKE_S:g}"),
        ("bytes of a request's head", http.HEAD_BYTES),
        ("subscriptions of a connection", limits.DEFAULT_SUBSCRIPTIONS),
        ("KiB of a message", frames.INBOUND_BYTES // kib),
        ("lists and objects within each other in it", nesting.DEPTH),
        ("frames of a message", frames.INBOUND_FRAMES),
        ("frames a second, pings too", frames.FRAMES_PER_S),
        ("frames in a burst", frames.FRAMES_BURST),
        ("KiB a second", frames.BYTES_PER_S // kib),
        ("KiB in a burst", frames.BYTES_BURST // kib),
        ("seconds without a word from the client", f"{silent_s:g} to {silent_s + websocket.BEAT_S:g}"),
        ("seconds that a stalled socket has for a goodbye", f"{transport.STALLED_S:g}"),
        ("bytes of a request to `/info`", info_proxy.REQUEST_BYTES),
        ("MiB of an answer to it", info_proxy.ANSWER_BYTES // kib**2),
        ("seconds for that answer", f"{info_proxy.ANSWER_S:g}"),
    ):
        assert f"| {what} | {default} |" in text, what
    assert info_proxy.AT_ONCE == 4, "docs/security.md says four at once"
    assert [kind for kind in info_proxy.ALLOWED if f"`{kind}`" not in text] == []


def test_how_many_lines_a_client_may_cause_is_what_the_code_says() -> None:
    text = (ROOT / "docs" / "log.md").read_text()
    assert (client_log.FEW, client_log.SPAN_S, client_log.ADDRESSES) == (5, 60, 256)
    assert "five in a minute are" in text
    assert f"Beyond {client_log.ADDRESSES} addresses" in text


def test_every_refusal_is_in_the_page_on_security_under_its_name_and_with_its_code() -> None:
    rows = [row.split("|")[1:-1] for row in (ROOT / "docs" / "security.md").read_text().splitlines() if row[:2] == "| "]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row[-1])}
    assert names == set(Reason)
    source = "".join(path.read_text() for path in (ROOT / "hyperwatch" / "server").glob("*.py"))
    used = set(re.findall(r"RefusedError\((?:Why\.\w+), HTTPStatus\.(\w+)", source))
    told = {code for row in rows for cell in row for code in re.findall(r"\b\d{3}\b", cell)}
    assert {str(HTTPStatus[name].value) for name in used} <= told


def test_a_bad_example_would_be_found() -> None:
    with pytest.raises(ProtocolError):
        parse('{"method":"subscribe","subscription":{"type":"orders","coin":"BTC"}}')
