"""What can be asked for and what is answered: the official Hyperliquid protocol and our additions to it. Pure.

Error texts are the official ones, with braces only around one valid JSON document (clients search them with a regular
expression).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
import msgspec

from hyperwatch.feed.channels.events import BookDiffs, Channel, Fills, Orders
from hyperwatch.feed.filters.word_lists import TooManyWordsError
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.bisect import AtBlock, AtTime
from hyperwatch.node.streams import STREAMS

__all__ = [
    "AUTHORIZED",
    "EARLIEST",
    "INVALID",
    "PARSING",
    "PONG",
    "Auth",
    "Ping",
    "ProtocolError",
    "Subscribe",
    "Unsubscribe",
    "Where",
    "acknowledgement",
    "already_subscribed",
    "already_unsubscribed",
    "bad_cursor",
    "binary",
    "files_away",
    "no_posts",
    "not_written",
    "too_many_subscriptions",
    "too_many_words",
    "unauthorized",
]

EARLIEST: Literal["earliest"] = "earliest"

Where = Cursor | AtTime | AtBlock | Literal["earliest"] | None
"""Where a subscription begins; None: at the newest complete line."""
PONG = b'{"channel":"pong"}'
AUTHORIZED = b'{"channel":"auth"}'

_ECHO_BYTES = 16 * 1024  # an answer to nonsense is no place for a megabyte of it
_REASON_CHARACTERS = 2048  # nor for a word of it

# The official texts (nktkas' SDK and order_book_server agree on them).
PARSING = "Error parsing JSON into valid websocket request"
INVALID = "Invalid subscription"
_SUBSCRIBED = "Already subscribed"
_UNSUBSCRIBED = "Already unsubscribed"
_UNAUTHORIZED = "Unauthorized"  # ours: the official feed asks for no token
_OTHERS = "Already subscribed ones go on"
_NO_POSTS = "nothing is posted here: this is a feed, which takes no orders; /info answers some questions over HTTP"

_OURS = frozenset(channel.channel.decode() for channel in (Orders, Fills, BookDiffs))


class ProtocolError(Exception):
    """A client's message that cannot be carried out.

    Args:
        official: how the official API begins its text for such an error.
        document: the JSON document that is meant, or b"".
        reason: in plain words; may be "".
        code: a word for programs.
    """

    def __init__(self, official: str, document: bytes, reason: str, code: str, *, id: str | None = None) -> None:  # noqa: A002  the wire's own name
        super().__init__(f"{official}: {reason}")
        joint = " " if official is INVALID else ": "
        document = document if len(document) <= _ECHO_BYTES else b""
        self._text = f"{official}{joint}{document.decode()}" if document else official
        self._over = document if official in (INVALID, _UNSUBSCRIBED) and _is_official(document) else b""
        self._reason = reason[:_REASON_CHARACTERS].replace("{", "(").replace("}", ")")
        self._code = code
        self._id = id

    def message(self) -> bytes:
        """The answer."""
        text = f"{self._text}: {self._reason}" if self._reason else self._text
        extras = {"code": self._code} | ({} if self._id is None else {"id": self._id})
        return msgspec.json.encode({"channel": "error", "data": f"{text}. {_OTHERS}" if self._over else text, **extras})

    def answers(self) -> Sequence[bytes]:
        """The answer, and behind it what ends a client's wait for a subscription that will not be.

        ccxt takes an error for the end of everything that it waits for on the connection, unless these words are in it:
        of this one subscription it then hears by what ends one.
        """
        return (self.message(), *([acknowledgement("unsubscribe", self._over)] if self._over else []))


class _Type(msgspec.Struct):
    type: str


def _is_official(document: bytes) -> bool:
    """Whether a subscription is of a type that is not ours: the exchange adds types without notice."""
    try:
        return msgspec.json.decode(document, type=_Type).type not in _OURS
    except msgspec.DecodeError:
        return False


class _NoPostError(ProtocolError):
    """A `post`, which the official API answers on a channel of its own, by its id."""

    def __init__(self, post: _Post) -> None:
        super().__init__(PARSING, b"", _NO_POSTS, "unknown-method")
        self._post = post

    def message(self) -> bytes:
        refused: dict[str, object] = {"type": "error", "payload": _NO_POSTS}
        if self._post.request.type == "action":  # whoever sends one looks at the status
            refused = {"type": "action", "payload": {"status": "err", "response": _NO_POSTS}}
        data = {"id": self._post.id, "response": refused}
        return msgspec.json.encode({"channel": "post", "data": data, "code": "unknown-method"})


class _Post(msgspec.Struct):
    id: int
    request: _Type


def no_posts(message: bytes) -> ProtocolError | None:
    """The answer to a `post` as the official API knows it; None where it is none."""
    try:
        return _NoPostError(msgspec.json.decode(message, type=_Post))
    except msgspec.DecodeError:
        return None


def already_subscribed(echo: bytes) -> ProtocolError:
    """The connection holds such a subscription."""
    return ProtocolError(_SUBSCRIBED, echo, "", "already-subscribed")


def already_unsubscribed(echo: bytes) -> ProtocolError:
    """The connection holds no such subscription."""
    return ProtocolError(_UNSUBSCRIBED, echo, "", "already-unsubscribed")


def bad_cursor(error: Exception, request: Subscribe) -> ProtocolError:
    """The place where a subscription should begin cannot be read."""
    return ProtocolError(INVALID, request.echo, str(error), "bad-cursor", id=request.id)


def files_away(error: Exception, request: Subscribe) -> ProtocolError:
    """The files cannot be read just now: the same subscription will be taken when they can."""
    return ProtocolError(
        INVALID, request.echo, f"{error}; subscribe again in some seconds", "files-away", id=request.id
    )


def not_written(request: Subscribe) -> ProtocolError:
    """The stream that a subscription looks at is not there."""
    stream = STREAMS[request.channel.stream]
    reason = f"there is no {stream.name}: a node writes it with {stream.flag}; subscribe again when it does"
    return ProtocolError(INVALID, request.echo, reason, "not-written", id=request.id)


def binary() -> ProtocolError:
    """Messages are text."""
    return ProtocolError(PARSING, b"", "binary messages are not understood; send text", "bad-request")


def too_many_subscriptions(request: Subscribe, most: int) -> ProtocolError:
    """The connection holds as many as it may."""
    reason = (
        f"this connection has {most} subscriptions, as many as one may; a subscription may name many coins and users"
    )
    return ProtocolError(INVALID, request.echo, reason, "too-many-subscriptions", id=request.id)


def too_many_words(error: TooManyWordsError, request: Subscribe) -> ProtocolError:
    """The connection, or the service, holds as many words in filters as it may."""
    reason = (
        f"the filters of this connection hold {error.held} words, this one has {error.asked}, and {error.most} are the most: "
        "end other subscriptions first"
        if error.alone
        else f"the filters of all clients hold {error.held} words, this one would add {error.asked}, and {error.most} are the most: "
        "try again later, or ask for more and filter yourself"
    )
    return ProtocolError(INVALID, request.echo, reason, "too-many-words", id=request.id)


def unauthorized(*, sent: bool) -> ProtocolError:
    """A message brought a wrong token; or none was `sent` where one is needed."""
    reason = "this token is not known here" if sent else "a token is needed first, as method auth with a token"
    return ProtocolError(_UNAUTHORIZED, b"", reason, "unauthorized")


@attrs.frozen
class Ping:
    """`{"method":"ping"}`."""


@attrs.frozen
class Auth:
    """`{"method":"auth","token":"..."}`."""

    token: str = attrs.field(repr=False)


@attrs.frozen
class Subscribe:
    """A subscription that is asked for."""

    channel: Channel
    echo: bytes
    """The subscription as the client wrote it."""
    id: str | None = None
    start: Where = None
    """None: at the newest complete line."""
    warnings: tuple[str, ...] = ()


@attrs.frozen
class Unsubscribe:
    """A subscription that is to end, by its id or as an equal one."""

    echo: bytes
    id: str | None
    channel: Channel | None


def acknowledgement(
    method: str,
    echo: bytes,
    *,
    id: str | None = None,  # noqa: A002  the wire's own name
    cursor: str | None = None,
    warnings: Sequence[str] = (),
) -> bytes:
    """The answer to a message that was carried out.

    Args:
        method: subscribe or unsubscribe.
        echo: the subscription as the client wrote it.
        id: of the subscription, added to the echo where the client did not choose it. None for official types.
        cursor: where the subscription starts. None for official types.
        warnings: what may not be what the client meant. With official types, only where there are some.
    """
    if id is not None and "id" not in msgspec.json.decode(echo):
        echo = echo.rstrip()[:-1] + b',"id":%s}' % msgspec.json.encode(id)
    extras = b"" if cursor is None else b',"cursor":"%s"' % cursor.encode()
    if cursor is not None or warnings:
        extras += b',"warnings":%s' % msgspec.json.encode(warnings)
    return b'{"channel":"subscriptionResponse","data":{"method":"%s","subscription":%s}%s}' % (
        method.encode(),
        echo,
        extras,
    )
