"""Who may come in, how much of the service they may take, and what they hear when it is too much."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from guarded import CLOSE, LEFT, PING, RESET, TEXT, asked, asked_with_head, frame, handshake, raw, responsive, serving
from hyperwatch.cli.main import _exit_code
from hyperwatch.config import Address, Config, origin
from hyperwatch.errors import UsageError
from hyperwatch.server import admission, frames, server, transport, websocket
from hyperwatch.server.admission import Admission
from hyperwatch.server.connection import Connection
from hyperwatch.server.frames import BYTES_BURST, FRAMES_BURST, FRAMES_PER_S, INBOUND_BYTES, INBOUND_FRAMES, Inbound
from hyperwatch.server.http import Answer, Request, Route
from hyperwatch.server.limits import Limits, Slots, TokenBucket, address_group, limit_for, raise_open_files, sockets_end
from hyperwatch.server.refusals import ClientGoneError, Reason, RefusedError
from hyperwatch.server.tokens import Tokens
from hyperwatch.server.transport import Transport
from hyperwatch.service.frontend import warn_of_open_access
from support import append, connected, event, hour_file, running, until
from support import line as written

TOKEN = "correct-horse-battery"  # noqa: S105  of this test
OTHER = "another-horse-battery"


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the log says meanwhile."""
    lines: list[str] = []
    number = logger.add(lines.append, level="DEBUG", format="{level} {message}")
    yield lines
    logger.remove(number)


# Places.


async def test_one_connection_more_than_allowed_is_refused_with_503_until_one_leaves(tmp_path: Path) -> None:
    async with serving(tmp_path, Admission(Limits(connections=2))) as at:
        async with raw(at.port), raw(at.port):
            status, said = await asked(at.port, handshake())
            assert (status, "2 connections, as many as it takes" in said) == (503, True)
        await until(lambda: not at.server.connections)
        async with raw(at.port) as client:
            await responsive(client)
        await at.counted({Reason.CONNECTIONS: 1})


async def test_one_connection_more_than_an_address_may_have_is_refused_with_429(tmp_path: Path) -> None:
    async with serving(tmp_path, Admission(Limits(connections_per_address=1))) as at, raw(at.port) as client:
        status, said = await asked(at.port, handshake())
        assert (status, "your address has 1 connections" in said) == (429, True)
        await responsive(client)
        await at.counted({Reason.ADDRESS: 1})


async def test_unfinished_handshakes_are_limited_and_take_no_place_of_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, status in (("HANDSHAKES", 503), ("HANDSHAKES_PER_ADDRESS", 429)):
        with monkeypatch.context() as patch:
            patch.setattr(admission, name, 2)
            async with serving(tmp_path, Admission(Limits(connections=1))) as at:
                async with raw(at.port, shake=False), raw(at.port, shake=False) as waiting:
                    await until(lambda: at.server.admission.handshakes.count == 2)
                    assert (await asked(at.port, handshake()))[0] == status
                    await waiting.say(handshake())
                    assert "101" in await waiting.head()
                    await responsive(waiting)
                await at.counted({Reason.HANDSHAKES: 1})


def test_places_are_counted_by_address_and_of_ipv6_by_network() -> None:
    full, crowded = (Reason.CONNECTIONS, "full"), (Reason.ADDRESS, "crowded")
    room = Slots(3, 2, full, crowded)
    first, second, elsewhere = map(address_group, ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"))
    assert first == second != elsewhere
    assert address_group("::ffff:10.0.0.1") == address_group("10.0.0.1") == "10.0.0.1"
    assert address_group("fe80::1%eth0") == "fe80::/64"

    with room.place(first), room.place(second):
        with pytest.raises(RefusedError, match="crowded"), room.place(first):
            pass
        with room.place(elsewhere), pytest.raises(RefusedError, match="full"), room.place("10.0.0.1"):
            pass
    assert (room.count, room._inside) == (0, {})


async def test_what_is_accepted_with_one_of_the_last_descriptors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "sockets_end", lambda: 3)
    async with serving(tmp_path) as at:
        status, said = await asked(at.port, handshake())
        assert (status, "no open files left" in said) == (503, True)
        await at.counted({Reason.FILES: 1})


def test_the_limit_of_open_files_is_raised_and_a_quarter_of_it_is_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert sockets_end() == 192
        raise_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert sockets_end() is None


async def test_clients_that_are_refused_hold_no_more_than_so_many_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PARTINGS", 1)
    async with serving(tmp_path) as at, raw(at.port, shake=False) as first, raw(at.port, shake=False) as second:
        await first.say(handshake(path="/elsewhere"))
        assert "404" in await first.head()  # and it does not leave
        await second.say(handshake(path="/elsewhere"))
        assert await second.ending() == (RESET, "")
        await at.counted({Reason.REQUEST: 2})


async def test_one_subscription_more_than_allowed_is_an_error_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path, Admission(Limits(subscriptions=2))) as at, connected(at.port) as client:
        for name in "ab":
            assert (await client.subscribe(type="orders", id=name))["channel"] == "subscriptionResponse"
        answer = await client.subscribe(type="orders", id="c")
        assert (answer["code"], answer["id"]) == ("too-many-subscriptions", "c")
        assert "this connection has 2 subscriptions" in answer["data"]
        await client.say({"method": "unsubscribe", "subscription": {"type": "orders", "id": "a"}})
        await client.hear("subscriptionResponse")
        assert (await client.subscribe(type="orders", id="c"))["channel"] == "subscriptionResponse"
        await at.counted({Reason.SUBSCRIPTIONS: 1})


# Messages.


async def test_a_message_that_is_too_big_is_refused_by_its_header_with_1009(tmp_path: Path) -> None:
    async with serving(tmp_path) as at, raw(at.port) as client, raw(at.port) as other:
        await client.say(frame(TEXT, length=INBOUND_BYTES + 1))
        code, reason = await client.ending()
        assert (code, "at most 1020 KiB" in reason) == (1009, True)
        await at.counted({Reason.SIZE: 1})
        await responsive(other)


async def test_the_longest_message_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as at, raw(at.port) as client:
        await client.say(frame(TEXT, b" " * INBOUND_BYTES))
        assert (await client.answer())["code"] == "bad-json"
        await responsive(client)
        await at.counted({})


async def test_a_message_of_endless_empty_parts_is_refused_with_1009(tmp_path: Path) -> None:
    async with serving(tmp_path) as at, raw(at.port) as client:
        await client.say(frame(TEXT, final=False) + frame(0, final=False) * INBOUND_FRAMES)
        assert (await client.ending())[0] == 1009
        await at.counted({Reason.SIZE: 1})


@pytest.mark.parametrize("opcode", [PING, TEXT])
async def test_a_flood_of_frames_is_refused_with_1008_and_the_others_go_on(tmp_path: Path, opcode: int) -> None:
    async with serving(tmp_path) as at, raw(at.port) as client, raw(at.port) as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.say, frame(opcode) * (FRAMES_BURST + 500))
            code, reason = await client.ending()
        assert (code, reason) == (1008, "too many messages: 100 a second, 2000 in a burst, are taken")
        await at.counted({Reason.RATE: 1})
        await responsive(other)


async def test_a_flood_of_bytes_is_refused_with_1008(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "BYTES_BURST", 20_000)
    async with serving(tmp_path) as at, raw(at.port) as client:
        await client.say(frame(TEXT, b" " * 30_000))
        code, reason = await client.ending()
        assert (code, "too much at once: 256 KiB a second" in reason) == (1008, True)
        await at.counted({Reason.RATE: 1})


def test_a_bucket_is_full_at_first_and_fills_at_its_rate() -> None:
    bucket = TokenBucket(10, 20)
    assert bucket.take(20, 5)
    assert not bucket.take(1, 5)
    assert bucket.take(10, 6)
    assert not bucket.take(1, 6)
    assert bucket.take(20, 100)
    assert not bucket.take(1, 100)


def test_what_a_busy_client_says_is_taken_for_ever() -> None:
    inbound = Inbound()
    for second in range(1000):
        assert inbound.feed(frame(TEXT, b"x" * 2000) * FRAMES_PER_S, float(second)) is None


BODIES = st.lists(st.tuples(st.sampled_from([TEXT, PING, 0]), st.booleans(), st.integers(0, 70_000)), max_size=12)


@given(BODIES, st.lists(st.integers(0, 200_000), max_size=12))
def test_frames_are_counted_alike_however_they_are_cut(bodies: list[Any], cuts: list[int]) -> None:
    stream = b"".join(frame(opcode, bytes(size), final=final) for opcode, final, size in bodies)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    whole, cut = Inbound(), Inbound()
    assert whole.feed(stream, 0.0) is None
    for start, end in pairwise(edges):
        assert cut.feed(stream[start:end], 0.0) is None

    data = [(final, size) for opcode, final, size in bodies if opcode != PING]
    last = max((number for number, (final, _) in enumerate(data, 1) if final), default=0)
    for inbound in (whole, cut):
        assert (inbound._message_frames, inbound._message_bytes) == (len(data[last:]), sum(n for _, n in data[last:]))
        assert not inbound._frames.take(FRAMES_BURST - len(bodies) + 1, 0.0)
        assert inbound._frames.take(FRAMES_BURST - len(bodies), 0.0)
        assert inbound._bytes.take(BYTES_BURST - len(stream), 0.0)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (frame(3), 1002),
        (frame(PING, bytes(126)), 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(0, b"x"), 1002),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"\xc3", final=False) + frame(0, b"("), 1007),
    ],
)
async def test_what_is_no_frame_or_no_text_is_refused_with_its_code(tmp_path: Path, sent: bytes, code: int) -> None:
    async with serving(tmp_path) as at, raw(at.port) as client, raw(at.port) as other:
        await client.say(sent)
        assert (await client.ending())[0] == code
        await at.counted({Reason.PROTOCOL: 1})
        await responsive(other)


async def test_a_client_that_says_goodbye_is_answered_and_not_counted(tmp_path: Path) -> None:
    async with serving(tmp_path) as at:
        for payload in (b"", (1000).to_bytes(2, "big"), (1002).to_bytes(2, "big") + b"you"):
            async with raw(at.port) as client:
                await client.say(frame(CLOSE, payload))
                assert await client.hear() == (CLOSE, payload)
                assert await client.ending() == (LEFT, "")
        await at.counted({})


async def test_a_fault_of_ours_is_told_with_1011_and_ends_only_its_own_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    async with serving(tmp_path) as at, raw(at.port) as other:
        await responsive(other)

        async def fail(_: Connection) -> None:
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError

        monkeypatch.setattr(Connection, "run", fail)
        async with raw(at.port) as client:
            assert await client.ending() == (1011, "a fault of the service")
        await responsive(other)
        await at.counted({Reason.FAULT: 1})
        assert any("ZeroDivisionError" in transport for transport in told)


# Time.


async def test_a_handshake_that_is_not_complete_in_time_is_answered_408(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S", 0.05)
    async with serving(tmp_path) as at:
        for start in (b"", b"GET /ws HTTP/1.1\r\n", b"GET /ws HTTP/1.1\r\nX: " + b"x" * 5000):
            status, said = await asked(at.port, start)
            assert (status, said) == (408, "the request was not complete within 0.05 s\n")
        await at.counted({Reason.SLOW_HANDSHAKE: 3})


async def test_a_client_that_answers_no_ping_is_reset_and_one_that_does_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "BEAT_S", 0.05)
    async with serving(tmp_path) as at, connected(at.port) as good, raw(at.port) as dead:
        assert await dead.hear() == (PING, b"")
        assert await dead.ending() == (RESET, "")
        await at.counted({Reason.SILENT: 1})
        await good.say({"method": "ping"})
        assert await good.hear() == {"channel": "pong"}


def test_a_silent_client_is_gone_within_a_minute() -> None:
    assert websocket.BEAT_S * (websocket.SILENT_BEATS + 1) <= 60


async def pair() -> tuple[Transport, trio.SocketStream]:
    """The line of a client with a small buffer, and the client."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = trio.SocketStream(trio.socket.from_stdlib_socket(plain))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.socket.connect, listener.socket.getsockname())
        accepted = await listener.accept()
    await listener.aclose()
    return Transport(accepted), client


async def test_a_client_that_takes_what_waits_for_it_is_alive_though_its_pong_is_far_behind() -> None:
    transport, client = await pair()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.send_frame, bytes(2**20), b"")
            await trio.testing.wait_all_tasks_blocked()
            assert not transport.alive()  # the first look has nothing to compare with
            assert not transport.alive()
            for _ in range(3):
                taken = 0
                while taken < 50_000:
                    taken += len(await client.receive_some(4096))
                await until(transport.alive)
            await trio.testing.wait_all_tasks_blocked()
            transport.alive()
            assert not transport.alive()
            await client.send_all(b"x")
            await transport.receive_some()
            assert transport.alive()
            nursery.cancel_scope.cancel()
    transport.close()
    await client.aclose()


async def test_what_an_offer_leaves_is_finished_by_flush_before_anything_else_is_written() -> None:
    transport, client = await pair()
    calls: list[int] = []
    transport.rest_waits = lambda: calls.append(1)
    offered = [bytes([number]) * 100_000 for number in range(200)]
    taken = 0
    while transport.offer((offered[taken], b"-", offered[taken]), 200_001):
        taken += 1
    assert calls == [1]  # the last one that was taken was not taken whole
    assert transport.unfinished
    expected = b"".join(each + b"-" + each for each in offered[:taken]) + b"next"
    heard = bytearray()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.send_frame, b"next", b"")
            while len(heard) < len(expected):
                heard += await client.receive_some(65536)
    assert heard == expected
    assert transport.offer((b"more",), 4)
    transport.close()
    assert not transport.offer((b"more",), 4)  # its descriptor may be another client's
    await client.aclose()


async def test_a_goodbye_to_a_stalled_socket_becomes_a_reset_after_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transport.STALLED_S == 1.0
    monkeypatch.setattr(transport, "STALLED_S", 0.05)
    async with serving(tmp_path) as at, raw(at.port) as stalled, raw(at.port) as other:
        await until(lambda: len(at.server.connections) == 2)
        await responsive(other)
        full = next(each for each in at.server.connections if each._socket.peer.endswith(f":{port_of(stalled.stream)}"))
        said = frames.head_of(65536, binary=False) + b"x" * 65536
        while full.offer((said,), len(said)):
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at.server.close, 1001, "shutting down")
            assert await other.ending() == (1001, "shutting down")
            await other.say(frame(PING) + frame(TEXT, b'{"method":"ping"}') * 5)  # too late to be answered
            with trio.move_on_after(0.1) as waiting:
                await other.hear()
            assert waiting.cancelled_caught  # it waits for the client's part
            await other.say(frame(CLOSE, (1001).to_bytes(2, "big")))
            with pytest.raises(EOFError):
                await other.hear()
        assert await stalled.ending() == (RESET, "")
        await at.counted({Reason.STALLED: 1})


def port_of(stream: trio.SocketStream) -> int:
    return int(stream.socket.getsockname()[1])


async def test_what_is_being_sent_is_sent_whole_before_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the code could not be told: half a message would be before it."""
    monkeypatch.setattr("hyperwatch.server.connection.PONG", bytes(2**23))
    monkeypatch.setattr(transport, "STALLED_S", 10.0)
    async with serving(tmp_path) as at, raw(at.port) as client:
        await client.tell({"method": "ping"})
        await trio.testing.wait_all_tasks_blocked(0.05)  # the answer does not fit into the socket
        await client.say(frame(TEXT, length=INBOUND_BYTES + 1))
        await trio.testing.wait_all_tasks_blocked(0.05)
        opcode, payload = await client.hear()
        assert (opcode, len(payload)) == (TEXT, 2**23)
        assert (await client.ending())[0] == 1009
        await at.counted({Reason.SIZE: 1})


async def test_a_service_that_stops_refuses_with_503(tmp_path: Path) -> None:
    async with serving(tmp_path) as at:
        at.server.refuse()
        assert await asked(at.port, handshake()) == (503, "shutting down\n")
        await at.counted({Reason.STOPPING: 1})


async def test_a_token_that_comes_while_the_service_stops_is_too_late(tmp_path: Path) -> None:
    async with serving(tmp_path, Admission(tokens=TOKENS)) as at, raw(at.port) as client:
        at.server.refuse()
        await client.tell({"method": "auth", "token": TOKEN})
        assert await client.ending() == (1001, "shutting down")
        await at.counted({Reason.STOPPING: 1})
        assert not at.server.connections


async def test_a_client_that_left_before_it_was_served_is_no_fault(tmp_path: Path, told: list[str]) -> None:
    async with serving(tmp_path) as at:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket()))
        with pytest.raises(ClientGoneError):
            Transport(stream)
        await at.server.handle(stream)
        assert stream.socket.fileno() == -1
        async with raw(at.port, shake=False):
            pass
        async with raw(at.port, shake=False) as client:
            await client.say(b"GET")
        await at.counted({Reason.REQUEST: 1})
        assert any("has left" in transport for transport in told)
    assert not [transport for transport in told if transport.startswith("ERROR")]


# Requests.


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        (b"\x00\xff\x00\r\n\r\n", 400, "not a request: "),
        (b"GET /ws HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000, 431, "not a request: "),
        (b"GET /ws HTTP/1.1\r\n\r\n", 400, "not a request: "),
        (b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", 400, "/ws is for WebSocket clients"),
        (b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\n\r\n", 404, "the feed is at /ws"),
        (handshake(path="/x"), 404, "the feed is at /ws"),
        (handshake(key=b"short"), 400, "a WebSocket handshake is"),
        (handshake().replace(b"GET", b"PUT"), 400, "a WebSocket handshake is"),
        (handshake().replace(b"keep-alive, Upgrade", b"close"), 400, "a WebSocket handshake is"),
        (handshake().replace(b"Version: 13", b"Version: 8"), 426, "only version 13"),
        (handshake() + frame(TEXT, b"{}"), 400, "wait for the answer"),
        (b"PUT /here HTTP/1.1\r\nHost: a\r\n\r\n", 405, "/here answers POST requests"),
        (b"POST /here HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n12345678901", 413, "at most 10 bytes"),
        (b"POST /here HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 200, "hello /here"),
        (
            b"POST /here?x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            200,
            "hi /here",
        ),
    ],
)
async def test_every_request_is_answered_by_what_it_is(tmp_path: Path, request_: bytes, status: int, says: str) -> None:
    async def echo(request: Request) -> Answer:
        await trio.lowlevel.checkpoint()
        return Answer(200, request.body + b" " + request.path.encode())

    async with serving(tmp_path, routes={"/here": Route(echo, "POST", 10)}) as at:
        found, said = await asked(at.port, request_)
        assert (found, says in said) == (status, True), said
        await at.counted({} if status == 200 else {Reason.REQUEST: 1})


async def test_an_odd_head_never_reaches_the_websocket_library(tmp_path: Path, told: list[str]) -> None:
    """It would fall over names that are no host's and words that are no ASCII."""
    async with serving(tmp_path) as at:
        for odd in ("Sec-WebSocket-Extensions: \xff", "Sec-WebSocket-Protocol: \xff", "X: \xff"):
            async with raw(at.port, odd) as client:
                await responsive(client)
        for host in (b"\xff", b"xn--a", b"a..b", b"a" * 200):
            async with raw(at.port, shake=False) as client:
                await client.say(handshake().replace(b"here:8000", host))
                assert "101" in await client.head()
    assert not [transport for transport in told if transport.startswith("ERROR")]


# Tokens.


async def hello(_: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    return Answer(200, b"hello")


TOKENS = Tokens([OTHER, TOKEN])
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n%s\r\n"


async def test_a_token_in_the_header_lets_in(tmp_path: Path) -> None:
    async with serving(tmp_path, Admission(tokens=TOKENS)) as at:
        for token, scheme in ((TOKEN, "Bearer"), (OTHER, "bearer")):
            async with raw(at.port, f"Authorization: {scheme} {token}") as client:
                await responsive(client)
        await at.counted({})


async def test_a_wrong_token_in_a_header_is_answered_401_and_never_logged(tmp_path: Path, told: list[str]) -> None:
    async with serving(tmp_path, Admission(tokens=TOKENS), {"/a": Route(hello)}) as at:
        wrong = (
            "Bearer wrong-wrong-wrong",
            f"Basic {TOKEN}",
            f"Digest {TOKEN}",
            f"Bearer {TOKEN}x",
            "Bearer",
            f"Bearer {TOKEN} {OTHER}",
        )
        for value in wrong:
            status, head, said = await asked_with_head(at.port, handshake(f"Authorization: {value}"))
            assert (status, said) == (401, "this token is not known here\n")
            assert "WWW-Authenticate: Bearer" in head
        assert (await asked(at.port, GET % (b"a", b"Authorization: Bearer nobody-knows-me\r\n")))[0] == 401
        await at.counted({Reason.TOKEN: len(wrong) + 1})
    assert not [
        transport
        for transport in told
        if any(word in transport for word in ("wrong-wrong", TOKEN, OTHER, "nobody-knows"))
    ]


async def test_without_a_token_http_answers_401_but_to_what_is_free(tmp_path: Path) -> None:
    routes = {"/a": Route(hello), "/health": Route(hello, free=True)}
    async with serving(tmp_path, Admission(tokens=TOKENS), routes) as at:
        for path in (b"a", b"unknown"):
            status, said = await asked(at.port, GET % (path, b""))
            assert (status, "send it as Authorization: Bearer" in said) == (401, True)
        assert await asked(at.port, GET % (b"health", b"")) == (200, "hello")
        assert await asked(at.port, GET % (b"a", f"Authorization: Bearer {TOKEN}\r\n".encode())) == (200, "hello")
        await at.counted({Reason.TOKEN: 2})


async def test_a_browser_sends_its_token_as_the_first_message(tmp_path: Path) -> None:
    async with serving(tmp_path, Admission(tokens=TOKENS)) as at, raw(at.port, "Origin: http://here:8000") as client:
        await client.tell({"method": "auth", "token": TOKEN})
        assert await client.answer() == {"channel": "auth"}
        await responsive(client)
        await client.tell({"method": "auth", "token": "something else"})
        assert (await client.answer())["code"] == "unauthorized"
        await responsive(client)
        await at.counted({Reason.TOKEN: 1})


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ('{"method":"auth","token":"wrong-wrong-wrong"}', "this token is not known here"),
        ('{"method":"auth","token":5}', "a token is needed first"),
        ('{"method":"ping"}', "a token is needed first"),
        ('{"method":"subscribe","subscription":{"type":"orders"}}', "a token is needed first"),
        ("nonsense", "a token is needed first"),
    ],
)
async def test_any_other_first_message_is_an_error_and_closes_with_4401(tmp_path: Path, first: str, says: str) -> None:
    async with serving(tmp_path, Admission(tokens=TOKENS)) as at, raw(at.port) as client:
        await client.say(frame(TEXT, first.encode()))
        answer = await client.answer()
        assert (answer["channel"], answer["code"]) == ("error", "unauthorized")
        assert says in answer["data"]
        assert (await client.ending())[0] == 4401
        await at.counted({Reason.TOKEN: 1})
        assert not at.server.connections


async def test_a_token_that_does_not_come_in_time_closes_with_4401(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S", 0.1)
    async with serving(tmp_path, Admission(tokens=TOKENS)) as at, raw(at.port) as client:
        assert (await client.ending())[0] == 4401
        await at.counted({Reason.TOKEN: 1})


async def test_where_no_token_is_needed_one_is_thanked_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as at, raw(at.port, "Authorization: Bearer whatever") as client:
        await client.tell({"method": "auth", "token": "whatever"})
        assert await client.answer() == {"channel": "auth"}
        await client.tell({"method": "auth"})
        assert (await client.answer())["data"].endswith("auth needs a token, a string")


def test_every_token_is_compared_with_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert Tokens([TOKEN, OTHER]).allow(TOKEN)
    assert not Tokens([TOKEN, OTHER]).allow("\ud800")
    assert compared == [(32, 32)] * 4
    assert TOKEN not in repr(vars(Tokens([TOKEN])))


def test_tokens_come_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# of the desk\n\n{TOKEN}\n")
    path.chmod(0o640)
    tokens = Tokens.load(path, f" {OTHER}  third-horse-battery ")
    assert [tokens.allow(each) for each in (TOKEN, OTHER, "third-horse-battery", "# of the desk", "")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert not Tokens.load(None, None)


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        (None, 0, "cannot be read by uid .*: No such file or directory: name a file"),
        ("# none\n\n", 0o600, "has no token in it: make one with `openssl rand -hex 32`"),
        (f"{TOKEN}\n", 0o604, r"is open to others \(mode 604\): chmod 600"),
        (f"{TOKEN}\n", 0o660, r"is open to others \(mode 660\): chmod 600"),
        (f"{TOKEN}\nhunter2\n", 0o600, "line 2 has 7 characters, which can be guessed"),
        (f"{TOKEN} {OTHER}\n", 0o600, "line 1 is no token: letters, digits"),
        ("pässword-pässword\n", 0o600, "is no ASCII text"),
    ],
)
def test_a_bad_file_of_tokens_is_named_with_the_remedy_and_shows_none(
    tmp_path: Path, text: str | None, mode: int, says: str
) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(UsageError, match=f"--tokens-file {path}:? {says}") as caught:
        Tokens.load(path, None)
    assert caught.value.exit_code == 2
    assert not [word for word in (TOKEN, OTHER, "hunter2") if word in str(caught.value)]


@pytest.mark.parametrize(("words", "says"), [("  ", "is set and has no token"), ("hunter2", "word 1 has 7 characters")])
def test_a_bad_variable_of_tokens_is_named(words: str, says: str) -> None:
    with pytest.raises(UsageError, match=f"HYPERWATCH_TOKENS:? {says}"):
        Tokens.load(None, words)


# Origins.


@pytest.mark.parametrize(
    ("sent", "allowed"),
    [
        ("", True),
        ("Origin: http://here:8000", True),
        ("Origin: HTTPS://Here:8000", True),
        ("Origin: https://desk.example.com", True),
        ("Origin: http://desk.example.com", False),
        ("Origin: https://desk.example.com:444", False),
        ("Origin: http://here", False),
        ("Origin: http://there:8000", False),
        ("Origin: null", False),
        ("Origin: ", False),
        ("Origin: http://here:8000\r\nOrigin: http://there", False),
        ("Origin: http://there\r\nOrigin: http://here:8000", False),
    ],
)
async def test_pages_of_other_hosts_are_refused_with_403_unless_listed(
    tmp_path: Path, sent: str, *, allowed: bool
) -> None:
    origins = frozenset([origin("https://Desk.example.com")])
    headers = sent.split("\r\n") if sent else []
    async with serving(tmp_path, Admission(origins=origins)) as at:
        if allowed:
            async with raw(at.port, *headers) as client:
                await responsive(client)
        else:
            status, said = await asked(at.port, handshake(*headers))
            assert (status, "--allow-origin" in said) == (403, True)
        await at.counted({} if allowed else {Reason.ORIGIN: 1})


async def test_origins_count_for_plain_http_too_and_null_is_no_name_of_a_missing_host(tmp_path: Path) -> None:
    async with serving(tmp_path, routes={"/a": Route(hello)}) as at:
        assert (await asked(at.port, GET % (b"a", b"Origin: http://evil\r\n")))[0] == 403
        assert (await asked(at.port, b"GET /a HTTP/1.0\r\nOrigin: null\r\n\r\n"))[0] == 403
        assert (await asked(at.port, b"GET /a HTTP/1.0\r\n\r\n"))[0] == 200


@pytest.mark.parametrize("text", ["example.com", "https://example.com/", "https://*", "*", ""])
def test_what_is_no_origin_is_named_with_the_remedy(text: str) -> None:
    with pytest.raises(UsageError, match=r"--allow-origin .* is not SCHEME://HOST"):
        origin(text)


def test_origins_are_compared_in_lower_case() -> None:
    assert [origin("HTTPS://A.b:1"), origin("null"), origin("http://[::1]:80")] == [
        "https://a.b:1", "null", "http://[::1]:80",
    ]  # fmt: skip


# What an operator is told.


@pytest.mark.parametrize(
    ("host", "tokens", "warned"),
    [("127.0.0.1", False, False), ("::1", False, False), ("0.0.0.0", False, True), ("::", True, False)],  # noqa: S104
)
def test_listening_beyond_this_machine_without_tokens_is_warned_of_once(
    told: list[str], host: str, *, tokens: bool, warned: bool
) -> None:
    address = Address(host, 8000)
    config = Config(data_dir=Path(), listen=address, tokens=Tokens([TOKEN] * tokens), limits=Limits(connections=1))
    warn_of_open_access(config, [address])
    warnings = [
        transport for transport in told if "may read the feed: set --tokens-file or HYPERWATCH_TOKENS" in transport
    ]
    assert len(warnings) == warned
    assert not warned or f"WARNING whoever reaches {host}:8000" in warnings[0]


def test_a_limit_of_open_files_that_is_below_what_clients_may_need_is_warned_of(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperwatch.service.frontend.sockets_end", lambda: 1010)
    monkeypatch.setattr("hyperwatch.service.frontend.open_files", lambda: 10)
    address = Address("127.0.0.1", 8000)
    for connections in (488, 489):
        warn_of_open_access(Config(data_dir=Path(), listen=address, limits=Limits(connections)), [address])
    assert len(told) == 1
    assert "there are open files for 1000 connections at once, and --max-connections 489 needs 1001" in told[0]
    assert "raise the limit to 1348 " in told[0]
    warn_of_open_access(Config(data_dir=Path(), listen=address, metrics_listen=address, limits=Limits(488)), [address])
    assert "--max-connections 488 needs 1512" in told[1]


def test_the_limit_that_is_named_is_enough() -> None:
    for sockets in range(100):
        limit = limit_for(sockets)
        assert limit - limit // 4 >= sockets > (limit - 1) - (limit - 1) // 4 - 1


def test_options_and_environment_make_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []
    raised: list[int] = []
    monkeypatch.setattr(trio, "run", lambda _, config: seen.append(config))
    monkeypatch.setattr("hyperwatch.cli.run.raise_open_files", lambda: raised.append(len(seen)))
    monkeypatch.setenv("HYPERWATCH_TOKENS", OTHER)
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    path.chmod(0o600)
    options = ["--max-connections", "5", "--max-connections-per-address", "4", "--max-subscriptions", "3"]
    options += ["--tokens-file", str(path), "--allow-origin", "http://A", "--allow-origin", "http://b"]

    assert _exit_code(["run", *options, "--info-url", "http://node/info"]) == 0
    assert raised == [0]  # before anything is opened
    (config,) = seen
    assert (config.limits, config.info_url) == (Limits(5, 4, 3), "http://node/info")
    assert config.origins == {"http://a", "http://b"}
    assert config.tokens.allow(TOKEN)
    assert config.tokens.allow(OTHER)
    assert not [word for word in (TOKEN, OTHER) if word in repr(config)]


async def test_the_service_does_what_its_settings_say(tmp_path: Path, told: list[str]) -> None:
    append(hour_file(tmp_path, "20260505/9"), written(7, [event(1)]))
    settings: dict[str, Any] = {"tokens": TOKENS, "origins": frozenset(["http://desk"]), "limits": Limits(1, 1, 1)}
    with trio.fail_after(20):
        async with running(tmp_path, **settings) as port:
            async with raw(port, f"Authorization: Bearer {TOKEN}", "Origin: http://desk") as client:
                for name in "ab":
                    await client.tell({"method": "subscribe", "subscription": {"type": "orders", "id": name}})
                answers = [await client.answer() for _ in range(3)]
                assert "too-many-subscriptions" in [answer.get("code") for answer in answers]
                assert (await asked(port, handshake(f"Authorization: Bearer {TOKEN}")))[0] == 503
            assert (await asked(port, handshake("Authorization: Bearer x")))[0] == 401
            assert (await asked(port, b"POST /info HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 401
        async with running(tmp_path, listen=Address("0.0.0.0", 0)) as port:  # noqa: S104
            assert (await asked(port, b"POST /info HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 501
    assert len([transport for transport in told if "may read the feed" in transport]) == 1
