"""What plain HTTP finds on the feed's port: health, readiness, the status, the newest gaps, and a page for people."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib.resources import files

import msgspec
import trio

from hyperwatch.monitor.health import HealthMonitor
from hyperwatch.monitor.status import PROTOCOL, status
from hyperwatch.server.http import Answer, Request, Route, Routes

__all__ = ["routes"]

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
_FRESH = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]


def routes(health: HealthMonitor) -> Routes:
    """By path. Health needs no token, and the page has nothing to hide: what it shows it asks for itself."""
    overview = _Overview(health)
    return {
        "/healthz": Route(_at_once(lambda: Answer(HTTPStatus.OK, b"ok\n", headers=_FRESH)), free=True),
        "/readyz": Route(_at_once(lambda: _readiness(health)), free=True),
        "/status": Route(_at_once(overview.answer)),
        "/gaps": Route(_at_once(lambda: _gaps(health))),
        "/": Route(_at_once(lambda: _PAGE), free=True),
    }


def _at_once(answer: Callable[[], Answer]) -> Callable[[Request], Awaitable[Answer]]:
    async def answered(_: Request) -> Answer:
        await trio.lowlevel.checkpoint()
        return answer()

    return answered


class _Overview:
    """The status, made at most once for every look at the vital streams, however many ask."""

    def __init__(self, health: HealthMonitor) -> None:
        self._vitals = health
        self._looks = -1
        self._body = b""

    def answer(self) -> Answer:
        if self._looks != self._vitals.looks:
            self._looks = self._vitals.looks
            self._body = msgspec.json.encode(status(self._vitals, time.time_ns() // 1_000_000))
        return Answer(HTTPStatus.OK, self._body, _JSON, _FRESH)


def _readiness(health: HealthMonitor) -> Answer:
    """200, or 503 with a line for each reason."""
    troubles = health.troubles()
    body = "".join(f"{trouble}\n" for trouble in troubles) or "ready\n"
    code = HTTPStatus.SERVICE_UNAVAILABLE if troubles else HTTPStatus.OK
    return Answer(code, body.encode(), headers=_FRESH)


def _gaps(health: HealthMonitor) -> Answer:
    """The newest gaps, newest first, in the words of `hyperwatch gaps --json`."""
    document = {"protocol": PROTOCOL, "gaps": list(health.ledger.gaps)[::-1]}
    return Answer(HTTPStatus.OK, msgspec.json.encode(document), _JSON, _FRESH)


def _page() -> Answer:
    """One file, without outside resources; nothing but its own script runs in it, and it talks to nobody but us."""
    body = files("hyperwatch.monitor").joinpath("page.html").read_bytes()
    hashes = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
            for text in re.findall(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), body, re.DOTALL)
        )
        for tag in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = [*_FRESH, ("Content-Security-Policy", policy), ("Referrer-Policy", "no-referrer")]
    return Answer(HTTPStatus.OK, body, _HTML, headers)


_PAGE = _page()
