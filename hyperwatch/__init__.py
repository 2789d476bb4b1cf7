"""hyperwatch: a live, lossless WebSocket feed of a Hyperliquid node's order events.

The rooms, each importing only from those before it: `node` (what a node writes; pure), `log` (its files as one log,
read from any cursor or at the head), `feed` (who gets it), `service` (which task owns what), `cli` (commands).
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("hyperwatch")
