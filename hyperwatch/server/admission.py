"""Admission: who may come in, and how many. It outlives the servers that ask it, and counts what it refuses."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus

from hyperwatch.feed.budget import Budget
from hyperwatch.feed.filters.word_lists import WordBudget
from hyperwatch.feed.turnstile import Turnstile
from hyperwatch.server.client_log import ClientLog
from hyperwatch.server.http import Request
from hyperwatch.server.limits import Limits, Slots, sockets_end
from hyperwatch.server.proxies import Proxies
from hyperwatch.server.refusals import Reason, RefusedError
from hyperwatch.server.tokens import Tokens

__all__ = ["HANDSHAKES", "HANDSHAKES_PER_ADDRESS", "UNAUTHORIZED", "Admission"]

HANDSHAKES = 512  # at once: connections that have not shown yet what they are, and plain HTTP; each for seconds only
HANDSHAKES_PER_ADDRESS = 128
UNAUTHORIZED = 4401  # codes from 4000 on are private; the last three digits say it as HTTP does

_BEARER = "bearer "
_PORTS = {"http": ":80", "ws": ":80", "https": ":443", "wss": ":443"}
_NO_TOKEN = "a token is needed: send it as Authorization: Bearer"  # noqa: S105  what is said where there is none
_WRONG_TOKEN = "this token is not known here"  # noqa: S105  as above


class Admission:
    """Refuses by raising RefusedError; whoever answers it counts it in `refusals`, and says it in `client_log`.

    Args:
        limits: what clients may take.
        tokens: which of them open the door; none: it is open.
        origins: of pages that may connect from a browser beside those of our own host, as `scheme://host[:port]`.
        proxies: whose word on a client's address and on the host that it asked for is taken.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        tokens: Tokens | None = None,
        origins: frozenset[str] = frozenset(),
        proxies: Proxies | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.refusals: Counter[Reason] = Counter()
        self.client_log = ClientLog()
        self._tokens = tokens or Tokens()
        self._origins = frozenset(map(_without_port, origins))
        self.proxies = proxies or Proxies()
        self.words = WordBudget(self.limits.words, self.limits.client_words)
        self.budget = Budget(self.limits.client_share)
        self.turnstile = Turnstile()
        total, each = self.limits.connections, self.limits.connections_per_address
        self.connections = Slots(
            total,
            each,
            (Reason.CONNECTIONS, f"the service has {total} connections, as many as it takes: try again later"),
            (Reason.ADDRESS, f"your address has {each} connections, as many as one may have: share them"),
        )
        busy = "too many handshakes and requests are under way: try again in some seconds"
        self.handshakes = Slots(
            HANDSHAKES,
            HANDSHAKES_PER_ADDRESS,
            (Reason.HANDSHAKES, busy),
            (Reason.HANDSHAKES, f"{busy}; they are yours"),
        )

    def check_files(self, descriptor: int) -> None:
        """Refuses what was accepted with one of the last descriptors of the process: the node's files need those."""
        end = sockets_end()
        if end is not None and descriptor >= end:
            text = "the service has no open files left for another connection: try again later"
            raise RefusedError(Reason.FILES, HTTPStatus.SERVICE_UNAVAILABLE, text)

    def check_origin(self, request: Request, peer: str) -> None:
        """Refuses what a browser sends for a page of another host. Programs send no Origin.

        Args:
            request: the request.
            peer: the address that it came from.
        """
        origin, host = request.header(b"origin").lower(), self.proxies.asked_host(peer, request).lower()
        # Whether TLS is spoken before us is not known here: a host without a port is taken to be asked as the page was.
        scheme, _, place = origin.partition("://")
        port = _PORTS.get(scheme, "")
        own = bool(host) and place.removesuffix(port) == host.removesuffix(port)
        if b"origin" in request.headers and not own and _without_port(origin) not in self._origins:
            text = "pages of this origin may not connect: the service's --allow-origin lists those that may"
            raise RefusedError(Reason.ORIGIN, HTTPStatus.FORBIDDEN, text)

    def token_of(self, request: Request) -> str | None:
        """The token that a request may come in with, "" where none is needed; None where it brought none.

        Refuses one with a wrong token.
        """
        if not self._tokens:
            return ""
        sent = request.header(b"authorization")
        if not sent:
            return None
        token = sent[len(_BEARER) :].strip()
        if sent[: len(_BEARER)].lower() != _BEARER or not self._tokens.allow(token):
            raise _unauthorized(_WRONG_TOKEN)
        return token

    def client(self, address: str, token: str) -> str:
        """For whom the work counts that is done for a connection: its address, and where there are tokens the token too."""
        number = self._tokens.number(token)
        return f"{address} with token {number}" if number else address

    def check_token(self, request: Request) -> None:
        """Refuses a request without a right token."""
        if self.token_of(request) is None:
            raise _unauthorized(_NO_TOKEN)

    def allows(self, token: str) -> bool:
        """Whether a token lets in."""
        return not self._tokens or self._tokens.allow(token)


def _without_port(origin: str) -> str:
    """An origin without the port that its scheme means: browsers do not send it."""
    return origin.removesuffix(_PORTS.get(origin.partition("://")[0], ""))


def _unauthorized(text: str) -> RefusedError:
    return RefusedError(Reason.TOKEN, HTTPStatus.UNAUTHORIZED, text, [("WWW-Authenticate", "Bearer")])
