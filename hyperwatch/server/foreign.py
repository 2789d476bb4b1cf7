"""Other protocols on the feed's port, told by their first bytes, and what to do instead. Pure."""

from __future__ import annotations

__all__ = ["foreign", "undecided"]

_PROXY = "a PROXY protocol header came, which is not read here: turn it off in the proxy before this port"
_SIGNS = {
    b"\x16": "a TLS handshake came, and this port speaks plain HTTP: use http:// and ws://, or put a TLS proxy before it",
    b"PRI * HTTP/2": "HTTP/2 came, and this port speaks HTTP/1.1: let the proxy before it, or the client, speak that",
    b"PROXY ": _PROXY,
    b"\r\n\r\n\x00\r\nQUIT\n": _PROXY,
}


def foreign(first: bytes) -> str | None:
    """What a connection that begins like this is told; None where it may be HTTP."""
    return next((words for sign, words in _SIGNS.items() if first.startswith(sign)), None)


def undecided(first: bytes) -> bool:
    """Whether a connection that begins like this may become either: more must come."""
    return any(sign.startswith(first) for sign in _SIGNS)
