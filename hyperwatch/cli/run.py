"""`hyperwatch run`: the sidecar."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import click
import trio
from loguru import logger

from hyperwatch.cli.environment import misspelled
from hyperwatch.cli.options import DATA_DIR, LAYOUT, NumberRange, default_state_dir, log_options, option
from hyperwatch.cli.paths import UserPath
from hyperwatch.config import (
    DEFAULT_BEHIND_S,
    DEFAULT_DEADLINE_S,
    DEFAULT_GRACE_S,
    DEFAULT_RING_BYTES,
    DEFAULT_STALL_S,
    Address,
    Config,
    default_workers,
    origin,
)
from hyperwatch.feed.budget import DEFAULT_SHARE
from hyperwatch.node.streams import Layout
from hyperwatch.runtime import memory
from hyperwatch.runtime.logs import to_stderr
from hyperwatch.server.limits import (
    DEFAULT_CATCH_UP_MB_S,
    DEFAULT_CLIENT_CATCH_UP_MB_S,
    DEFAULT_CLIENT_WORDS,
    DEFAULT_CONNECTIONS,
    DEFAULT_CONNECTIONS_PER_ADDRESS,
    DEFAULT_SUBSCRIPTIONS,
    DEFAULT_WORDS,
    Limits,
    raise_open_files,
)
from hyperwatch.server.proxies import Proxies
from hyperwatch.server.tokens import VARIABLE, Tokens
from hyperwatch.service import service
from hyperwatch.service.frontend import Frontend

__all__ = ["command", "configured"]

# Whether they can be read is the service's to say: it names the uid and the remedy.
_DATA_DIR = UserPath(readable=False)
_STATE_DIR = UserPath(file_okay=False, readable=False)


DEFAULT_METRICS = "127.0.0.1:9464"


def metrics_address() -> str:
    """The default: a variable that is set and empty means nowhere, which click takes for one that is not set."""
    return os.environ.get("HYPERWATCH_METRICS_LISTEN", DEFAULT_METRICS)


@click.command("run")
@option("--data-dir", type=_DATA_DIR, default=DATA_DIR, help="Where the node writes its data.")
@option("--state-dir", type=_STATE_DIR, default=default_state_dir,
        show_default="the user's state directory", help="Where gaps, unreadable lines and the last place are kept.")  # fmt: skip
@option("--listen", metavar="HOST:PORT", default="127.0.0.1:8000", help="Where clients connect. Port 0: any free one.")
@option("--metrics-listen", metavar="HOST:PORT", default=metrics_address, show_default=DEFAULT_METRICS,
        help="Where Prometheus asks for /metrics. Empty: nowhere.")  # fmt: skip
@option("--workers", type=click.IntRange(1, 64), default=default_workers, show_default="a quarter of the cores, 1 to 4",
        help="Threads that decode.")  # fmt: skip
@option("--layout", type=LAYOUT, default=None, show_default="the one with the newest data", help="Which files to read.")
@option("--ring-bytes", metavar="BYTES", type=click.IntRange(1024 * 1024), default=DEFAULT_RING_BYTES,
        help="Memory for the orders decoded last; fills and book diffs have a quarter of it each. Clients further behind "
        "are served from the files.")  # fmt: skip
@option("--deadline", metavar="SECONDS", type=NumberRange(0.1), default=DEFAULT_DEADLINE_S,
        help="How long the workers may take over a batch.")  # fmt: skip
@option("--stall", metavar="SECONDS", type=NumberRange(1), default=DEFAULT_STALL_S,
        help="How long the node may write nothing before it is said to be stalled.")  # fmt: skip
@option("--behind", metavar="SECONDS", type=NumberRange(0.1), default=DEFAULT_BEHIND_S,
        help="How far hyperwatch may be behind the node before /readyz and healthcheck say so.")  # fmt: skip
@option("--grace", metavar="SECONDS", type=NumberRange(0), default=DEFAULT_GRACE_S,
        help="How long after its last change an old hour file is watched for late lines.")  # fmt: skip
@option("--max-connections", type=click.IntRange(1), default=DEFAULT_CONNECTIONS, help="WebSocket clients at once.")
@option("--max-connections-per-address", type=click.IntRange(1), default=DEFAULT_CONNECTIONS_PER_ADDRESS,
        help="The same for one address. Behind a proxy all clients have the proxy's.")  # fmt: skip
@option("--max-subscriptions", type=click.IntRange(1), default=DEFAULT_SUBSCRIPTIONS, help="In one connection.")
@option("--max-filter-words", type=click.IntRange(1), default=DEFAULT_CLIENT_WORDS,
        help="Coins, accounts and other words in the filters of one connection; docs/security.md says how they count.")  # fmt: skip
@option("--max-filter-words-in-all", type=click.IntRange(1), default=DEFAULT_WORDS,
        help="The same for all connections together: 120,000 take about 25 MB.")  # fmt: skip
@option("--catch-up-rate", metavar="MB/S", type=NumberRange(0), default=DEFAULT_CATCH_UP_MB_S,
        help="How fast the past is read for all clients together; the node comes first. 0: without a limit.")  # fmt: skip
@option("--client-catch-up-rate", metavar="MB/S", type=NumberRange(0), default=DEFAULT_CLIENT_CATCH_UP_MB_S,
        help="The same for one client.")  # fmt: skip
@option("--client-head-share", metavar="PART", type=NumberRange(0), default=DEFAULT_SHARE,
        help="The part of the event loop's time that the connections of one client may have together, as docs/security.md "
        "counts it. 0: without a limit.")  # fmt: skip
@option("--tokens-file", type=UserPath(), default=None, show_default="everybody may connect",
        help="Clients must send one of these tokens, one a line. HYPERWATCH_TOKENS may hold some too.")  # fmt: skip
@option("--allow-origin", metavar="ORIGIN", multiple=True, show_default="pages of this host",
        help="Browser pages that may connect, as https://example.com. May be repeated.")  # fmt: skip
@option("--trusted-proxy", metavar="ADDRESS", multiple=True, show_default="none",
        help="A proxy before the service, or a network of them: its X-Forwarded-For and X-Forwarded-Host are believed. "
        "May be repeated.")  # fmt: skip
@option("--info-url", metavar="URL", default=None, show_default="no /info",
        help="The node's info server, as http://127.0.0.1:3001/info; SDKs ask it when they are built.")  # fmt: skip
@log_options
@click.pass_context
def command(context: click.Context, /, log_level: str, log_format: Literal["text", "json"], **_: object) -> None:
    """Serve a node's order events, fills, trades and book diffs as a live WebSocket feed.

    Starts at the newest complete line; clients ask for the past with "from". Ends on SIGINT or SIGTERM.
    """
    to_stderr(log_level, log_format)
    config = configured(context.params)
    for stranger in misspelled(context.find_root().command, os.environ):
        logger.warning(stranger)
    memory.keep_flat()
    memory.seldom_collect()
    raise_open_files()
    trio.run(service.run, config)


def configured(settings: Mapping[str, Any]) -> Config:
    """What `run` does with its options, as click has made them.

    Raises:
        UsageError: where a setting is wrong.
    """
    config = Config(
        data_dir=settings["data_dir"],
        state_dir=settings["state_dir"],
        listen=Address.parse(settings["listen"]),
        metrics_listen=_metrics_listen(settings["metrics_listen"]),
        layout=None if settings["layout"] is None else Layout.of_label(settings["layout"]),
        workers=settings["workers"],
        ring_bytes=settings["ring_bytes"],
        deadline_s=settings["deadline"],
        stall_s=settings["stall"],
        behind_s=settings["behind"],
        grace_s=settings["grace"],
        limits=Limits(
            settings["max_connections"],
            settings["max_connections_per_address"],
            settings["max_subscriptions"],
            words=settings["max_filter_words_in_all"],
            client_words=settings["max_filter_words"],
            catch_up_mb_s=settings["catch_up_rate"] or math.inf,
            client_catch_up_mb_s=settings["client_catch_up_rate"] or math.inf,
            client_share=settings["client_head_share"] or math.inf,
        ),
        tokens=Tokens.load(settings["tokens_file"], os.environ.get(VARIABLE)),
        origins=frozenset(map(origin, settings["allow_origin"])),
        proxies=Proxies.of(settings["trusted_proxy"]),
        info_url=settings["info_url"],
    )
    Frontend.of(config)  # which says whether they can be built
    return config


def _metrics_listen(text: str) -> Address | None:
    return Address.parse(text, "--metrics-listen") if text else None
