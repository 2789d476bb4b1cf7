"""What clients say and what they are answered: the official Hyperliquid protocol and our additions to it. Pure.

The envelope and official types tolerate unknown keys; in our own types an unknown key is an error, for a typo must not
open the firehose. Error texts are the official ones, with braces only around one valid JSON document (clients search
them with a regular expression).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal

import attrs
import cattrs
import msgspec

from hyperwatch.errors import CursorError
from hyperwatch.feed.filters import CLASSES, OrderFilter, address
from hyperwatch.feed.views import Orders, OrderUpdates, View
from hyperwatch.log.cursor import Cursor
from hyperwatch.node.statuses import OFFICIAL, StatusClass, class_of_name

__all__ = [
    "AUTHORIZED",
    "EARLIEST",
    "PONG",
    "Auth",
    "Ping",
    "ProtocolError",
    "Subscribe",
    "Unsubscribe",
    "acknowledgement",
    "already_subscribed",
    "already_unsubscribed",
    "bad_cursor",
    "binary",
    "parse",
    "too_many_subscriptions",
    "unauthorized",
]

EARLIEST = "earliest"
PONG = b'{"channel":"pong"}'
AUTHORIZED = b'{"channel":"auth"}'

_ID_CHARACTERS = 64
_FEW = 5  # of several alike; an answer is no place for thousands
_STATUSES = 100
_ECHO_BYTES = 16 * 1024  # an answer to nonsense is no place for a megabyte of it

# The official texts (nktkas' SDK and order_book_server agree on them).
_PARSING = "Error parsing JSON into valid websocket request"
_INVALID = "Invalid subscription"
_SUBSCRIBED = "Already subscribed"
_UNSUBSCRIBED = "Already unsubscribed"
_UNAUTHORIZED = "Unauthorized"  # ours: the official feed asks for no token


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
        joint = " " if official is _INVALID else ": "
        self._text = f"{official}{joint}{document.decode()}" if 0 < len(document) <= _ECHO_BYTES else official
        self._reason = reason.replace("{", "(").replace("}", ")")
        self._code = code
        self._id = id

    def message(self) -> bytes:
        """The answer."""
        text = f"{self._text}: {self._reason}" if self._reason else self._text
        extras = {"code": self._code} | ({} if self._id is None else {"id": self._id})
        return msgspec.json.encode({"channel": "error", "data": text, **extras})


def already_subscribed(echo: bytes) -> ProtocolError:
    """The connection holds such a subscription."""
    return ProtocolError(_SUBSCRIBED, echo, "", "already-subscribed")


def already_unsubscribed(echo: bytes) -> ProtocolError:
    """The connection holds no such subscription."""
    return ProtocolError(_UNSUBSCRIBED, echo, "", "already-unsubscribed")


def bad_cursor(error: Exception, request: Subscribe) -> ProtocolError:
    """The place where a subscription should begin cannot be read."""
    return ProtocolError(_INVALID, request.echo, str(error), "bad-cursor", id=request.id)


def binary() -> ProtocolError:
    """Messages are text."""
    return ProtocolError(_PARSING, b"", "binary messages are not understood; send text", "bad-request")


def too_many_subscriptions(request: Subscribe, most: int) -> ProtocolError:
    """The connection holds as many as it may."""
    reason = (
        f"this connection has {most} subscriptions, as many as one may; a subscription may name many coins and users"
    )
    return ProtocolError(_INVALID, request.echo, reason, "too-many-subscriptions", id=request.id)


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

    view: View
    echo: bytes
    """The subscription as the client wrote it."""
    id: str | None = None
    start: Cursor | Literal["earliest"] | None = None
    """None: at the newest complete line."""
    warnings: tuple[str, ...] = ()


@attrs.frozen
class Unsubscribe:
    """A subscription that is to end, by its id or as an equal one."""

    echo: bytes
    id: str | None
    view: View | None


class _Request(msgspec.Struct):
    method: str
    subscription: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    token: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Type(msgspec.Struct):
    type: str


def parse(text: str) -> Auth | Ping | Subscribe | Unsubscribe:
    """What a client's message asks for.

    Raises:
        ProtocolError: with the answer in it.
    """
    try:
        request = msgspec.json.decode(text, type=_Request)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _not_a_request(text, error) from None
    if request.method == "ping":
        return Ping()
    if request.method == "auth":
        return _auth(request.token)
    if request.method not in ("subscribe", "unsubscribe"):
        known = 'the methods are "subscribe", "unsubscribe", "ping" and "auth"'
        raise ProtocolError(_PARSING, _document(text), f"unknown method {request.method!r}: {known}", "unknown-method")
    if request.subscription is msgspec.UNSET:
        raise ProtocolError(_PARSING, _document(text), "a subscription is missing", "bad-request")
    return _subscription(request.method, bytes(request.subscription))


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
        warnings: what may not be what the client meant.
    """
    if id is not None and "id" not in msgspec.json.decode(echo):
        echo = echo.rstrip()[:-1] + b',"id":%s}' % msgspec.json.encode(id)
    extras = (
        b"" if cursor is None else b',"cursor":"%s","warnings":%s' % (cursor.encode(), msgspec.json.encode(warnings))
    )
    return b'{"channel":"subscriptionResponse","data":{"method":"%s","subscription":%s}%s}' % (
        method.encode(),
        echo,
        extras,
    )


def _not_a_request(text: str, error: Exception) -> ProtocolError:
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ProtocolError(_PARSING, _document(text), reason, "bad-request" if _document(text) else "bad-json")


def _document(text: str) -> bytes:
    """The text where it is one JSON object, else nothing: braces belong around valid JSON only."""
    try:
        whole = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return b""
    return text.encode() if isinstance(whole, dict) else b""


def _auth(token: msgspec.Raw | msgspec.UnsetType) -> Auth:
    """Errors do not repeat the message: there may be a token in it."""
    try:
        return Auth(msgspec.json.decode(b"null" if token is msgspec.UNSET else token, type=str))
    except msgspec.DecodeError:
        raise ProtocolError(_PARSING, b"", "auth needs a token, a string", "bad-request") from None


def _subscription(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    try:
        kind = msgspec.json.decode(echo, type=_Type).type
    except msgspec.DecodeError as error:
        document = echo if echo.startswith(b"{") else b""
        raise ProtocolError(_INVALID, document, f"no type: {error}", "invalid-subscription") from None
    read = {"orders": _orders, "orderUpdates": _order_updates}.get(kind)
    if read is None:
        reason = f"{kind!r} is not served here; orders and orderUpdates are"
        raise ProtocolError(_INVALID, echo, reason, "unknown-type")
    return read(method, echo)


@attrs.frozen
class _OrdersRequest:
    """The subscription `orders` as clients write it."""

    type: Literal["orders"]
    coins: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    statuses: tuple[str, ...] | None = None
    notStatuses: tuple[str, ...] | None = None
    sides: tuple[str, ...] | None = None
    id: str | None = None
    start: str | None = None  # `from` on the wire, which is a word of Python's


def _orders(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    try:
        request = _CONVERTER.structure(msgspec.json.decode(echo), _OrdersRequest)
    except cattrs.ClassValidationError as error:
        reason = "; ".join(map(_readable, cattrs.transform_error(error, "", _say)))
        raise ProtocolError(_INVALID, echo, reason, "invalid-subscription") from None
    lists = (request.coins, request.users, request.statuses, request.notStatuses, request.sides)
    try:
        view = Orders(OrderFilter.of(*lists))
    except ValueError as error:
        raise ProtocolError(_INVALID, echo, str(error), "invalid-subscription", id=request.id) from None
    if request.id is not None and not 0 < len(request.id) <= _ID_CHARACTERS:
        reason = f"id has {len(request.id)} characters: 1 to {_ID_CHARACTERS} are allowed"
        raise ProtocolError(_INVALID, echo, reason, "invalid-subscription")
    if method == "unsubscribe":
        return Unsubscribe(echo, request.id, view if request.id is None else None)
    try:
        start = _start(request.start)
    except CursorError as error:
        raise bad_cursor(error, Subscribe(view, echo, request.id)) from None
    words = [*(request.statuses or ()), *(request.notStatuses or ())]
    if len(words) > _STATUSES:
        reason = f"{len(words)} statuses are named: at most {_STATUSES} may be, and classes name many at once"
        raise ProtocolError(_INVALID, echo, reason, "invalid-subscription", id=request.id)
    return Subscribe(
        view, echo, request.id, start, _few([warning for word in words if (warning := _doubtful_status(word))])
    )


def _start(text: str | None) -> Cursor | Literal["earliest"] | None:
    if text is None:
        return None
    return "earliest" if text == EARLIEST else Cursor.decode(text)


def _doubtful_status(word: str) -> str | None:
    if word in OFFICIAL or word in CLASSES or class_of_name(word) is not StatusClass.UNKNOWN:
        return None
    near = difflib.get_close_matches(word, [*OFFICIAL, *CLASSES], 1)
    return f"no status {word!r} is known" + (f"; did you mean {near[0]!r}?" if near else "")


class _UserRequest(msgspec.Struct):
    user: str


def _order_updates(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    try:
        view = OrderUpdates(address(msgspec.json.decode(echo, type=_UserRequest).user))
    except (msgspec.DecodeError, ValueError) as error:
        raise ProtocolError(_INVALID, echo, str(error), "invalid-subscription") from None
    return Subscribe(view, echo) if method == "subscribe" else Unsubscribe(echo, None, view)


def _strictly_text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError(_NO_TEXT)
    return value


def _strictly_list(value: object, _: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise TypeError(_NO_LIST)
    return tuple(value)


_NO_TEXT = "must be a string"
_NO_LIST = "must be a list of strings"

_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
_CONVERTER.register_structure_hook(str, _strictly_text)
_CONVERTER.register_structure_hook(tuple[str, ...] | None, _strictly_list)
_CONVERTER.register_structure_hook(
    _OrdersRequest,
    cattrs.gen.make_dict_structure_fn(
        _OrdersRequest, _CONVERTER, _cattrs_forbid_extra_keys=True, start=cattrs.gen.override(rename="from")
    ),
)
_KEYS = ["from" if field.name == "start" else field.name for field in attrs.fields(_OrdersRequest)]


def _readable(fault: str) -> str:
    """From `what @ .path`, as cattrs says it, to `path what`."""
    what, _, path = fault.rpartition(" @ ")
    return f"{path.removeprefix('.').replace('start', 'from')} {what}".strip()


def _say(error: BaseException, _: type | None) -> str:
    """One fault in a subscription, in words that name the remedy."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        unknown = sorted(error.extra_fields)
        more = f", and {len(unknown) - _FEW} more" if len(unknown) > _FEW else ""
        return ", ".join(f"unknown key {key[:_ID_CHARACTERS]!r}{_instead(key)}" for key in unknown[:_FEW]) + more
    return str(error)


def _few(warnings: Sequence[str]) -> tuple[str, ...]:
    more = [f"and {len(warnings) - _FEW} more"] if len(warnings) > _FEW else []
    return (*warnings[:_FEW], *more)


def _instead(key: str) -> str:
    near = difflib.get_close_matches(key, _KEYS, 1)
    return f", did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(_KEYS)}"
