"""`/info`: what is forwarded to the node's info server, and what never is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hyperliquid.info import Info as OfficialInfo  # type: ignore[import-untyped]  # ships no types

from guarded import asked, asked_with_head, serving
from hyperwatch.errors import UsageError
from hyperwatch.server import info_proxy
from hyperwatch.server.admission import Admission
from hyperwatch.server.http import Answer, Request, Route
from hyperwatch.server.info_proxy import ALLOWED, info_route
from hyperwatch.server.refusals import Reason
from hyperwatch.server.tokens import Tokens

SPOT = {
    "tokens": [{"name": "USDC", "index": 0, "szDecimals": 8}, {"name": "PURR", "index": 1, "szDecimals": 0}],
    "universe": [{"name": "PURR/USDC", "tokens": [1, 0], "index": 0}],
}
META = {"universe": [{"name": "BTC", "szDecimals": 5}, {"name": "ETH", "szDecimals": 4}]}

Handle = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def node(handle: Handle) -> AsyncIterator[str]:
    """An info server that does with a connection what it is told to; its URL."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/info"
        nursery.cancel_scope.cancel("the test is over")


async def read(stream: trio.SocketStream) -> tuple[h11.Request, bytes]:
    """The request that came."""
    connection = h11.Connection(h11.SERVER)
    head, body = None, b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(4096)))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
    assert head is not None
    return head, body


def says(*parts: bytes) -> Handle:
    """Reads a request and answers these bytes."""

    async def handle(stream: trio.SocketStream) -> None:
        await read(stream)
        for part in parts:
            await stream.send_all(part)

    return handle


def post(body: bytes, *headers: str) -> bytes:
    lines = ["POST /info HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize("kind", ALLOWED)
async def test_an_allowed_request_is_forwarded_and_its_answer_is_passed_on(tmp_path: Path, kind: str) -> None:
    heard: list[Any] = []

    async def handle(stream: trio.SocketStream) -> None:
        head, body = await read(stream)
        heard.append((head.method, head.target, dict(head.headers)[b"content-type"], json.loads(body)))
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await stream.send_all(b"3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n")

    async with node(handle) as url, serving(tmp_path, routes={"/info": info_route(url)}) as at:
        status, head, said = await asked_with_head(at.port, post(b'{"type":"%s","dex":"xyz"}' % kind.encode()))
        assert (status, said, "Content-Type: application/json" in head) == (200, "[1,2]", True)
        assert heard == [(b"POST", b"/info", b"application/json", {"type": kind, "dex": "xyz"})]
        await at.counted({})


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (
            b'{"type":"fileSnapshot","outPath":"/x"}',
            403,
            "these types are: meta, spotMeta, perpDexs, exchangeStatus, meta",
        ),
        (b'{"type":"meta","type":"fileSnapshot"}', 403, "this request is not forwarded to the node"),
        (b'{"type":["meta"]}', 403, "not forwarded"),
        (b"{}", 403, "not forwarded"),
        (b'["meta"]', 400, "no JSON object was sent"),
        (b"meta", 400, "no JSON object was sent"),
        (b"\xff", 400, "no JSON object was sent"),
        (b'{"type":' + b"[" * 4000, 400, "no JSON object was sent"),
        (b"", 400, "no JSON object was sent"),
    ],
)
async def test_what_is_not_allowed_never_reaches_the_node(tmp_path: Path, body: bytes, status: int, said: str) -> None:
    async with node(trio.SocketStream.aclose) as url, serving(tmp_path, routes={"/info": info_route(url)}) as at:
        found, text = await asked(at.port, post(body))
        assert (found, said in text) == (status, True), text
        await at.counted({Reason.INFO_REQUEST: 1})


async def test_what_was_checked_is_what_is_sent_though_a_key_was_there_twice(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        heard.append((await read(stream))[1])
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with node(handle) as url, serving(tmp_path, routes={"/info": info_route(url)}) as at:
        assert (await asked(at.port, post(b'{"type":"fileSnapshot","type":"meta"}')))[0] == 200
        assert heard == [b'{"type":"meta"}']


async def test_without_a_node_it_is_answered_501_with_the_option(tmp_path: Path) -> None:
    async with serving(tmp_path, routes={"/info": info_route(None)}) as at:
        status, said = await asked(at.port, post(b'{"type":"meta"}'))
        assert (status, "--info-url" in said) == (501, True)
        assert (await asked(at.port, b"GET /info HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 405
        assert (await asked(at.port, post(b" " * 4097)))[0] == 413
        await at.counted({Reason.INFO_REQUEST: 1, Reason.REQUEST: 2})


@pytest.mark.parametrize(
    ("parts", "status", "said"),
    [
        ([], 502, "does not answer"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1"], 502, "does not answer"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], 502, "does not answer"),
        ([b"HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n"], 502, "answers 302"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n", b"x" * 11], 502, "answers more than"),
        ([b"HTTP/1.1 422 Unprocessable\r\nContent-Length: 3\r\n\r\nbad"], 422, "bad"),
        ([b"HTTP/1.1 599 Odd\r\nContent-Length: 3\r\n\r\nbad"], 599, "bad"),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nwhole"], 200, "whole"),
    ],
)
async def test_what_the_node_answers_is_passed_on_where_it_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[bytes], status: int, said: str
) -> None:
    monkeypatch.setattr(info_proxy, "ANSWER_BYTES", 10)
    async with node(says(*parts)) as url, serving(tmp_path, routes={"/info": info_route(url)}) as at:
        found, text = await asked(at.port, post(b'{"type":"meta"}'))
        assert (found, said in text) == (status, True), text
        await at.counted({Reason.INFO_ANSWER: 1} if status == 502 else {})


async def test_a_node_that_is_not_there_is_answered_502_and_a_slow_one_504(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(says()) as url:
        pass
    async with serving(tmp_path, routes={"/info": info_route(url)}) as at:
        assert await asked(at.port, post(b'{"type":"meta"}')) == (502, "the node's info server does not answer\n")

    async def think(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(info_proxy, "ANSWER_S", 0.05)
    async with node(think) as url, serving(tmp_path, routes={"/info": info_route(url)}) as at:
        status, said = await asked(at.port, post(b'{"type":"meta"}'))
        assert (status, "has not answered within 0.05 s" in said) == (504, True)
        await at.counted({Reason.INFO_ANSWER: 1})


async def test_the_node_is_asked_by_few_at_once(tmp_path: Path) -> None:
    inside, most, go = 0, 0, trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if inside == info_proxy.AT_ONCE:
            go.set()
        await go.wait()
        await trio.testing.wait_all_tasks_blocked()
        inside -= 1
        await says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(stream)

    async with node(handle) as url, serving(tmp_path, routes={"/info": info_route(url)}) as at:
        async with trio.open_nursery() as nursery:
            for _ in range(3 * info_proxy.AT_ONCE):
                nursery.start_soon(asked, at.port, post(b'{"type":"meta"}'))
        assert most == info_proxy.AT_ONCE
        await at.counted({})


async def test_it_needs_a_token_where_the_feed_does(tmp_path: Path) -> None:
    token = "correct-horse-battery"  # noqa: S105  of this test
    async with serving(tmp_path, Admission(tokens=Tokens([token])), {"/info": info_route(None)}) as at:
        assert (await asked(at.port, post(b'{"type":"meta"}')))[0] == 401
        assert (await asked(at.port, post(b'{"type":"meta"}', f"Authorization: Bearer {token}")))[0] == 501


async def test_the_official_sdk_is_built_from_it(tmp_path: Path) -> None:
    answers = {"spotMeta": SPOT, "meta": META, "perpDexs": [None]}

    async def handle(stream: trio.SocketStream) -> None:
        body = json.dumps(answers[json.loads((await read(stream))[1])["type"]]).encode()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async with node(handle) as url, serving(tmp_path, routes={"/info": info_route(url)}) as at:
        build = partial(OfficialInfo, f"http://127.0.0.1:{at.port}", skip_ws=True, perp_dexs=[""])
        official = await trio.to_thread.run_sync(build, abandon_on_cancel=True)
        assert official.coin_to_asset == {"PURR/USDC": 10000, "BTC": 0, "ETH": 1}
        official.session.close()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:3001",
        "https://node/info",
        "http:///info",
        "http://node:port/info",
        "http://node/info?x",
        "http://nöde/",
    ],
)
def test_what_is_no_url_of_an_info_server_is_named_with_the_remedy(url: str) -> None:
    with pytest.raises(
        UsageError, match=r"--info-url .* is no http://HOST:PORT/PATH: write it as http://127.0.0.1:3001"
    ):
        info_route(url)


async def test_a_long_answer_is_taken_by_a_slow_client(tmp_path: Path) -> None:
    body = b"x" * 2_000_000

    async def much(_: Request) -> Answer:
        await trio.lowlevel.checkpoint()
        return Answer(200, body)

    async with serving(tmp_path, routes={"/much": Route(much)}) as at:
        async with await trio.open_tcp_stream("127.0.0.1", at.port) as stream:
            await stream.send_all(b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n" + bytes(20_000))  # some of it is never read
            await trio.testing.wait_all_tasks_blocked(0.05)  # its socket is full
            got = b"".join([bytes(data) async for data in stream])
        assert got.endswith(b"\r\n\r\n" + body)
