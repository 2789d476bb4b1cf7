"""The server: connections in, each with an owner and an end.

What comes in is HTTP until it has shown that it is not: its head is read, then it is answered, or becomes a WebSocket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus

import attrs
import trio

from hyperwatch.feed.registry import Streams
from hyperwatch.feed.requests.answers import AUTHORIZED, Auth, ProtocolError, unauthorized
from hyperwatch.feed.requests.parse import parse
from hyperwatch.server.admission import UNAUTHORIZED, Admission
from hyperwatch.server.client_log import Level
from hyperwatch.server.connection import Connection
from hyperwatch.server.http import Answer, Exchange, Request, Route, Routes, refusal
from hyperwatch.server.limits import address_group
from hyperwatch.server.refusals import NO_ANSWER, ClientGoneError, Reason, RefusedError
from hyperwatch.server.transport import Transport
from hyperwatch.server.websocket import ServerWebSocket, accept

__all__ = ["HANDSHAKE_S", "Server"]

HANDSHAKE_S = 5.0  # for the head of a request, then for its body; for a token after a handshake without one
_ANSWER_S = 10.0  # for a client to take an answer
_PARTINGS = 256  # clients at once that are being told why they are refused, for a second each; the others are reset
_PATH = "/ws"
_METHODS = ("GET", "OPTIONS")  # of it
_GOING_AWAY, _FAULT = 1001, 1011


class Server:
    """Accepts clients and serves each in a task of its own.

    Args:
        streams: what clients can subscribe to; more may be added to it. Empty: there is no feed (yet), and only plain
            HTTP is answered.
        admission: who may come in.
        routes: what plain HTTP is answered, by path.
    """

    def __init__(self, streams: Streams, admission: Admission | None = None, routes: Routes | None = None) -> None:
        self._streams = streams
        self.admission = admission or Admission()
        self._routes = routes or {}
        self._closing = False
        self._gone = trio.Event()
        self._partings = 0
        self.connections: set[Connection] = set()

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serves one client until it is gone. Nothing that goes wrong with it leaves this function."""
        try:
            line = Transport(stream)
        except ClientGoneError:
            await trio.aclose_forcefully(stream)
            return
        exchange = Exchange(line)
        refused: RefusedError | None = None
        try:
            try:
                await self._attend(line, exchange)
            except* ClientGoneError:
                self._say("DEBUG", line, "client {} has left", line.peer)
            except* RefusedError as group:
                refused = _first(group)
            except* Exception as group:  # noqa: BLE001  one connection: a boundary named in the design
                words = "the connection of {} was ended by a fault of ours; the others go on"
                self._say("ERROR", line, words, line.peer, fault=group)
                code = _FAULT if line.framed else HTTPStatus.INTERNAL_SERVER_ERROR
                refused = RefusedError(Reason.FAULT, code, "a fault of the service")
            if refused is not None:
                await self._refuse(line, exchange, refused)
        finally:
            line.close()

    def refuse(self) -> None:
        """New clients are answered 503 from now on."""
        self._closing = True

    async def close(self, code: int, reason: str) -> None:
        """Says goodbye to every client and waits until all are gone; the caller bounds it."""
        self.refuse()
        async with trio.open_nursery() as nursery:
            for connection in self.connections:
                nursery.start_soon(self._close, connection, code, reason)
        while self.connections:
            self._gone = trio.Event()
            await self._gone.wait()

    async def _close(self, connection: Connection, code: int, reason: str) -> None:
        if not await connection.close(code, reason):
            self.admission.refusals[Reason.STALLED] += 1

    def _say(
        self, level: Level, line: Transport, words: str, *details: object, fault: BaseException | None = None
    ) -> None:
        self.admission.client_log.say(level, address_group(line.host), words, *details, fault=fault)

    async def _attend(self, line: Transport, exchange: Exchange) -> None:
        admission, peer = self.admission, line.host
        with admission.handshakes.place(None if admission.proxies.trust(peer) else address_group(peer)):
            admission.check_files(line.descriptor)
            with _deadline():
                request = await exchange.head()
            admission.check_origin(request, peer)
            if (client := admission.proxies.client(peer, request)) != peer:
                line.stands_for(client)
            if not request.for_websocket:
                await self._answer(line, exchange, request)
                return
            token = admission.token_of(request)
            key = self._admit(request)
            if not self._streams:
                raise _no_feed()
        with admission.connections.place(address_group(line.host)):  # nothing was awaited between the two places
            async with accept(line, key) as socket:
                if token is None:
                    token = await self._authorize(socket)
                if self._closing:  # since: goodbye was said to those who were there
                    await socket.refuse(_stopping(_GOING_AWAY))
                client = admission.client(socket.address, token)
                await self._serve(Connection(socket, self._streams, admission, client), line)

    def _admit(self, request: Request) -> bytes:
        """The key of a handshake that is to be answered."""
        if request.path != _PATH:
            raise self._elsewhere()
        if self._closing:
            raise _stopping()
        return request.websocket_key()

    async def _answer(self, line: Transport, exchange: Exchange, request: Request) -> None:
        """Plain HTTP: a route, and then the end."""
        route = self._routes.get(request.path)
        if route is None or not route.free:
            self.admission.check_token(request)
            if self._closing:
                raise _stopping()
        if request.method == "OPTIONS":
            answer = Answer(HTTPStatus.NO_CONTENT, b"", headers=[_allow(self._methods(request.path))])
        else:
            route = self._checked(route, request)
            with _deadline():
                body = await exchange.body(route.body_bytes)
            answer = await route.answer(attrs.evolve(request, body=body))
        with trio.move_on_after(_ANSWER_S):
            await line.send_all(exchange.rendered(answer))
        await line.drain()

    def _checked(self, route: Route | None, request: Request) -> Route:
        if route is None:
            if request.path == _PATH:
                raise RefusedError(Reason.REQUEST, HTTPStatus.BAD_REQUEST, f"{_PATH} is for WebSocket clients")
            raise self._elsewhere()
        if request.method not in route.methods:
            text = f"{request.path} answers {route.method} requests"
            raise RefusedError(Reason.REQUEST, HTTPStatus.METHOD_NOT_ALLOWED, text, [_allow(route.methods)])
        return route

    def _methods(self, path: str) -> Sequence[str]:
        """What may be asked at a path, and, as RFC 9110 has it, at `*` anywhere."""
        if path == "*":
            return sorted({*_METHODS, *(method for route in self._routes.values() for method in route.methods)})
        if path == _PATH:
            return _METHODS
        if path not in self._routes:
            raise self._elsewhere()
        return self._routes[path].methods

    def _elsewhere(self) -> RefusedError:
        there = f"the feed is at {_PATH}" if self._streams else f"there is {', '.join(self._routes)}"
        return RefusedError(Reason.REQUEST, HTTPStatus.NOT_FOUND, there)

    async def _authorize(self, socket: ServerWebSocket) -> str:
        """The token that a client sends. Waits for it as the first message: browsers cannot send one before."""
        request: object = None
        with trio.move_on_after(HANDSHAKE_S):
            message = await socket.receive()
            with suppress(ProtocolError):
                request = parse(message) if isinstance(message, str) else None
            if isinstance(request, Auth) and self.admission.allows(request.token):
                await socket.send(AUTHORIZED)
                return request.token
            await socket.send(unauthorized(sent=isinstance(request, Auth)).message())
        raise await socket.refuse(
            RefusedError(Reason.TOKEN, UNAUTHORIZED, "send a right token first: see docs/security.md")
        )

    async def _serve(self, connection: Connection, line: Transport) -> None:
        self.connections.add(connection)
        self._say("INFO", line, "client {} connected, {} now", line.peer, len(self.connections))
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)
            self._gone.set()
            self._say("INFO", line, "client {} left, {} now", line.peer, len(self.connections))

    async def _refuse(self, line: Transport, exchange: Exchange, error: RefusedError) -> None:
        """Counts it, and tells the client why, unless too many are being told."""
        self.admission.refusals[error.why] += 1
        # What speaks another protocol to this port was given the wrong address: its operator may read this.
        level: Level = "INFO" if error.why is Reason.FOREIGN else "DEBUG"
        self._say(level, line, "client {} is refused ({}): {}", line.peer, error.why, error)
        if error.code == NO_ANSWER or self._partings >= _PARTINGS:
            line.reset()
            return
        self._partings += 1
        try:
            if line.framed:
                await line.part(error.code, error.text)
            else:
                await line.say(exchange.rendered(refusal(error)))
            await line.drain()
        finally:
            self._partings -= 1


@contextmanager
def _deadline() -> Iterator[None]:
    try:
        with trio.fail_after(HANDSHAKE_S):
            yield
    except trio.TooSlowError as error:
        text = f"the request was not complete within {HANDSHAKE_S:g} s"
        raise RefusedError(Reason.SLOW_HANDSHAKE, HTTPStatus.REQUEST_TIMEOUT, text) from error


def _allow(methods: Sequence[str]) -> tuple[str, str]:
    return "Allow", ", ".join(methods)


def _stopping(code: int = HTTPStatus.SERVICE_UNAVAILABLE) -> RefusedError:
    return RefusedError(Reason.STOPPING, code, "shutting down")


def _no_feed() -> RefusedError:
    text = "there is no feed here: where this is its address, the node has written nothing yet; try again later"
    return RefusedError(Reason.REQUEST, HTTPStatus.SERVICE_UNAVAILABLE, text)


def _first(group: BaseExceptionGroup[RefusedError]) -> RefusedError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
