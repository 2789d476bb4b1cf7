"""`/info`: what SDKs ask when they are built, forwarded to the node's own info server."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import h11
import msgspec
import trio

from hyperwatch.errors import UsageError
from hyperwatch.feed.requests.nesting import DEPTH, too_deep
from hyperwatch.server.http import Answer, Request, Route
from hyperwatch.server.refusals import Reason, RefusedError

__all__ = ["ALLOWED", "ANSWER_BYTES", "ANSWER_S", "AT_ONCE", "REQUEST_BYTES", "Info", "info_route"]

# What the official SDK asks when it is built, what ccxt asks for its markets, and the node's clock. Never fileSnapshot:
# it writes files on the node.
ALLOWED = ("meta", "spotMeta", "perpDexs", "exchangeStatus", "metaAndAssetCtxs", "spotMetaAndAssetCtxs")

REQUEST_BYTES = 4096
ANSWER_BYTES = 8 * 1024 * 1024  # the largest, metaAndAssetCtxs, has some hundred KiB
ANSWER_S = 10.0  # all in all, waiting for a turn included
AT_ONCE = 4  # the node comes first; the others wait. They are bounded as handshakes are, and each holds little
_READ_BYTES = 65536
_JSON = "application/json"


def info_route(url: str | None) -> Route:
    """What answers at `/info`.

    Args:
        url: of the node's info server, as `http://HOST:PORT/info`; None: there is none.

    Raises:
        UsageError: where it is no such URL.
    """
    return Route(_unavailable if url is None else Info(url).answer, "POST", REQUEST_BYTES)


class Info:
    """Asks the node's info server.

    Args:
        url: as in `info_route`.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port or 80
        except ValueError:
            self._host = ""
        if not self._host or parts.scheme != "http" or parts.query or not url.isascii():
            what = f"--info-url {url!r} is no http://HOST:PORT/PATH"
            raise UsageError(what, "write it as http://127.0.0.1:3001/info, where the node runs with --serve-info")
        self._netloc = parts.netloc.rpartition("@")[2]
        self._path = parts.path or "/"
        self._turns = trio.CapacityLimiter(AT_ONCE)

    async def answer(self, request: Request) -> Answer:
        """The node's answer. Raises RefusedError where the request is not allowed, or the node does not answer."""
        body = _allowed(request.body)
        try:
            with trio.fail_after(ANSWER_S):
                async with self._turns:
                    return await self._ask(body)
        except trio.TooSlowError as error:
            raise _failed(HTTPStatus.GATEWAY_TIMEOUT, f"has not answered within {ANSWER_S:g} s") from error
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise _failed(HTTPStatus.BAD_GATEWAY, "does not answer") from error

    async def _ask(self, body: bytes) -> Answer:
        connection = h11.Connection(h11.CLIENT)
        headers = [("Host", self._netloc), ("Content-Type", _JSON), ("Content-Length", str(len(body)))]
        request = h11.Request(method="POST", target=self._path, headers=[*headers, ("Connection", "close")])
        asked = [connection.send(event) or b"" for event in (request, h11.Data(data=body), h11.EndOfMessage())]
        async with await trio.open_tcp_stream(self._host, self._port) as stream:
            await stream.send_all(b"".join(asked))
            head, told = None, bytearray()
            while True:
                event = connection.next_event()
                match event:
                    case h11.NEED_DATA:
                        connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
                    case h11.Response():
                        head = event
                    case h11.Data():
                        told += event.data
                        if len(told) > ANSWER_BYTES:
                            raise _failed(HTTPStatus.BAD_GATEWAY, f"answers more than {ANSWER_BYTES // 2**20} MiB")
                    case h11.EndOfMessage() if head is not None:
                        return _passed_on(head, bytes(told))


def _allowed(body: bytes) -> bytes:
    """The request, written anew: what was checked is what is sent, even where a key was there twice."""
    if too_deep(body):
        text = f"no JSON object was sent: lists and objects are nested more than {DEPTH} deep"
        raise RefusedError(Reason.INFO_REQUEST, HTTPStatus.BAD_REQUEST, text)
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError) as error:
        raise RefusedError(Reason.INFO_REQUEST, HTTPStatus.BAD_REQUEST, f"no JSON object was sent: {error}") from error
    kind = document.get("type")
    if kind not in ALLOWED:
        text = f"this request is not forwarded to the node; these types are: {', '.join(ALLOWED)}"
        raise RefusedError(Reason.INFO_REQUEST, HTTPStatus.FORBIDDEN, text)
    return msgspec.json.encode(document)


def _passed_on(head: h11.Response, body: bytes) -> Answer:
    if not 200 <= head.status_code < 300 and head.status_code < 400:  # noqa: PLR2004  redirections
        raise _failed(HTTPStatus.BAD_GATEWAY, f"answers {head.status_code}")
    kind = next((value.decode("latin-1") for name, value in head.headers if name == b"content-type"), _JSON)
    return Answer(head.status_code, body, kind)


async def _unavailable(_: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    text = "/info is not served here: the service's --info-url names the info server of its node"
    raise RefusedError(Reason.INFO_REQUEST, HTTPStatus.NOT_IMPLEMENTED, text)


def _failed(status: HTTPStatus, what: str) -> RefusedError:
    return RefusedError(Reason.INFO_ANSWER, status, f"the node's info server {what}")
