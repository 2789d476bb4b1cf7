"""The streams that are served, by name: for each a hub at its head and readers of its past."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from hyperwatch.feed.hub import Hub
from hyperwatch.log.past import Past

__all__ = ["Source", "Streams"]


@attrs.frozen
class Source:
    """One stream's log, as clients have it."""

    hub: Hub
    past: Past


Streams = Mapping[str, Source]
"""Those that are there; a stream that appears is added while clients are served."""
