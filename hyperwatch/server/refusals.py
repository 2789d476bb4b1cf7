"""How a connection ends before its time: its client has left, or is refused."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

__all__ = ["NO_ANSWER", "ClientGoneError", "Reason", "RefusedError"]

NO_ANSWER = 0


class Reason(StrEnum):
    """Why a client is refused something, or let go. Each is counted under its name."""

    CONNECTIONS = "connections"
    ADDRESS = "address"
    HANDSHAKES = "handshakes"
    FILES = "files"
    STOPPING = "stopping"
    SLOW_HANDSHAKE = "slow_handshake"
    REQUEST = "request"
    FOREIGN = "foreign"
    ORIGIN = "origin"
    TOKEN = "token"  # noqa: S105  a name
    INFO_REQUEST = "info_request"
    INFO_ANSWER = "info_answer"
    SUBSCRIPTIONS = "subscriptions"
    WORDS = "words"
    SIZE = "size"
    RATE = "rate"
    PROTOCOL = "protocol"
    SILENT = "silent"
    STALLED = "stalled"
    FAULT = "fault"


class ClientGoneError(Exception):
    """The other side is gone, or the connection can only be ended."""


class RefusedError(Exception):
    """A client is refused, or let go.

    Args:
        why: is counted.
        code: an HTTP status before the handshake, a closing code after it; NO_ANSWER where none would arrive.
        text: what the client is told, a sentence without a full stop at its end.
        headers: what an HTTP answer needs beside it.
    """

    def __init__(self, why: Reason, code: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.why = why
        self.code = code
        self.text = text
        self.headers = headers
