"""The statuses of an order and what each means for its life.

An open set: exchanges add statuses without notice. What is in no table is classed by its ending, and what has no known
ending is `unknown`: delivered, counted, and never taken for the end of an order.
"""

from __future__ import annotations

import enum
import functools

from hyperwatch.node.keys import OrderKeys
from hyperwatch.node.times import ms_of

__all__ = ["OFFICIAL", "StatusClass", "class_of_name", "was_live"]


class StatusClass(enum.Enum):
    """What a status says of its order."""

    LIVE = "live"
    """Placed or triggered. It rests only if it is neither Ioc nor an untriggered trigger order."""
    REMOVED = "removed"
    """Over, after it was live."""
    REJECTED = "rejected"
    """Over before it was live."""
    UNKNOWN = "unknown"
    """Not a status that this version knows."""


# The official table, "info endpoint": order status. 29 strings; clients with closed enums know only these.
OFFICIAL: dict[str, StatusClass] = {
    "open": StatusClass.LIVE,
    "triggered": StatusClass.LIVE,
    **dict.fromkeys(
        (
            "filled",
            "canceled",
            "marginCanceled",
            "vaultWithdrawalCanceled",
            "openInterestCapCanceled",
            "selfTradeCanceled",
            "reduceOnlyCanceled",
            "siblingFilledCanceled",
            "delistedCanceled",
            "liquidatedCanceled",
            "scheduledCancel",
        ),
        StatusClass.REMOVED,
    ),
    **dict.fromkeys(
        (
            "rejected",
            "tickRejected",
            "minTradeNtlRejected",
            "perpMarginRejected",
            "reduceOnlyRejected",
            "badAloPxRejected",
            "iocCancelRejected",
            "badTriggerPxRejected",
            "marketOrderNoLiquidityRejected",
            "positionIncreaseAtOpenInterestCapRejected",
            "positionFlipAtOpenInterestCapRejected",
            "tooAggressiveAtOpenInterestCapRejected",
            "openInterestIncreaseRejected",
            "insufficientSpotBalanceRejected",
            "oracleRejected",
            "perpMaxPositionRejected",
        ),
        StatusClass.REJECTED,
    ),
}


@functools.lru_cache(maxsize=256)
def class_of_name(status: str) -> StatusClass:
    """The class of a status by its name alone."""
    if status in OFFICIAL:
        return OFFICIAL[status]
    if status.endswith(("Canceled", "Cancel")):
        return StatusClass.REMOVED
    if status.endswith("Rejected"):
        return StatusClass.REJECTED
    return StatusClass.UNKNOWN


def was_live(event: OrderKeys) -> bool:
    """Whether a rejected order had been live: then its rejection is a removal.

    A trigger order is live from `open` on and may be rejected when it triggers, as may any order later than the
    millisecond it was placed in (measured: open, triggered, minTradeNtlRejected, all of one oid).
    """
    order = event.order
    if order.isTrigger or order.timestamp <= 0:
        return order.isTrigger
    try:
        return (ms_of(event.time) or 0) > order.timestamp
    except ValueError:
        return False  # foreign data with times of its own: nothing says that the order was live
