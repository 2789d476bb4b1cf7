"""Where a feed is. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from hyperwatch.errors import UsageError

__all__ = ["normalize_url"]


def normalize_url(text: str) -> str:
    """The URL that is meant: `HOST:PORT` is a feed's at that port, and a URL without a path has the feed's.

    Raises:
        UsageError: for what is no WebSocket URL.
    """
    url = text if "://" in text else f"ws://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port  # raises ValueError for what is no port
        (parts.hostname or "").encode("idna")  # UnicodeError, a ValueError, for what can be no host's name
    except ValueError as error:
        raise _no_address(text) from error
    plain = url.isascii() and url.isprintable() and url.split() == [url]
    if not plain or not parts.hostname or parts.scheme not in ("ws", "wss") or (port is None and url != text):
        raise _no_address(text)
    return url if parts.path or parts.query else f"{url}/ws"


def _no_address(text: str) -> UsageError:
    return UsageError(f"{text!r} is no address of a feed", "write it as ws://127.0.0.1:8000/ws or 127.0.0.1:8000")
