"""The frontend: who may come in, and what plain HTTP finds there. It outlives a change of layout."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Self

import attrs
from loguru import logger

from hyperwatch.config import Address, Config
from hyperwatch.server.admission import HANDSHAKES, Admission
from hyperwatch.server.http import Routes
from hyperwatch.server.info_proxy import info_route
from hyperwatch.server.limits import limit_for, open_files, sockets_end

__all__ = ["Frontend", "warn_of_open_access"]


@attrs.frozen
class Frontend:
    """What stands between the listeners and the feed."""

    admission: Admission = attrs.Factory(Admission)
    routes: Routes = attrs.Factory(dict)

    @classmethod
    def of(cls, config: Config) -> Self:
        """As an operator wants them. Raises UsageError where a setting is wrong."""
        return cls(
            Admission(config.limits, config.tokens, config.origins, config.proxies),
            {"/info": info_route(config.info_url)},
        )

    def with_routes(self, routes: Routes) -> Self:
        """The same, with some more to find there."""
        return attrs.evolve(self, routes={**self.routes, **routes})


def warn_of_open_access(config: Config, addresses: Sequence[Address]) -> None:
    """Says what an operator may not have meant.

    Args:
        config: the settings.
        addresses: where the service listens.
    """
    beyond = [address for address in addresses if not ip_address(address.host.partition("%")[0]).is_loopback]
    if beyond and not config.tokens:
        logger.warning(
            "whoever reaches {} may read the feed: set --tokens-file or HYPERWATCH_TOKENS, or --listen on 127.0.0.1",
            ", ".join(map(str, beyond)),
        )
    end, taken = sockets_end(), open_files()
    needed = config.limits.connections + HANDSHAKES * (1 if config.metrics_listen is None else 2)
    if end is not None and end < taken + needed:
        logger.warning(
            "there are open files for {} connections at once, and --max-connections {} needs {}, with handshakes: "
            "raise the limit to {} (ulimit -n, LimitNOFILE), or lower --max-connections",
            max(0, end - taken), config.limits.connections, needed, limit_for(taken + needed),
        )  # fmt: skip
