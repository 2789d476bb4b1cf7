"""What no client should send, made from a seed: requests that are nearly right, JSON, frames and heads of HTTP."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence

from guarded import BINARY, CLOSE, KEY, PING, PONG, TEXT, frame
from support import USER

CURSORS = [
    b'[1,"node_order_statuses_streaming",[["20260505/9",0,0,""]],7,"2026-05-05T17:39:13.024084407",0]',
    b'[1,"node_order_statuses_by_block",[["20260505/8",120,1,"abc"],["20260505/9",80,0,"a8300679"]],6,"",3]',
    b'[1,"node_fills_streaming",[],null,"1778002753024",0]',
    b'[1,"node_fills",[["20260505/9",10,0,""]],null,"1778002753024",1]',
    b'[1,"node_raw_book_diffs_streaming",[["20260505/9",0,0,""]],8,"",0]',
]
WISHES: list[dict[str, object]] = [
    {"type": "orders"},
    {"type": "orders", "id": "mine", "coins": ["BTC", "xyz:*"], "notStatuses": ["rejected"]},
    {"type": "orders", "users": [USER], "sides": ["B"], "compress": "zstd"},
    {"type": "orders", "statuses": ["live", "filled"], "from": "earliest"},
    {"type": "orders", "filters": [{"users": [USER]}, {"coins": ["BTC"], "minPx": "81000", "maxPx": "81500.5"}]},
    {"type": "orders", "oids": [1, 2], "cloids": ["0x" + "0" * 32], "tifs": ["Alo"], "orderTypes": ["Limit"]},
    {"type": "orders", "from": {"time": 1778002753024}, "minNotional": "100000", "builders": [USER]},
    {"type": "orders", "from": {"block": 8}},
    {"type": "fills", "users": [USER], "from": "CURSOR"},
    {"type": "bookDiffs", "coins": ["BTC"], "id": "book", "from": "CURSOR"},
    {"type": "orders", "from": "CURSOR"},
    {"type": "orderUpdates", "user": USER},
    {"type": "userFills", "user": USER, "aggregateByTime": True},
    {"type": "trades", "coin": "BTC"},
    {"type": "l2Book", "coin": "BTC", "nSigFigs": 5},
    {"type": "candle", "coin": "BTC", "interval": "1m"},
]
ODD: list[bytes] = [
    b"1e400", b"-1e400", b"1e-400", b"-0", b"9" * 25, b"9" * 4300, b"9" * 4301, b"1.5", b"null", b"true", b'""', b"[]",
    b"{}", rb'"\ud800"', rb'"\u0000"', b'"\xff"', b'"\xed\xa0\x80"', b'"*"', b'"xyz:*"', b'"{}"', b'"%s{0}"', b'"' + b"x" * 3000 + b'"',
    b'{"time":1e400}', b'{"block":-1}', b'{"time":99999999999999}', b'"earliest"', b'[["BTC"]]', b"[1,2,3]", b"[null]",
]  # fmt: skip
HEADS = [b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"CONNECT", b"PRI", b"get", b"\x16\x03\x01"]
TARGETS = [b"/ws", b"//ws/", b"/", b"*", b"/info", b"/status", b"/gaps", b"/healthz", b"/readyz", b"http://h/ws", b"ws://[::1", b"/?a=b", b"h:443",
           b"/%00", b"http://", b"/" * 50, b"/ws#x"]  # fmt: skip
FIELDS = [
    b"Host: here:8000", b"Host: [::1]:443", b"Host: \xff", b"Host:", b"Origin: http://here:8000", b"Origin: https://[", b"Origin: null",
    b"Upgrade: websocket", b"Upgrade: websocket, h2c", b"Upgrade:", b"Connection: keep-alive, Upgrade", b"Connection: close",
    b"Sec-WebSocket-Key: " + KEY, b"Sec-WebSocket-Key: AAAA", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8",
    b"Sec-WebSocket-Extensions: permessage-deflate; x=\xff", b"Sec-WebSocket-Protocol: \xff", b"Content-Length: 5", b"Content-Length: -1",
    b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Expect: 100-continue",
    b"Authorization: Bearer x", b"Authorization: Basic \xff", b"X-Forwarded-For: 1.2.3.4, x, ::1, [::1]:5, 1.2.3.4:5", b"X-Forwarded-For: ,,",
    b"X-Forwarded-Host: here:8000, \xff", b"Cookie: " + b"x" * 3000, b" folded", b"no colon", b": nothing", b"A" * 20_000,
]  # fmt: skip
BODIES = [
    b"",
    b'{"type":"meta"}',
    b'{"type":["meta"]}',
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"zz\r\n",
    b'{"type":"meta","x":1e400}',
]


class Nonsense:
    """The same from the same seed."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def message(self) -> bytes:
        """The text of a message; seldom one that is no UTF-8, for it ends the connection."""
        text = self._one_of([self.request, self.request, self.request, self.near, self.near, self.json, self.deep])()
        return text if self._dice.random() < 0.001 else text.decode(errors="replace").encode()

    def request(self) -> bytes:
        """One that is right as JSON, but for a value here and there."""
        dice = self._dice
        start_point = dict(dice.choice(WISHES))
        for _ in range(dice.choice((0, 0, 1, 1, 2))):
            key = dice.choice(
                [*start_point, "coins", "users", "id", "from", "coin", "user", "filters", "minPx", "oids", "x", "type"]
            )
            start_point[key] = f"ODD{dice.randrange(len(ODD))}"
        if dice.random() < 0.3:
            start_point["id"] = str(dice.randrange(50))
        method = dice.choice(("subscribe", "subscribe", "subscribe", "unsubscribe", "ping", "auth", "post", "x"))
        text = json.dumps(
            {"method": method, "subscription": start_point, "token": "t"} if method != "ping" else {"method": "ping"}
        ).encode()
        text = text.replace(b'"CURSOR"', b'"%s"' % self.cursor()) if b"CURSOR" in text else text
        for number in range(len(ODD)) if b"ODD" in text else ():
            text = text.replace(b'"ODD%d"' % number, ODD[number])
        return text

    def cursor(self) -> bytes:
        """A cursor, or what nearly is one."""
        raw = self._dice.choice(CURSORS)
        if self._dice.random() < 0.7:
            raw = self._dice.choice((self._mutated, self._odd_value))(raw)
        text = base64.urlsafe_b64encode(raw).rstrip(b"=")
        return self._mutated(text, b"AZ-_=") if self._dice.random() < 0.1 else text

    def near(self) -> bytes:
        """A request with some bytes changed, cut or put in."""
        return self._mutated(self.request())

    def json(self) -> bytes:
        """JSON of any shape."""
        return json.dumps(self._value(4)).encode()

    def deep(self) -> bytes:
        """JSON as deep as what a parser may bear, at a place where one looks."""
        depth = (
            self._dice.choice((60, 64, 65, 900, 5000)) if self._dice.random() < 0.3 else self._dice.randrange(940, 1010)
        )
        return deep(depth, self._dice.choice(PLACES), brackets=self._dice.random() < 0.5)

    def frames(self, text: bytes) -> bytes:
        """A message in one frame or in several, with others between them."""
        dice = self._dice
        if dice.random() < 0.8:
            return frame(TEXT, text)
        cuts = sorted(dice.randrange(len(text) + 1) for _ in range(dice.randrange(1, 4)))
        parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        between = dice.choice((b"", b"", frame(PING, b"x"), frame(PONG, b"y" * 125)))
        last = len(parts) - 1
        return between.join(frame(0 if at else TEXT, part, final=at == last) for at, part in enumerate(parts))

    def last_frames(self) -> bytes:
        """What a connection does not outlive, or hardly."""
        dice = self._dice
        return self._one_of(
            [
                lambda: frame(BINARY, dice.randbytes(20)),
                lambda: frame(TEXT, dice.randbytes(20)),
                lambda: frame(TEXT, b"{}")[:1] + b"\x02{}",  # unmasked
                lambda: frame(dice.randrange(16), dice.randbytes(dice.randrange(130)), final=dice.random() < 0.5),
                lambda: frame(TEXT, length=dice.choice((2**21, 2**31, 2**63, 2**64 - 1))),
                lambda: frame(PING, b"z" * 126),
                lambda: frame(
                    CLOSE,
                    dice.choice((b"", b"\x03", b"\x03\xe8", b"\x03\xe8\xff", b"\x00\x00", b"\xff\xff" + b"x" * 123)),
                ),
                lambda: frame(TEXT, b"{", final=False) + frame(TEXT, b"}"),
                lambda: frame(0, b"}"),
                lambda: frame(PING, b"f") * 3000,
                lambda: dice.randbytes(dice.randrange(1, 60)),
            ]
        )()

    def head(self) -> bytes:
        """The head of a request, or what nearly is one."""
        dice = self._dice
        fields = dice.sample(FIELDS, dice.choice((0, 0, 1, 1, 2, 5)))
        fields += [b"Host: here:8000"] * (dice.random() < 0.5)
        if dice.random() < 0.4:
            fields += [
                b"Upgrade: websocket",
                b"Host: here:8000",
                b"Connection: Upgrade",
                b"Sec-WebSocket-Version: 13",
                b"Sec-WebSocket-Key: " + KEY,
            ]
        line = b"%b %b HTTP/%b" % (
            dice.choice(HEADS),
            dice.choice(TARGETS),
            dice.choice((b"1.1", b"1.1", b"1.0", b"2.0", b"x")),
        )
        head = b"\r\n".join([line, *fields, b"", b""]) + dice.choice((b"", dice.choice(BODIES)))
        return self._mutated(head, b"\r\n: \x00\xff/") if dice.random() < 0.3 else head

    def _one_of(self, makers: Sequence[Callable[[], bytes]]) -> Callable[[], bytes]:
        return self._dice.choice(makers)

    def _mutated(self, text: bytes, letters: bytes = b'"{}[],:\\0eE-\x00\xff') -> bytes:
        dice, data = self._dice, bytearray(text)
        for _ in range(dice.randrange(1, 5)):
            at = dice.randrange(len(data) + 1)
            data[at : at + dice.randrange(4)] = bytes(dice.choices(letters, k=dice.randrange(3)))
        return bytes(data)

    def _odd_value(self, raw: bytes) -> bytes:
        """A list with one of its values exchanged."""
        values: list[object] = json.loads(raw)
        values[self._dice.randrange(len(values))] = "ODD"
        return json.dumps(values).encode().replace(b'"ODD"', self._dice.choice(ODD))

    def _value(self, depth: int) -> object:
        dice = self._dice
        if not depth or dice.random() < 0.4:
            return dice.choice(
                (None, True, 0, -1, 2**70, 0.5, "", "BTC", USER, "\ud800", "\x00", "subscribe", "orders")
            )
        inner = [self._value(depth - 1) for _ in range(dice.randrange(4))]
        if dice.random() < 0.4:
            return inner
        return {dice.choice(("method", "subscription", "type", "id", "from", "coins", "", "x")): each for each in inner}


PLACES = [
    b"%b",
    b'{"method":%b}',
    b'{"method":"auth","token":%b}',
    b'{"method":"post","id":1,"request":%b}',
    b'{"method":"subscribe","subscription":%b}',
    b'{"method":"subscribe","subscription":{"type":"trades","coin":"BTC","x":%b}}',
    b'{"method":"subscribe","subscription":{"type":"orders","from":%b}}',
    b'{"method":"unsubscribe","subscription":{"type":"orders","filters":[{"x":%b}]}}',
]


def deep(depth: int, place: bytes, *, brackets: bool) -> bytes:
    """JSON nested so deep at a place of a request."""
    opening, closing = (b"[", b"]") if brackets else (b'{"a":', b"}")
    return place % (opening * depth + b"1" + closing * depth)
