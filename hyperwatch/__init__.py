"""A live, lossless WebSocket feed of a Hyperliquid node's events.

The rooms, each importing only from those after it: `cli` and `replay` (commands, recordings), `service` (which task owns
what) and `client` (a client of the feed), `monitor` (the operator's views), `server` (connections), `feed` (who gets what)
and `ledger` (what could not be delivered), `ingest` (the live road), `log` (the files as one log), `derive` (streams
computed from others), `node` (what a node writes), `runtime` (this process). `docs/architecture.md` is the map.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("hyperwatch")
