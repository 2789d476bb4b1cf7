"""Whatever a client sends, it gets an error or a closing code, and nobody else notices."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from loguru import logger

from guarded import (
    BINARY,
    CLOSE,
    LEFT,
    PING,
    PONG,
    RESET,
    TEXT,
    Raw,
    Serving,
    frame,
    handshake,
    raw,
    responsive,
    serving,
)
from hyperwatch.server.frames import Inbound
from support import USER

NO_CODE = 1005
WORDS = [
    "method",
    "subscription",
    "type",
    "coins",
    "users",
    "statuses",
    "notStatuses",
    "sides",
    "id",
    "from",
    "user",
    "token",
]
VALUES = [
    "subscribe",
    "unsubscribe",
    "ping",
    "auth",
    "post",
    "orders",
    "orderUpdates",
    "BTC",
    "*",
    "xyz:*",
    USER,
    "earliest",
    "B",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner, max_size=5),
    max_leaves=12,
)
SUBSCRIPTIONS = st.fixed_dictionaries({"type": st.sampled_from(["orders", "orderUpdates"]) | JSON}, optional={
    word: JSON for word in WORDS if word not in ("method", "subscription", "type")
})  # fmt: skip
REQUESTS = st.fixed_dictionaries(
    {"method": st.sampled_from(VALUES) | JSON}, optional={"subscription": SUBSCRIPTIONS | JSON, "id": JSON}
)
ODD = st.sampled_from([
    "[" * 100_000, '{"method":' * 20_000, '{"method":"ping","x":' + "[" * 5000 + "]" * 5000 + "}",
    '{"method":"subscribe","subscription":{"type":"orders","from":' + "9" * 5000 + "}}",
    '{"method":"subscribe","subscription":{"type":"orders","coins":[1e999]}}', '{"method":1e400}', "\ud800", "\x00",
])  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A request with some bytes changed, cut or put in."""
    text = bytearray(json.dumps(draw(REQUESTS)).encode())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(text)


TEXTS = REQUESTS.map(lambda request: json.dumps(request).encode()) | mutated() | ODD.map(
    lambda text: text.encode(errors="surrogatepass")
)  # fmt: skip


@st.composite
def fragments(draw: st.DrawFn) -> bytes:
    """A message in several frames, with control frames between them."""
    text = draw(TEXTS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    edges = [0, *cuts, len(text)]
    parts = [text[start:end] for start, end in pairwise(edges)]
    between = draw(st.sampled_from([b"", frame(PING, b"x"), frame(PONG), frame(9, b"y" * 125)]))
    last = len(parts) - 1
    return between.join(
        frame(TEXT if number == 0 else 0, part, final=number == last) for number, part in enumerate(parts)
    )


FRAMES = (
    TEXTS.map(partial(frame, TEXT))
    | fragments()
    | st.binary(max_size=50).map(partial(frame, BINARY))
    | st.builds(
        frame,
        st.integers(0, 15),
        st.binary(max_size=130),
        final=st.booleans(),
        length=st.none() | st.integers(0, 2**64 - 1),
    )
    | st.integers(1, 3000).map(lambda count: frame(PING, b"flood") * count)
    | st.binary(min_size=1, max_size=30)
)


def survives(say: Callable[[Serving, Raw], Awaitable[None]], *, shake: bool) -> None:
    """Lets a client say something, and sees that another one and the service go on, and that no fault is ours."""
    faults: list[str] = []
    number = logger.add(faults.append, level="ERROR")

    async def main() -> None:
        with TemporaryDirectory() as folder:
            async with serving(Path(folder)) as at, raw(at.port) as other, raw(at.port, shake=shake) as client:
                with trio.fail_after(10):
                    await say(at, client)
                    await responsive(other)
                    async with raw(at.port) as late:
                        await responsive(late)

    try:
        trio.run(main)
    finally:
        logger.remove(number)
    assert not faults


async def tried(client: Raw, data: bytes) -> None:
    """Says it and no more, as far as the server takes it."""
    try:
        await client.say(data)
        await client.stream.send_eof()
    except trio.BrokenResourceError:
        return


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(FRAMES, min_size=1, max_size=4))
@example([frame(PING)])
@example([frame(TEXT, b'{"method":"auth","token":"\xed\xa0\x80"}')])
@example([frame(TEXT, length=2**63)])
@example([frame(CLOSE)])
def test_whatever_frames_a_client_sends_it_is_answered_or_closed_with_a_code(sent: list[bytes]) -> None:
    whole = b"".join([*sent, bytes(2**10), frame(CLOSE, (1000).to_bytes(2, "big"))])
    inbound = Inbound()
    inbound.feed(whole, 0.0)
    open_end = inbound._payload or inbound._head  # what was to end it has become part of a frame

    async def say(_: Serving, client: Raw) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tried, client, whole)
            heard = await ending(client)
        assert heard >= 1000 or (open_end and heard == LEFT), heard

    survives(say, shake=True)


async def ending(client: Raw) -> int:
    """The closing code, an echo of the client's own or ours. What comes before must be pongs and JSON."""
    while True:
        try:
            opcode, payload = await client.hear()
        except EOFError:
            return LEFT
        except trio.BrokenResourceError:
            return RESET
        if opcode == CLOSE:
            return int.from_bytes(payload[:2], "big") or NO_CODE
        if opcode == TEXT:
            message: dict[str, Any] = json.loads(payload)
            assert message["channel"]
        else:
            assert opcode in (PING, PONG)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_whatever_text_a_client_sends_it_is_answered_each_time_or_closed(sent: list[bytes]) -> None:
    async def say(_: Serving, client: Raw) -> None:
        for text in sent:
            await client.say(frame(TEXT, text))
            opcode, payload = await client.hear()
            while opcode == TEXT and json.loads(payload)["channel"] in ("live", "cursor"):
                opcode, payload = await client.hear()
            if opcode == CLOSE:
                assert int.from_bytes(payload[:2], "big") == 1007
                return
            message = json.loads(payload)
            assert message["channel"] in ("error", "pong", "auth", "subscriptionResponse")
            assert message["channel"] != "error" or message["code"]

    survives(say, shake=True)


HEADS = st.binary(max_size=300) | st.lists(
    st.sampled_from([
        b"GET /ws HTTP/1.1\r\n", b"GET ", b"POST /info HTTP/1.1\r\n", b"Host: a\r\n", b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b"Sec-WebSocket-Version: 13\r\n", b"X: \xff\r\n", b"\r\n", b"\r\n\r\n",
        b"Origin: \x00\r\n", b"Authorization: Bearer x\r\n", b"X: " + b"x" * 20_000 + b"\r\n", b"zz\r\n", handshake(),
    ]), max_size=9,
).map(b"".join)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(HEADS, st.lists(st.integers(0, 300), max_size=3))
def test_whatever_comes_before_a_handshake_is_answered_by_http_or_becomes_a_websocket(
    sent: bytes, cuts: list[int]
) -> None:
    async def say(_: Serving, client: Raw) -> None:
        edges = [0, *sorted(cuts), len(sent)]
        for start, end in pairwise(edges):
            with suppress(trio.BrokenResourceError):
                await client.say(sent[start:end])  # in pieces, as a network would
            await trio.lowlevel.checkpoint()
        await tried(client, b"")
        data = b""
        with suppress(trio.BrokenResourceError):
            async for more in client.stream:
                data += more
        status = data[:12]
        assert status in {b"", *(b"HTTP/1.1 %d" % code for code in (101, 400, 403, 404, 405, 413, 426, 431, 501))}, data
        assert status or not sent.strip(), sent

    survives(say, shake=False)
