"""HTTP on the feed's port: one request a connection, read before anything else is done, then a WebSocket or an answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from http.client import responses

import attrs
import h11
import trio

from hyperwatch.server.foreign import foreign, undecided
from hyperwatch.server.refusals import ClientGoneError, Reason, RefusedError

__all__ = ["HEAD_BYTES", "Answer", "Exchange", "Request", "Route", "Routes", "refusal"]

HEAD_BYTES = 16 * 1024  # a browser's head with its cookies has 2 to 4 KiB
_READ_BYTES = 4096
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_ABSOLUTE = re.compile(r"(?:https?|wss?)://([^/?#]*)", re.IGNORECASE)
_TEXT = "text/plain; charset=utf-8"


@attrs.frozen
class Request:
    """The head of a request, and its body where a route asks for one."""

    method: str
    path: str
    """Without the query; slashes at its end and doubled ones do not count."""
    headers: Mapping[bytes, bytes]
    """By lower-case names; what is there twice is joined by a comma."""
    body: bytes = b""

    def header(self, name: bytes) -> str:
        """A header's value, "" where it is absent."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def for_websocket(self) -> bool:
        """Whether it asks for a WebSocket."""
        return "websocket" in self._words(b"upgrade")

    def websocket_key(self) -> bytes:
        """What the handshake is answered by. Raises RefusedError where it is none (RFC 6455, 4.2.1)."""
        key = self.headers.get(b"sec-websocket-key", b"")
        if self.method != "GET" or "upgrade" not in self._words(b"connection") or not _KEY.fullmatch(key):
            text = "a WebSocket handshake is a GET with Connection: Upgrade and a Sec-WebSocket-Key of 16 bytes"
            raise RefusedError(Reason.REQUEST, HTTPStatus.BAD_REQUEST, text)
        if self.header(b"sec-websocket-version") != "13":
            headers = [("Sec-WebSocket-Version", "13")]
            raise RefusedError(Reason.REQUEST, HTTPStatus.UPGRADE_REQUIRED, "only version 13 is spoken", headers)
        return key

    def _words(self, name: bytes) -> list[str]:
        """A header's list of words, in lower case."""
        return [word.strip().lower() for word in self.header(name).split(",")]


@attrs.frozen
class Answer:
    """What a route answers."""

    status: int
    body: bytes
    kind: str = _TEXT
    headers: Sequence[tuple[str, str]] = ()


@attrs.frozen
class Route:
    """What answers at a path. It may raise RefusedError, and ends by itself."""

    answer: Callable[[Request], Awaitable[Answer]]
    method: str = "GET"
    body_bytes: int = 0
    """A longer body is refused."""
    free: bool = False
    """Whether it is answered without a token."""

    @property
    def methods(self) -> tuple[str, ...]:
        """What may be asked of it: HEAD is answered as GET is, without the body."""
        return (self.method, "HEAD", "OPTIONS") if self.method == "GET" else (self.method, "OPTIONS")


Routes = Mapping[str, Route]


def refusal(error: RefusedError) -> Answer:
    """A refusal as a plain text."""
    return Answer(error.code, f"{error.text}\n".encode(), headers=error.headers)


class Exchange:
    """Reads one request. The caller bounds how long it may take.

    Args:
        stream: just accepted.
    """

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._first = b""  # held until it is told from other protocols
        self._told = False
        self._method = ""

    async def head(self) -> Request:
        """The request without its body. Raises RefusedError where it is none, ClientGoneError where nothing comes."""
        event = await self._event()
        if not isinstance(event, h11.Request):
            raise ClientGoneError
        headers: dict[bytes, bytes] = {}
        for name, value in event.headers:
            headers[name] = headers[name] + b", " + value if name in headers else value
        self._method = event.method.decode("ascii")
        path, host = _place(event.target.decode("ascii"))
        if host is not None:
            headers[b"host"] = host.encode("ascii")  # RFC 9112, 3.2.2
        request = Request(self._method, path, headers)
        if request.for_websocket and self._h11.trailing_data[0]:
            raise RefusedError(Reason.REQUEST, HTTPStatus.BAD_REQUEST, "wait for the answer to the handshake")
        return request

    async def body(self, most_bytes: int) -> bytes:
        """What follows the head. Raises RefusedError where it is longer, ClientGoneError where it breaks off."""
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > most_bytes:
                text = f"the body of this request is at most {most_bytes} bytes long"
                raise RefusedError(Reason.REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
        return bytes(body)

    def rendered(self, answer: Answer) -> bytes:
        """The whole answer to the request, as it goes over the wire: without its body where only the head was asked for."""
        lines = [
            f"HTTP/1.1 {answer.status} {responses.get(answer.status, '')}",
            *(() if answer.status == HTTPStatus.NO_CONTENT else _measures(answer)),
            "Connection: close",
            *(f"{name}: {value}" for name, value in answer.headers),
        ]
        body = b"" if self._method == "HEAD" else answer.body
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    async def _event(self) -> object:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise RefusedError(Reason.REQUEST, error.error_status_hint, f"not a request: {error}") from error
            if event is not h11.NEED_DATA:
                return event
            try:
                data = bytes(await self._stream.receive_some(_READ_BYTES))
            except trio.BrokenResourceError as error:
                raise ClientGoneError from error
            if not self._told:
                data = self._first + data if data else b""
                if words := foreign(data):
                    raise RefusedError(Reason.FOREIGN, HTTPStatus.BAD_REQUEST, words)
                if data and undecided(data):
                    self._first = data
                    continue
                self._told = True
            self._h11.receive_data(data)


def _measures(answer: Answer) -> tuple[str, str]:
    return f"Content-Type: {answer.kind}", f"Content-Length: {len(answer.body)}"


def _place(target: str) -> tuple[str, str | None]:
    """(the path, the host where the target brings one: proxies are asked by whole addresses)."""
    found = _ABSOLUTE.match(target)
    path = (target[found.end() :] if found else target).partition("?")[0]
    if found or path.startswith("/"):
        path = "/" + "/".join(filter(None, path.split("/")))
    return path, found[1] if found else None
