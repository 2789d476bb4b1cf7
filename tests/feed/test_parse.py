"""The requests that proxies, browsers, monitors and strangers send, and what each of them is answered."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from guarded import asked, asked_with_head, handshake, raw, responsive, serving
from hyperwatch.errors import UsageError
from hyperwatch.monitor.endpoints import routes as endpoints
from hyperwatch.monitor.health import HealthMonitor
from hyperwatch.monitor.metrics import metrics_server
from hyperwatch.server.admission import Admission
from hyperwatch.server.foreign import foreign, undecided
from hyperwatch.server.http import Answer, Request, Route, Routes
from hyperwatch.server.info_proxy import info_route
from hyperwatch.server.limits import Limits
from hyperwatch.server.proxies import Proxies
from hyperwatch.server.refusals import Reason
from hyperwatch.server.tokens import Tokens
from support import until

TOKEN = "correct-horse-battery"  # noqa: S105  of this test


async def hello(request: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    return Answer(HTTPStatus.OK, b"hello " + request.path.encode())


HELLO: Routes = {"/hello": Route(hello), "/post": Route(hello, "POST", 10)}


def request(method: str, target: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: here:8000", *headers, "", ""]).encode()


@pytest.fixture
def told() -> Iterator[list[str]]:
    lines: list[str] = []
    number = logger.add(lines.append, level="INFO", format="{level} {message}")
    yield lines
    logger.remove(number)


# Methods.


def everything() -> Routes:
    return {
        **endpoints(HealthMonitor(Admission(), stall_s=60, behind_s=10, now_s=lambda: 0.0)),
        "/info": info_route(None),
    }


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/status", "/gaps"])
async def test_head_is_answered_as_get_is_without_the_body(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, routes=everything()) as at:
        status, head, body = await asked_with_head(at.port, request("GET", path))
        assert await asked_with_head(at.port, request("HEAD", path)) == (status, head, "")
        assert f"Content-Length: {len(body.encode())}" in head
        await at.counted({})


async def test_head_is_answered_on_the_port_of_the_metrics_too() -> None:
    server = metrics_server(HealthMonitor(Admission(), stall_s=60, behind_s=10, now_s=lambda: 0.0))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, server.handle, listeners)
            port = listeners[0].socket.getsockname()[1]
            status, head, body = await asked_with_head(port, request("HEAD", "/metrics"))
            assert (status, body, "Content-Type: text/plain" in head) == (200, "", True)
            status, head, _ = await asked_with_head(port, request("OPTIONS", "/metrics"))
            assert (status, "Allow: GET, HEAD, OPTIONS" in head) == (204, True)
            nursery.cancel_scope.cancel("seen")


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("/hello", "GET, HEAD, OPTIONS"),
        ("/post", "POST, OPTIONS"),
        ("/ws", "GET, OPTIONS"),
        ("*", "GET, HEAD, OPTIONS, POST"),
    ],
)
async def test_options_says_what_may_be_asked(tmp_path: Path, target: str, allowed: str) -> None:
    async with serving(tmp_path, routes=HELLO) as at:
        status, head, body = await asked_with_head(at.port, request("OPTIONS", target))
        assert (status, body, f"Allow: {allowed}" in head.split("\r\n")) == (204, "", True)
        assert "Content-" not in head  # RFC 9110, 8.6: an answer 204 has none
        await at.counted({})


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("PUT", "/hello", "GET, HEAD, OPTIONS"), ("HEAD", "/post", "POST, OPTIONS"), ("GET", "/post", "POST, OPTIONS"),
])  # fmt: skip
async def test_a_method_that_is_not_answered_is_told_which_are(
    tmp_path: Path, method: str, path: str, allowed: str
) -> None:
    async with serving(tmp_path, routes=HELLO) as at:
        status, head, body = await asked_with_head(at.port, request(method, path))
        assert (status, f"Allow: {allowed}" in head.split("\r\n")) == (405, True)
        assert (body == "") is (method == "HEAD")
        await at.counted({Reason.REQUEST: 1})


async def test_head_and_options_need_a_token_where_get_does(tmp_path: Path) -> None:
    async with serving(tmp_path, Admission(tokens=Tokens([TOKEN])), HELLO) as at:
        for method in ("HEAD", "OPTIONS"):
            assert (await asked(at.port, request(method, "/hello")))[0] == 401
            assert (await asked(at.port, request(method, "/hello", f"Authorization: Bearer {TOKEN}")))[0] in (200, 204)
            status, body = await asked(at.port, request(method, "/nowhere", f"Authorization: Bearer {TOKEN}"))
            assert (status, body == "") == (404, method == "HEAD")


# Targets.


@pytest.mark.parametrize(
    "target",
    [
        "/ws", "/ws/", "//ws", "/ws//?x=1", "http://here:8000/ws", "ws://here:8000/ws", "HTTPS://other/ws/?token=1",
        "http://here:8000//ws",
    ],
)  # fmt: skip
async def test_a_handshake_finds_the_feed_however_its_address_is_written(tmp_path: Path, target: str) -> None:
    async with serving(tmp_path) as at, raw(at.port, shake=False) as client:
        await client.say(handshake(path=target))
        assert "101" in await client.head()
        await responsive(client)


@pytest.mark.parametrize("target", ["/hello/", "//hello", "http://here:8000/hello", "http://here:8000/hello?x#y"])
async def test_so_is_every_other_path(tmp_path: Path, target: str) -> None:
    async with serving(tmp_path, routes=HELLO) as at:
        assert await asked(at.port, request("GET", target)) == (200, "hello /hello")


@pytest.mark.parametrize("target", ["/w/s", "/WS", "/ws/x", "ws", "here:8000", "http://here:8000", "http:///ws/x"])
async def test_another_path_is_another_path(tmp_path: Path, target: str) -> None:
    async with serving(tmp_path) as at:
        assert (await asked(at.port, handshake(path=target)))[0] == 404
        await at.counted({Reason.REQUEST: 1})


@given(st.text("/ws.?x:", max_size=12))
def test_slashes_are_all_that_a_path_is_rid_of(path: str) -> None:
    from hyperwatch.server.http import _place  # noqa: PLC0415  what every test above goes through

    found, host = _place("/" + path)
    assert host is None
    assert found.replace("/", "") == path.partition("?")[0].replace("/", "")
    assert found == "/" or (found.startswith("/") and not found.endswith("/") and "//" not in found)


# Handshakes.


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "websocket, h2c", "h2c,websocket", " h2c , WEBSOCKET "])
async def test_an_upgrade_is_one_of_a_list(tmp_path: Path, upgrade: str) -> None:
    async with serving(tmp_path) as at, raw(at.port, shake=False) as client:
        await client.say(handshake().replace(b"Upgrade: websocket", f"Upgrade: {upgrade}".encode()))
        assert "101" in await client.head()
        await responsive(client)


async def test_an_upgrade_to_something_else_is_not_taken_and_the_request_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path, routes=HELLO) as at:
        headers = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
        assert (await asked(at.port, request("GET", "/hello", *headers)))[0] == 200


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("h:443", "https://h", True),
        ("h", "https://h:443", True),
        ("h", "http://h:80", True),
        ("h:80", "http://h", True),
        ("H", "https://h", True),
        ("[::1]:443", "https://[::1]", True),
        ("h:443", "http://h", False),
        ("h:80", "https://h", False),
        ("h", "https://h:8443", False),
        ("h:8000", "http://h", False),
        ("h:443", "https://evil", False),
        ("h:443", "https://h.evil", False),
        ("h", "chrome://h:80", False),
        ("desk", "https://listed.example:443", True),
        ("desk", "http://listed.example:443", False),
        ("desk", "https://also-listed.example", True),
    ],
)
async def test_an_origin_is_ours_with_or_without_the_port_of_its_scheme(
    tmp_path: Path, host: str, origin: str, *, allowed: bool
) -> None:
    listed = frozenset(["https://listed.example", "https://also-listed.example:443"])
    async with serving(tmp_path, Admission(origins=listed)) as at, raw(at.port, shake=False) as client:
        await client.say(handshake(f"Origin: {origin}").replace(b"here:8000", host.encode()))
        assert ("101" in await client.head()) is allowed


async def test_an_absolute_target_says_which_host_was_asked(tmp_path: Path) -> None:
    async with serving(tmp_path) as at:
        for target, status in (("http://there/ws", 101), ("http://here:8000/ws", 403)):
            async with raw(at.port, shake=False) as client:
                await client.say(handshake("Origin: http://there", path=target))
                assert str(status) in await client.head()


# Proxies.

LOCAL = Proxies.of(["127.0.0.1", "10.1.0.0/16"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("::ffff:127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("127.0.0.1", "10.1.2.4,10.1.2.3", "10.1.2.4"),
        ("127.0.0.1", "203.0.113.9:51000", "203.0.113.9"),
        ("127.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9, unknown, 10.1.2.3", "10.1.2.3"),
        ("203.0.113.1", "203.0.113.9", "203.0.113.1"),
    ],
)
def test_a_clients_address_is_the_last_that_no_trusted_proxy_has(peer: str, forwarded: str, client: str) -> None:
    headers = {b"x-forwarded-for": forwarded.encode()} if forwarded else {}
    assert LOCAL.client(peer, Request("GET", "/", headers)) == client


def test_without_a_trusted_proxy_no_header_is_believed() -> None:
    headers = {b"x-forwarded-for": b"203.0.113.9", b"x-forwarded-host": b"feed", b"host": b"here"}
    asked_for = Request("GET", "/ws", headers)
    assert (Proxies().client("127.0.0.1", asked_for), Proxies().asked_host("127.0.0.1", asked_for)) == (
        "127.0.0.1", "here",
    )  # fmt: skip


@pytest.mark.parametrize("word", ["proxy", "10.0.0.0/99", "", "10.0.0.1:80"])
def test_what_is_no_address_of_a_proxy_is_named_with_the_remedy(word: str) -> None:
    with pytest.raises(UsageError, match=r"--trusted-proxy .* is no address and no network"):
        Proxies.of([word])


async def test_behind_a_trusted_proxy_limits_count_its_clients_and_the_status_names_them(
    tmp_path: Path, told: list[str]
) -> None:
    admission = Admission(Limits(connections_per_address=1), proxies=LOCAL)
    async with serving(tmp_path, admission) as at:
        first, second = "X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 203.0.113.10"
        async with raw(at.port, first) as one, raw(at.port, second) as other:
            assert (await asked(at.port, handshake(first)))[0] == 429
            await responsive(one)
            await responsive(other)
            peers = sorted(connection.peer.split()[0] for connection in at.server.connections)
            assert peers == ["203.0.113.10", "203.0.113.9"]
        await until(lambda: not at.server.connections)
    assert [line for line in told if "client 203.0.113.9 by 127.0.0.1:" in line]


async def test_handshakes_through_a_trusted_proxy_are_bounded_in_total_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperwatch.server.admission.HANDSHAKES_PER_ADDRESS", 1)
    for proxies, status in ((Proxies(), 429), (LOCAL, 404)):
        async with serving(tmp_path, Admission(proxies=proxies)) as at, raw(at.port, shake=False):
            await until(lambda at=at: at.server.admission.handshakes.count == 1)  # type: ignore[misc]  # bound now
            assert (await asked(at.port, request("GET", "/nowhere")))[0] == status


@pytest.mark.parametrize(
    ("proxies", "forwarded", "status"),
    [(LOCAL, "feed.example.com", 101), (LOCAL, "feed.example.com, inner", 101), (Proxies(), "feed.example.com", 403),
     (LOCAL, "other.example.com", 403)],
)  # fmt: skip
async def test_the_host_that_a_trusted_proxy_was_asked_for_is_the_pages_own(
    tmp_path: Path, proxies: Proxies, forwarded: str, status: int
) -> None:
    async with serving(tmp_path, Admission(proxies=proxies)) as at, raw(at.port, shake=False) as client:
        await client.say(handshake("Origin: https://feed.example.com", f"X-Forwarded-Host: {forwarded}"))
        assert str(status) in await client.head()


# Strangers.


def test_other_protocols_are_told_by_their_first_bytes_and_nothing_else_is() -> None:
    for first in (b"GET / HTTP/1.1", b"POST / HTTP/1.1", b"PUT", b"\r\n\r\nGET /", b"\x15", b"OPTIONS * HT"):
        assert (foreign(first), undecided(first)) == (None, False)
    for first in (b"P", b"PRI *", b"PROXY", b"\r\n\r\n\x00"):
        assert (foreign(first), undecided(first)) == (None, True)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "a TLS handshake came, and this port speaks plain HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04", "HTTP/2 came, and this port speaks HTTP/1.1"),
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 51000 8000\r\nGET / HTTP/1.1\r\n", "a PROXY protocol header came"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", "a PROXY protocol header came"),
    ],
)
@pytest.mark.parametrize("cut", [1, 5, 100])
async def test_another_protocol_is_answered_by_what_it_is_in_a_sentence(
    tmp_path: Path, told: list[str], sent: bytes, says: str, cut: int
) -> None:
    async with serving(tmp_path) as at, raw(at.port, shake=False) as client:
        for part in (sent[:cut], sent[cut:]):
            await client.say(part)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert "400 Bad Request" in await client.head()
        await at.counted({Reason.FOREIGN: 1})
    assert [line for line in told if says in line and line.startswith("INFO client 127.0.0.1:")]


async def test_a_client_that_speaks_tls_to_the_plain_port_is_one_line_a_few_times(
    tmp_path: Path, told: list[str]
) -> None:
    context = ssl.create_default_context()
    async with serving(tmp_path) as at:
        for _ in range(20):
            stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", at.port, ssl_context=context)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.do_handshake()
            assert "WRONG_VERSION_NUMBER" in str(caught.value.__cause__)
            await trio.aclose_forcefully(stream)
        await at.counted({Reason.FOREIGN: 20})
    assert len([line for line in told if "a TLS handshake came" in line]) == 5


async def test_clients_that_come_and_go_do_not_fill_the_log(tmp_path: Path, told: list[str]) -> None:
    async with serving(tmp_path) as at:
        for _ in range(20):
            async with raw(at.port) as client:
                await responsive(client)
        await until(lambda: not at.server.connections)
    assert len(told) == 10  # five each for coming and going
