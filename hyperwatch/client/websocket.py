"""The wire, a client's side: one WebSocket connection. Of the client, the only file that imports trio_websocket."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, urlsplit

import trio
import trio_websocket

__all__ = ["ClientSocket", "ClosedError", "RefusedError", "open_client"]

_CONNECT_S, _DISCONNECT_S = 5.0, 2.0
_MESSAGE_BYTES = 2 * 1024 * 1024  # twice the feed's own limit
_MESSAGES = 16  # read ahead while the client is busy with one
_RECEIVE_BYTES = 64 * 1024  # trio-websocket's own 4 KiB are 5,000 system calls a second on a busy day
_NO_WEBSOCKET = f"no WebSocket there within {_CONNECT_S:g} s"


class RefusedError(Exception):
    """There is no connection: nobody answered, or somebody refused.

    Args:
        why: in plain words.
        status: the HTTP status of who refused; None where nobody answered.
    """

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


class ClosedError(Exception):
    """The other side closed the connection, with a code (1006: it broke) and a reason, which may be ""."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class ClientSocket:
    """One WebSocket connection, the client's side.

    Made by `open_client`.
    """

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self._websocket = websocket

    async def send(self, text: str) -> None:
        """Sends a text message. Raises ClosedError."""
        try:
            await self._websocket.send_message(text)
        except trio_websocket.ConnectionClosed as error:
            raise _closed(error) from error

    async def receive(self) -> bytes:
        """The server's next message. Raises ClosedError when those that came before the end are read."""
        try:
            message = await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise _closed(error) from error
        return message.encode() if isinstance(message, str) else message


@asynccontextmanager
async def open_client(url: str, token: str | None = None) -> AsyncIterator[ClientSocket]:
    """Connects, and says goodbye in the end: within _DISCONNECT_S, then the stream is closed by force.

    Not trio-websocket's `open_websocket_url`: where the server refuses or closes first, that leaves its socket open.

    Args:
        url: `ws://` or `wss://`.
        token: sent as `Authorization: Bearer`, unless None. Visible ASCII only.

    Raises:
        RefusedError: where there was no handshake within _CONNECT_S; it says why.
    """
    deadline = trio.current_time() + _CONNECT_S
    parts = urlsplit(url)
    headers = [] if token is None else [(b"Authorization", b"Bearer " + token.encode())]
    stream = await _dial(parts, deadline)
    failure: Exception | None = None  # raised outside the nursery, which would wrap it in a group
    try:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(deadline=deadline) as scope:
                websocket = await trio_websocket.wrap_client_stream(
                    nursery, stream, parts.netloc.rpartition("@")[2],
                    f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/",
                    extra_headers=headers, message_queue_size=_MESSAGES, max_message_size=_MESSAGE_BYTES, receive_buffer_size=_RECEIVE_BYTES,
                )  # fmt: skip
            if scope.cancelled_caught:
                failure = RefusedError(_NO_WEBSOCKET)
            else:
                try:
                    yield ClientSocket(websocket)
                except Exception as error:  # noqa: BLE001  it goes on below
                    failure = error
                with trio.move_on_after(_DISCONNECT_S):
                    await websocket.aclose()
            nursery.cancel_scope.cancel("the connection is over")
    except* trio_websocket.ConnectionRejected as group:
        failure = _refused(group)
    finally:
        await trio.aclose_forcefully(stream)
    if failure is not None:
        raise failure


async def _dial(parts: SplitResult, deadline: float) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    with trio.CancelScope(deadline=deadline):
        try:
            if not secure:
                return await trio.open_tcp_stream(host, port)
            stream = await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True)
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return stream  # noqa: TRY300
        except (OSError, trio.BrokenResourceError) as error:
            raise RefusedError(_why(error)) from error
    raise RefusedError(_NO_WEBSOCKET)


def _closed(error: trio_websocket.ConnectionClosed) -> ClosedError:
    if error.reason is None:
        return ClosedError(1006, "")
    return ClosedError(error.reason.code, error.reason.reason or "")


def _refused(group: BaseExceptionGroup[trio_websocket.ConnectionRejected]) -> RefusedError:
    """What the server said instead of a handshake."""
    error = group.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return _refused(error)
    body = " ".join((error.body or b"").decode(errors="replace").split())[:80]
    return RefusedError(f"HTTP {error.status_code}" + (f", {body}" if body else ""), error.status_code)


def _why(error: BaseException) -> str:
    """Why there is no connection: of the attempts that trio made, the first one's reason."""
    while isinstance(cause := error.__cause__, (OSError, BaseExceptionGroup)):
        error = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    if isinstance(error, ssl.SSLError):  # an OSError whose numbers are its own
        return f"TLS: {error.reason or error}"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
