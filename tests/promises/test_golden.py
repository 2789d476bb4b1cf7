"""What others read of hyperwatch is byte for byte what it was: messages, cursors, status, metrics, help texts, log.

The texts are in `tests/promises/golden`. A change that is meant writes them anew: `HYPERWATCH_GOLDEN=write pytest tests/promises/test_golden.py`.
"""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from loguru import logger

from hyperwatch.cli.main import program
from hyperwatch.config import Address
from hyperwatch.node.streams import DIFFS, FILLS, Layout
from support import USER, Client, append, connected, diff, event, fill, hour_file, line, running

GOLDEN = Path(__file__).parent / "golden"
HOUR = "20260505/9"
SUBSCRIPTIONS: list[dict[str, object]] = [
    {"type": "orders", "id": "all"},
    {"type": "orders", "id": "some", "coins": ["BTC"], "notStatuses": ["rejected"], "minPx": "1", "from": "earliest"},
    {"type": "orders", "id": "any", "filters": [{"users": [USER]}, {"oids": [3]}], "from": {"block": 8}},
    {"type": "fills", "id": "fills", "users": [USER], "from": "earliest"},
    {"type": "bookDiffs", "id": "diffs", "from": {"time": 0}},
    {"type": "orderUpdates", "user": USER},
    {"type": "userFills", "user": USER},
    {"type": "trades", "coin": "BTC"},
    {"type": "orders", "id": "typo", "coinz": ["BTC"]},
    {"type": "orders", "id": "coin", "coins": ["btc"], "statuses": ["cancelled"]},
    {"type": "orders", "id": "bad", "from": "yesterday"},
    {"type": "l2Book", "coin": "BTC"},
]


def is_golden(name: str, text: str) -> None:
    """Fails where a text is not the one that is kept under this name."""
    path = GOLDEN / name
    if os.environ.get("HYPERWATCH_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def node(root: Path) -> None:
    """The files of a node with each kind of event, a line that cannot be read, and a rejected order."""
    orders = line(7, [event(1), event(2, coin="ETH", status="badAloPxRejected")]) + b"nonsense\n"
    append(hour_file(root, HOUR), orders + line(8, [event(3, status="filled")]) + line(8, [event(4, status="new1")]))
    for stream, made in ((FILLS, [fill(1), fill(1, "A", crossed=True)]), (DIFFS, [diff(1), diff(2, coin="@7")])):
        append(hour_file(root, HOUR, Layout.STREAMING, stream), line(7, made))


def later(root: Path) -> None:
    """What the node writes while the feed is served."""
    append(hour_file(root, HOUR), line(9, [event(5), event(6, user="0x" + "cd" * 20)]) + b"{}\n")
    append(hour_file(root, HOUR, Layout.STREAMING, FILLS), line(9, [fill(2), fill(2, "A", coin="BTC", crossed=True)]))
    append(hour_file(root, HOUR, Layout.STREAMING, DIFFS), line(9, [diff(3, change={"new": {"sz": "1.0"}})]))


def without_times(text: str) -> str:
    """The same, whenever it is read: what a clock or a port says is a letter."""
    text = re.sub(r'"(writeTime|readTime|fetchTime)":\d+', r'"\1":T', text)
    return re.sub(r"127\.0\.0\.1:\d+", "HOST:PORT", text)


async def heard(client: Client) -> list[str]:
    """What comes until nothing has come for a while (less than the second of `cursor` messages, which are left out)."""
    messages: list[str] = []
    while True:
        with trio.move_on_after(0.7) as quiet:
            message = await client.socket.get_message()
            text = message if isinstance(message, str) else message.decode()
            if not text.startswith('{"channel":"cursor"'):
                messages.append(without_times(text))
        if quiet.cancelled_caught:
            return messages


async def test_every_kind_of_message_is_what_it_was(tmp_path: Path) -> None:
    node(tmp_path)
    said = []
    with trio.fail_after(55):
        async with running(tmp_path) as port:
            for subscription in SUBSCRIPTIONS:
                async with connected(port) as client:
                    await client.say({"method": "subscribe", "subscription": subscription})
                    said += [json.dumps(subscription), *await heard(client), ""]
            async with connected(port) as client:
                for subscription in SUBSCRIPTIONS[:8]:
                    await client.subscribe(**subscription)
                await heard(client)
                later(tmp_path)
                said += ["what is written later", *sorted(await heard(client))]
    is_golden("messages.txt", "\n".join(said) + "\n")


async def test_a_cursor_message_is_what_it_was(tmp_path: Path) -> None:
    node(tmp_path)
    with trio.fail_after(30):
        async with running(tmp_path) as port, connected(port) as client:
            await client.subscribe(**SUBSCRIPTIONS[1])
            message = await client.hear("cursor")
    is_golden("cursor.txt", without_times(json.dumps(message)) + "\n")


def shape(value: Any) -> Any:  # noqa: ANN401  a JSON value
    """A JSON value with its kinds of value instead of what only one moment shows."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return value if isinstance(value, bool) else "text" if isinstance(value, str) else "number or null"


async def ask(address: tuple[str, int], path: str) -> str:
    """The body of an answer."""
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join([part async for part in stream]).partition(b"\r\n\r\n")[2].decode()


async def test_the_status_and_the_metrics_have_the_names_that_they_had(tmp_path: Path) -> None:
    node(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with trio.fail_after(30):
        async with running(tmp_path, metrics_listen=Address("127.0.0.1", port)) as feed, connected(feed) as client:
            await client.subscribe(**SUBSCRIPTIONS[1])
            await client.subscribe(**SUBSCRIPTIONS[3])
            await client.hear("fills")
            status = json.loads(await ask(("127.0.0.1", feed), "/status"))
            metrics = await ask(("127.0.0.1", port), "/metrics")
    is_golden("status.json", json.dumps(shape(status), indent=1) + "\n")
    lines = [each for each in metrics.splitlines() if each]
    named = {each if each.startswith("#") else each.rsplit(" ", 1)[0] for each in lines}
    is_golden("metrics.txt", "\n".join(sorted(named)) + "\n")


@pytest.mark.parametrize("name", sorted(program.commands))
def test_the_help_of_every_command_is_what_it_was(name: str) -> None:
    command = program.commands[name]
    text = command.get_help(click.Context(command, info_name=name, terminal_width=100, max_content_width=100))
    # `-h` stands in the line on help, or not: the program adds it when it starts.
    is_golden(f"help-{name}.txt", re.sub(r"\n +(-h, )?--help +Show this message and exit\.", "", text))


async def test_the_marks_of_the_log_are_what_they_were(tmp_path: Path) -> None:
    """A mark is what is said without the values: what somebody searches a log for."""
    node(tmp_path)
    marks: list[str] = []
    sink = logger.add(
        lambda message: marks.append(f"{message.record['level'].name}: {message.record['message']}"), level="INFO"
    )
    try:
        with trio.fail_after(30):
            async with running(tmp_path, state_dir=tmp_path / "state") as port, connected(port) as client:
                await client.subscribe(type="orders", id="x", **{"from": "earliest"})
                await client.hear("gap")
    finally:
        logger.remove(sink)
    text = "\n".join(dict.fromkeys(without_times(each.replace(str(tmp_path), "ROOT")) for each in marks))
    is_golden("log.txt", re.sub(r"\d+(\.\d+)?", "N", text) + "\n")


def test_nothing_of_golden_is_without_a_test() -> None:
    named = {"messages.txt", "cursor.txt", "status.json", "metrics.txt", "log.txt"}
    assert {path.name for path in GOLDEN.iterdir()} == named | {f"help-{name}.txt" for name in program.commands}
