"""What clients say and what they are answered: the official Hyperliquid protocol and our additions to it. Pure.

The envelope and official types tolerate unknown keys; in our own types an unknown key is an error, for a typo must not
open the firehose. Error texts are the official ones, with braces only around one valid JSON document (clients search
them with a regular expression).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import attrs
import cattrs
import msgspec

from hyperwatch.errors import CursorError
from hyperwatch.feed.details import address
from hyperwatch.feed.trades import Trades, UserFills
from hyperwatch.feed.views import BookDiffs, Events, Fills, Orders, OrderUpdates, View
from hyperwatch.feed.wanted import EventFilter
from hyperwatch.feed.words import FILTERS, WORDS, DecimalText, Words, doubts, few, filter_of, near
from hyperwatch.log.cursor import Cursor
from hyperwatch.log.wish import AtBlock, AtTime
from hyperwatch.node.streams import STREAMS

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
    "not_written",
    "parse",
    "too_many_subscriptions",
    "unauthorized",
]

R = TypeVar("R")

EARLIEST: Literal["earliest"] = "earliest"

Where = Cursor | AtTime | AtBlock | Literal["earliest"] | None
"""Where a subscription begins; None: at the newest complete line."""
PONG = b'{"channel":"pong"}'
AUTHORIZED = b'{"channel":"auth"}'

_ID_CHARACTERS = 64
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


def not_written(request: Subscribe) -> ProtocolError:
    """The stream that a subscription looks at is not there."""
    stream = STREAMS[request.view.stream]
    reason = f"there is no {stream.name}: a node writes it with {stream.flag}; subscribe again when it does"
    return ProtocolError(_INVALID, request.echo, reason, "not-written", id=request.id)


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
    start: Where = None
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
    try:
        msgspec.json.decode(echo)
    except msgspec.DecodeError as error:  # a number of thousands of digits: valid JSON that nothing can hold
        raise ProtocolError(_INVALID, b"", str(error), "invalid-subscription") from None
    read = _TYPES.get(kind)
    if read is None:
        reason = f"{kind!r} is not served here; {', '.join(_TYPES)} are"
        raise ProtocolError(_INVALID, echo, reason, "unknown-type")
    return read(method, echo)


@attrs.frozen(kw_only=True)
class _OrdersRequest(Words):
    """The subscription `orders` as clients write it."""

    type: Literal["orders"]
    filters: tuple[Words, ...] | None = None
    id: str | None = None
    start: Any = None  # `from` on the wire, which is a word of Python's


@attrs.frozen
class _EventsRequest:
    """The subscriptions `fills` and `bookDiffs` as clients write them."""

    type: Literal["fills", "bookDiffs"]
    coins: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    id: str | None = None
    start: Any = None  # as above


def _orders(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    request = _structured(echo, _OrdersRequest)
    try:
        view = Orders(filter_of(request, request.filters))
    except ValueError as error:
        raise ProtocolError(_INVALID, echo, str(error), "invalid-subscription", id=request.id) from None
    wish = _ours(method, echo, request, view)
    if isinstance(wish, Unsubscribe):
        return wish
    return attrs.evolve(wish, warnings=doubts(request.filters or [request]))


def _events(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    request = _structured(echo, _EventsRequest)
    try:
        wanted = EventFilter.of(request.coins, request.users)
    except ValueError as error:
        raise ProtocolError(_INVALID, echo, str(error), "invalid-subscription", id=request.id) from None
    return _ours(method, echo, request, Fills(wanted) if request.type == "fills" else BookDiffs(wanted))


def _structured(echo: bytes, request: type[R]) -> R:
    try:
        return _CONVERTER.structure(msgspec.json.decode(echo), request)
    except cattrs.ClassValidationError as error:
        reason = "; ".join(map(_readable, cattrs.transform_error(error, "", _say)))
        raise ProtocolError(_INVALID, echo, reason, "invalid-subscription") from None
    except msgspec.DecodeError as error:  # a number that no computer holds: until now nobody looked inside
        raise ProtocolError(_INVALID, echo, str(error), "invalid-subscription") from None


def _ours(method: str, echo: bytes, request: _OrdersRequest | _EventsRequest, view: Events) -> Subscribe | Unsubscribe:
    """What all types of our own have in common."""
    if request.id is not None and not 0 < len(request.id) <= _ID_CHARACTERS:
        reason = f"id has {len(request.id)} characters: 1 to {_ID_CHARACTERS} are allowed"
        raise ProtocolError(_INVALID, echo, reason, "invalid-subscription")
    if method == "unsubscribe":
        return Unsubscribe(echo, request.id, view if request.id is None else None)
    try:
        return Subscribe(view, echo, request.id, _start(request.start))
    except CursorError as error:
        raise bad_cursor(error, Subscribe(view, echo, request.id)) from None
    except ValueError as error:
        raise ProtocolError(_INVALID, echo, str(error), "invalid-subscription", id=request.id) from None


def _start(wish: object) -> Where:
    """Raises CursorError for a cursor that is none, ValueError for anything else that is no place to begin."""
    if wish is None:
        return None
    if isinstance(wish, str):
        return EARLIEST if wish == EARLIEST else Cursor.decode(wish)
    if isinstance(wish, dict) and len(wish) == 1:
        ((name, value),) = wish.items()
        kind, bound = _WISHES.get(name, (None, 0))
        if kind is not None and type(value) is int and 0 <= value < bound:
            return kind(value)
    raise ValueError(_NO_START)


_NO_START = 'from must be a cursor, "earliest", an object with "time" in ms, or one with "block"'
_WISHES: dict[str, tuple[type[AtTime | AtBlock], int]] = {
    "time": (AtTime, 10**14),  # the year 5138
    "block": (AtBlock, 2**53),  # what every client's numbers hold
}


class _UserRequest(msgspec.Struct):
    user: str


class _CoinRequest(msgspec.Struct):
    coin: str


def _order_updates(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    return _official(method, echo, lambda: OrderUpdates(_user(echo)))


def _user_fills(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    return _official(method, echo, lambda: UserFills(_user(echo)))


def _trades(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    return _official(method, echo, lambda: Trades(msgspec.json.decode(echo, type=_CoinRequest).coin))


def _user(echo: bytes) -> str:
    return address(msgspec.json.decode(echo, type=_UserRequest).user)


def _official(method: str, echo: bytes, made: Callable[[], View]) -> Subscribe | Unsubscribe:
    try:
        view = made()
    except (msgspec.DecodeError, ValueError) as error:
        raise ProtocolError(_INVALID, echo, str(error), "invalid-subscription") from None
    return Subscribe(view, echo) if method == "subscribe" else Unsubscribe(echo, None, view)


_TYPES: dict[str, Callable[[str, bytes], Subscribe | Unsubscribe]] = {
    "orders": _orders,
    "fills": _events,
    "bookDiffs": _events,
    "orderUpdates": _order_updates,
    "userFills": _user_fills,
    "trades": _trades,
}


def _strictly_text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError(_NO_TEXT)
    return value


def _list_of(kind: type, name: str) -> Callable[[object, object], tuple[Any, ...]]:
    """Takes lists of at most WORDS values of a kind, and of no other: JSON's true is an int to Python."""

    def strictly(value: object, _: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or not all(type(word) is kind for word in value):
            msg = f"must be a list of {name}"
            raise TypeError(msg)
        if len(value) > WORDS:
            msg = f"has {len(value)} words: at most {WORDS} are allowed"
            raise ValueError(msg)
        return tuple(value)

    return strictly


def _strictly_decimal(value: object, _: object) -> DecimalText:
    if type(value) is float:
        msg = f"is {value!r}, a JSON number with a point, which is not exact: write it as a string, as in '0.5'"
        raise TypeError(msg)
    if type(value) is not int and not isinstance(value, str):
        raise TypeError(_NO_DECIMAL)
    return DecimalText(str(value))


def _strictly_objects(value: object, _: object) -> tuple[Words, ...]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise TypeError(_NO_OBJECTS)
    if not 0 < len(value) <= FILTERS:
        msg = f"has {len(value)} objects: 1 to {FILTERS} are allowed"
        raise ValueError(msg)
    return _CONVERTER.structure(value, tuple[Words, ...])


_NO_TEXT = "must be a string"
_NO_DECIMAL = "must be a decimal in a string, as in '0.5'"
_NO_OBJECTS = "must be a list of objects"

_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
_CONVERTER.register_structure_hook(str, _strictly_text)
_CONVERTER.register_structure_hook(tuple[str, ...] | None, _list_of(str, "strings"))
_CONVERTER.register_structure_hook(tuple[int, ...] | None, _list_of(int, "integers"))
_CONVERTER.register_structure_hook(DecimalText | None, _strictly_decimal)
_CONVERTER.register_structure_hook(tuple[Words, ...] | None, _strictly_objects)
for _request in (_OrdersRequest, _EventsRequest):
    _CONVERTER.register_structure_hook(
        _request,
        cattrs.gen.make_dict_structure_fn(
            _request, _CONVERTER, _cattrs_forbid_extra_keys=True, start=cattrs.gen.override(rename="from")
        ),
    )
_FILTER_KEYS = [field.name for field in attrs.fields(Words)]
_KEYS: dict[type, list[str]] = {
    Words: _FILTER_KEYS,
    _OrdersRequest: ["type", *_FILTER_KEYS, "filters", "id", "from"],
    _EventsRequest: ["type", "coins", "users", "id", "from"],
}


def _readable(fault: str) -> str:
    """From `what @ .path`, as cattrs says it, to `path what`."""
    what, _, path = fault.rpartition(" @ ")
    path = path.removeprefix(".").replace("start", "from")
    return f"{path}: {what}" if path.endswith("]") else f"{path} {what}".strip()


def _say(error: BaseException, _: type | None) -> str:
    """One fault in a subscription, in words that name the remedy."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = _KEYS[error.cl]
        return ", ".join(
            few([f"unknown key {key[:_ID_CHARACTERS]!r}{_instead(key, known)}" for key in sorted(error.extra_fields)])
        )
    return str(error)


def _instead(key: str, known: Sequence[str]) -> str:
    like = None if key in _KEYS[_OrdersRequest] else near(key, known)  # `id` within a filter is no slip for `oids`
    return f", did you mean {like!r}?" if like else f"; the keys are {', '.join(known)}"
