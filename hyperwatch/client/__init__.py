"""A client of the feed: connects, resumes by itself, and hands out every event exactly once."""

from hyperwatch.client.errors import FeedError, LossError
from hyperwatch.client.feed import Feed, Subscription, connect
from hyperwatch.client.messages import (
    BookDiffs,
    Edge,
    Fills,
    Gap,
    GapError,
    Interrupted,
    Live,
    Message,
    Orders,
    Position,
)
from hyperwatch.client.node_events import (
    Builder,
    Diff,
    DiffEvent,
    Fill,
    FillEvent,
    Liquidation,
    NewSize,
    Order,
    OrderEvent,
    SizeUpdate,
)
from hyperwatch.client.subscription_state import Answer
from hyperwatch.client.url import normalize_url

__all__ = [
    "Answer",
    "BookDiffs",
    "Builder",
    "Diff",
    "DiffEvent",
    "Edge",
    "Feed",
    "FeedError",
    "Fill",
    "FillEvent",
    "Fills",
    "Gap",
    "GapError",
    "Interrupted",
    "Liquidation",
    "Live",
    "LossError",
    "Message",
    "NewSize",
    "Order",
    "OrderEvent",
    "Orders",
    "Position",
    "SizeUpdate",
    "Subscription",
    "connect",
    "normalize_url",
]
