"""What clients ask for: their messages into requests. Pure.

The envelope and official types tolerate unknown keys; in our own types an unknown key is an error, for a typo must not
open the firehose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import attrs
import cattrs
import msgspec

from hyperwatch.errors import CursorError
from hyperwatch.feed.channels.events import BookDiffs, Events, Fills, Orders
from hyperwatch.feed.filters.coins_users import CoinUserFilter
from hyperwatch.feed.messages import ENCODINGS, Encoding
from hyperwatch.feed.requests.answers import (
    EARLIEST,
    INVALID,
    PARSING,
    Auth,
    Ping,
    ProtocolError,
    Subscribe,
    Unsubscribe,
    Where,
    bad_cursor,
    no_posts,
)
from hyperwatch.feed.requests.filter_keys import (
    FILTERS,
    WORDS,
    DecimalText,
    FilterKeys,
    few,
    filter_of,
    near,
    suggestions,
)
from hyperwatch.feed.requests.nesting import DEPTH, too_deep
from hyperwatch.feed.requests.official import OFFICIAL, official
from hyperwatch.log.positions import Cursor
from hyperwatch.log.seek.bisect import AtBlock, AtTime

__all__ = ["parse"]

R = TypeVar("R")

_ID_CHARACTERS = 64


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
    whole = text.encode(errors="surrogatepass")
    if too_deep(whole):
        raise ProtocolError(PARSING, b"", f"lists and objects are nested more than {DEPTH} deep", "bad-json")
    try:
        request = msgspec.json.decode(whole, type=_Request)
    except (msgspec.DecodeError, UnicodeError) as error:
        document = _document(whole)
        raise ProtocolError(PARSING, document, str(error), "bad-request" if document else "bad-json") from None
    if request.method == "ping":
        return Ping()
    if request.method == "auth":
        return _auth(request.token)
    if request.method == "post" and (refused := no_posts(whole)):
        raise refused
    if request.method not in ("subscribe", "unsubscribe"):
        known = 'the methods are "subscribe", "unsubscribe", "ping" and "auth"'
        raise ProtocolError(PARSING, _document(whole), f"unknown method {request.method!r}: {known}", "unknown-method")
    if request.subscription is msgspec.UNSET:
        raise ProtocolError(PARSING, _document(whole), "a subscription is missing", "bad-request")
    return _subscription(request.method, bytes(request.subscription))


def _document(whole: bytes) -> bytes:
    """What came where it is one JSON object, else nothing: braces belong around valid JSON only."""
    try:
        value = msgspec.json.decode(whole)
    except (msgspec.DecodeError, UnicodeError):
        return b""
    return whole if isinstance(value, dict) else b""


def _auth(token: msgspec.Raw | msgspec.UnsetType) -> Auth:
    """Errors do not repeat the message: there may be a token in it."""
    try:
        return Auth(msgspec.json.decode(b"null" if token is msgspec.UNSET else token, type=str))
    except msgspec.DecodeError:
        raise ProtocolError(PARSING, b"", "auth needs a token, a string", "bad-request") from None


def _subscription(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    try:
        kind = msgspec.json.decode(echo, type=_Type).type
    except msgspec.DecodeError as error:
        document = echo if echo.startswith(b"{") else b""
        raise ProtocolError(INVALID, document, f"no type: {error}", "invalid-subscription") from None
    try:
        msgspec.json.decode(echo)
    except msgspec.DecodeError as error:  # a number of thousands of digits: valid JSON that nothing can hold
        raise ProtocolError(INVALID, b"", str(error), "invalid-subscription") from None
    read = _TYPES.get(kind)
    if read is None:
        reason = f"{kind!r} is not served here; {', '.join(_TYPES)} are"
        raise ProtocolError(INVALID, echo, reason, "unknown-type")
    return read(method, echo)


@attrs.frozen(kw_only=True)
class _OrdersRequest(FilterKeys):
    """The subscription `orders` as clients write it."""

    type: Literal["orders"]
    filters: tuple[FilterKeys, ...] | None = None
    id: str | None = None
    start: Any = None  # `from` on the wire, which is a word of Python's
    compress: Encoding | None = None


@attrs.frozen
class _EventsRequest:
    """The subscriptions `fills` and `bookDiffs` as clients write them."""

    type: Literal["fills", "bookDiffs"]
    coins: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    id: str | None = None
    start: Any = None  # as above
    compress: Encoding | None = None


def _orders(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    request = _structured(echo, _OrdersRequest)
    try:
        channel = Orders(filter_of(request, request.filters), request.compress)
    except ValueError as error:
        raise ProtocolError(INVALID, echo, str(error), "invalid-subscription", id=request.id) from None
    start_point = _ours(method, echo, request, channel)
    if isinstance(start_point, Unsubscribe):
        return start_point
    return attrs.evolve(start_point, warnings=suggestions(request.filters or [request]))


def _events(method: str, echo: bytes) -> Subscribe | Unsubscribe:
    request = _structured(echo, _EventsRequest)
    try:
        wanted = CoinUserFilter.of(request.coins, request.users)
    except ValueError as error:
        raise ProtocolError(INVALID, echo, str(error), "invalid-subscription", id=request.id) from None
    kind = Fills if request.type == "fills" else BookDiffs
    return _ours(method, echo, request, kind(wanted, request.compress))


def _structured(echo: bytes, request: type[R]) -> R:
    try:
        return _CONVERTER.structure(msgspec.json.decode(echo), request)
    except cattrs.ClassValidationError as error:
        reason = "; ".join(map(_readable, cattrs.transform_error(error, "", _say)))
        raise ProtocolError(INVALID, echo, reason, "invalid-subscription") from None
    except msgspec.DecodeError as error:  # a number that no computer holds: until now nobody looked inside
        raise ProtocolError(INVALID, echo, str(error), "invalid-subscription") from None


def _ours(
    method: str, echo: bytes, request: _OrdersRequest | _EventsRequest, channel: Events
) -> Subscribe | Unsubscribe:
    """What all types of our own have in common."""
    if request.id is not None and not 0 < len(request.id) <= _ID_CHARACTERS:
        reason = f"id has {len(request.id)} characters: 1 to {_ID_CHARACTERS} are allowed"
        raise ProtocolError(INVALID, echo, reason, "invalid-subscription")
    if method == "unsubscribe":
        return Unsubscribe(echo, request.id, channel if request.id is None else None)
    try:
        return Subscribe(channel, echo, request.id, _start(request.start))
    except CursorError as error:
        raise bad_cursor(error, Subscribe(channel, echo, request.id)) from None
    except ValueError as error:
        raise ProtocolError(INVALID, echo, str(error), "invalid-subscription", id=request.id) from None


def _start(start_point: object) -> Where:
    """Raises CursorError for a cursor that is none, ValueError for anything else that is no place to begin."""
    if start_point is None:
        return None
    if isinstance(start_point, str):
        return EARLIEST if start_point == EARLIEST else Cursor.decode(start_point)
    if isinstance(start_point, dict) and len(start_point) == 1:
        ((name, value),) = start_point.items()
        kind, bound = _WISHES.get(name, (None, 0))
        if kind is not None and type(value) is int and 0 <= value < bound:
            return kind(value)
    raise ValueError(_NO_START)


_NO_START = 'from must be a cursor, "earliest", an object with "time" in ms, or one with "block"'
_WISHES: dict[str, tuple[type[AtTime | AtBlock], int]] = {
    "time": (AtTime, 10**14),  # the year 5138
    "block": (AtBlock, 2**53),  # what every client's numbers hold
}


_TYPES: dict[str, Callable[[str, bytes], Subscribe | Unsubscribe]] = {
    "orders": _orders,
    "fills": _events,
    "bookDiffs": _events,
    **{kind: partial(official, kind) for kind in OFFICIAL},
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


def _strictly_objects(value: object, _: object) -> tuple[FilterKeys, ...]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise TypeError(_NO_OBJECTS)
    if not 0 < len(value) <= FILTERS:
        msg = f"has {len(value)} objects: 1 to {FILTERS} are allowed"
        raise ValueError(msg)
    return _CONVERTER.structure(value, tuple[FilterKeys, ...])


def _encoding(value: object, _: object) -> Encoding | None:
    for known in (None, *ENCODINGS):
        if value == known:
            return known
    raise ValueError(_NO_ENCODING)


_NO_ENCODING = f"must be {' or '.join(repr(encoding) for encoding in ENCODINGS)}"
_NO_TEXT = "must be a string"
_NO_DECIMAL = "must be a decimal in a string, as in '0.5'"
_NO_OBJECTS = "must be a list of objects"

_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
_CONVERTER.register_structure_hook(str, _strictly_text)
_CONVERTER.register_structure_hook(tuple[str, ...] | None, _list_of(str, "strings"))
_CONVERTER.register_structure_hook(tuple[int, ...] | None, _list_of(int, "integers"))
_CONVERTER.register_structure_hook(DecimalText | None, _strictly_decimal)
_CONVERTER.register_structure_hook(Encoding | None, _encoding)
_CONVERTER.register_structure_hook(tuple[FilterKeys, ...] | None, _strictly_objects)
for _request in (_OrdersRequest, _EventsRequest):
    _CONVERTER.register_structure_hook(
        _request,
        cattrs.gen.make_dict_structure_fn(
            _request, _CONVERTER, _cattrs_forbid_extra_keys=True, start=cattrs.gen.override(rename="from")
        ),
    )
_FILTER_KEYS = [field.name for field in attrs.fields(FilterKeys)]
_KEYS: dict[type, list[str]] = {
    FilterKeys: _FILTER_KEYS,
    _OrdersRequest: ["type", *_FILTER_KEYS, "filters", "id", "from", "compress"],
    _EventsRequest: ["type", "coins", "users", "id", "from", "compress"],
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
            few(sorted(error.extra_fields), lambda key: f"unknown key {key[:_ID_CHARACTERS]!r}{_instead(key, known)}")
        )
    return str(error)


def _instead(key: str, known: Sequence[str]) -> str:
    like = None if key in _KEYS[_OrdersRequest] else near(key, known)  # `id` within a filter is no slip for `oids`
    return f", did you mean {like!r}?" if like else f"; the keys are {', '.join(known)}"
