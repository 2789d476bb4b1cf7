"""Why a directory has no order statuses, and what to do. Blocking I/O."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hyperwatch.node.streams import ORDERS, STREAMS, Layout

__all__ = ["FLAGS", "UNBUFFERED", "advice_without_orders"]

FLAGS = {Layout.PLAIN: "", Layout.BY_BLOCK: " --batch-by-block", Layout.STREAMING: " --stream-with-block-info"}
"""What a node is told beside a stream's flag, by the layout."""
UNBUFFERED = "--disable-output-file-buffering"

_BELOW = (".", "data", "hl/data")  # as the node lays it out in a home directory


def advice_without_orders(root: Path) -> str:
    """Says which directory is meant where `root` lies inside or above a node's, else with which flags a node writes them."""
    here = root.resolve()
    for inner in (here, *here.parents):
        if inner.name.startswith(tuple(STREAMS)):
            return f"it is one stream's own directory: say --data-dir {inner.parent}"
    for below in _BELOW[1:]:
        with suppress(OSError):
            if any((root / below / ORDERS.directory(layout)).is_dir() for layout in Layout):
                return f"they are further down: say --data-dir {root / below}"
    flags = f"{ORDERS.flag}{FLAGS[Layout.STREAMING]} {UNBUFFERED}"
    return f"start the node with {flags}, and see that --data-dir is its own"
