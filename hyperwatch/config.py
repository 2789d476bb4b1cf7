"""What a service is told: one frozen value."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Self

import attrs

from hyperwatch.errors import UsageError
from hyperwatch.log.tree import GRACE_S
from hyperwatch.node.streams import Layout
from hyperwatch.server.limits import Limits
from hyperwatch.server.proxies import Proxies
from hyperwatch.server.tokens import Tokens

__all__ = [
    "DEFAULT_BEHIND_S",
    "DEFAULT_DEADLINE_S",
    "DEFAULT_GRACE_S",
    "DEFAULT_RING_BYTES",
    "DEFAULT_STALL_S",
    "Address",
    "Config",
    "default_workers",
    "origin",
]

DEFAULT_RING_BYTES = 64 * 1024 * 1024  # about two seconds of a busy day, as decoded
DEFAULT_DEADLINE_S = 30.0  # a batch takes 0.1 s; the replaced system's work had 30 s
DEFAULT_BEHIND_S = 10.0  # a hundred times what is usual; a backlog of a gigabyte is read within seconds
DEFAULT_STALL_S = 60.0  # real nodes pause up to two minutes a day, and spikes of a second are normal
DEFAULT_GRACE_S = GRACE_S

_PORTS = 65535
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@*]+|null")


@attrs.frozen
class Address:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str = "--listen") -> Self:
        """From `HOST:PORT`, `[IPV6]:PORT`. Port 0: any that is free. Errors name the option.

        Raises:
            UsageError: where it is neither.
        """
        scheme, colons, rest = text.partition("://")
        if colons:
            what = f"{option} {text!r} begins with the scheme {scheme}://"
            raise UsageError(what, f"leave it out, as in {rest.partition('/')[0] or '127.0.0.1:8000'}")
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (colon and host and port.isascii() and port.isdigit()):
            what = f"{option} {text!r} is not HOST:PORT"
            raise UsageError(what, "write it as 127.0.0.1:8000 or [::1]:8000")
        if not _may_be_a_host(host):
            what = f"{option} {text!r} has a host that can be none"
            raise UsageError(what, "write an address or a name, as in 127.0.0.1:8000")
        if len(port) > len(str(_PORTS)) or int(port) > _PORTS:
            what = f"{option} {text!r} has a port that is out of range"
            raise UsageError(what, f"choose one from 1 to {_PORTS}, or 0 for any that is free")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _may_be_a_host(host: str) -> bool:
    """Whether it can be looked up: what cannot would be an error of the resolver's, and no OSError."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return host.isprintable() and " " not in host


def origin(text: str) -> str:
    """An origin as browsers send it: `scheme://host[:port]`, or `null`, in lower case.

    Raises:
        UsageError: where it is none.
    """
    if not _ORIGIN.fullmatch(text):
        what = f"--allow-origin {text!r} is not SCHEME://HOST[:PORT]"
        raise UsageError(what, "write it as https://example.com, with nothing behind it")
    return text.lower()


def default_workers() -> int:
    """A quarter of the cores, 1 to 4: the node comes first."""
    return max(1, min(4, (os.cpu_count() or 1) // 4))


@attrs.frozen(kw_only=True)
class Config:
    """The settings of `hyperwatch run`."""

    data_dir: Path
    listen: Address
    state_dir: Path | None = None
    """Where gaps, unreadable lines and the head's place are kept. None: nowhere, as in a demonstration."""
    layout: Layout | None = None
    """None: the one with the newest data."""
    workers: int = attrs.Factory(default_workers)
    ring_bytes: int = DEFAULT_RING_BYTES
    """What the warm head of the order statuses may weigh in memory; that of each other stream a quarter of it."""
    deadline_s: float = DEFAULT_DEADLINE_S
    """How long the workers may take over a batch."""
    stall_s: float = DEFAULT_STALL_S
    """How long a node may write nothing before it is said to be stalled."""
    behind_s: float = DEFAULT_BEHIND_S
    """How far hyperwatch may be behind the node before it is not ready."""
    metrics_listen: Address | None = None
    """Where Prometheus asks. None: nowhere."""
    grace_s: float = DEFAULT_GRACE_S
    """How long after its last change an old hour file may still grow."""
    limits: Limits = attrs.Factory(Limits)
    """What clients may take."""
    tokens: Tokens = attrs.Factory(Tokens)
    """Who may connect."""
    origins: frozenset[str] = frozenset()
    """Which pages may connect, beside those of our own host, as `origin` makes them."""
    proxies: Proxies = attrs.Factory(Proxies)
    """Whose word on the addresses of clients is taken."""
    info_url: str | None = None
    """Of the node's info server. None: `/info` is not served."""
