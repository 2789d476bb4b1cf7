"""The streams that are served, by name: for each a hub at its head and readers of its past."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from hyperwatch.feed.catch_up import CatchUp
from hyperwatch.feed.hub import Hub

__all__ = ["StreamSource", "Streams"]


@attrs.frozen
class StreamSource:
    """One stream's log, as clients have it."""

    hub: Hub
    catch_up: CatchUp


Streams = Mapping[str, StreamSource]
"""Those that are there; a stream that appears is added while clients are served."""
