"""Proxies that an operator trusts: what they say of a client is believed, of nobody else's requests it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

import attrs

from hyperwatch.errors import UsageError
from hyperwatch.server.http import Request

__all__ = ["Proxies"]


@attrs.frozen
class Proxies:
    """Where trusted proxies are. None: every request is its sender's own, whatever its headers say."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, words: Iterable[str]) -> Self:
        """From addresses, and networks as `172.16.0.0/12`.

        Raises:
            UsageError: where a word is neither.
        """
        return cls(tuple(map(_network, words)))

    def trust(self, host: str) -> bool:
        """Whether an address is a trusted proxy's."""
        if not self.networks:
            return False
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)

    def client(self, host: str, request: Request) -> str:
        """The address that a request from `host` was sent by.

        Each proxy writes behind the others whom it was asked by: read from the end, the first address that is no
        trusted proxy's is the client's. What stands before that the client may have made up.
        """
        for word in reversed(request.header(b"x-forwarded-for").split(",")):
            address = _address(word.strip()) if self.trust(host) else None
            if address is None:
                return host
            host = address
        return host

    def asked_host(self, host: str, request: Request) -> str:
        """The host that a request from `host` was sent to, as a client wrote it, with its port where that was named."""
        forwarded = request.header(b"x-forwarded-host").partition(",")[0].strip()
        return forwarded if forwarded and self.trust(host) else request.header(b"host")


def _network(word: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(word, strict=False)
    except ValueError:
        what = f"--trusted-proxy {word!r} is no address and no network"
        raise UsageError(what, "write it as 10.0.0.7, or as 172.16.0.0/12 for a network of containers") from None


def _address(word: str) -> str | None:
    """The address in a word of X-Forwarded-For, which may bring its port; None where there is none."""
    for text in (word, word.rpartition(":")[0]):
        try:
            return str(ip_address(text.removeprefix("[").removesuffix("]")))
        except ValueError:
            continue
    return None
