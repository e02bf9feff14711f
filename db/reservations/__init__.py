"""Holds on stock: taken all or nothing, ended exactly once, and given back on time.

    reserve      takes units for an order and returns a hold that ends by itself
    confirm      sells what a hold has
    release      gives it back
    expire_due   gives back what nobody confirmed in time
    page, show   what there is to know about holds

Locks are taken in one order everywhere, so that no two of these can wait for each other: reservations ascending, the
new hold of this order, variants ascending. So a transaction has one call that moves units; a second one would begin on
the left again. They are meant for READ COMMITTED, PostgreSQL's default: in a stricter one they do nothing wrong, but
answer from the transaction's snapshot.
"""

from db.reservations.expire import BatchSize, expire_due
from db.reservations.hold import (
    DEFAULT_HOLD,
    DEFAULT_MAX_HOLD,
    Hold,
    HoldState,
    StockReservation,
    StockReservationLine,
)
from db.reservations.read import HoldDetails, HoldLine, ListedHold, page, show
from db.reservations.resolve import confirm, release
from db.reservations.take import reserve

__all__ = [
    "DEFAULT_HOLD",
    "DEFAULT_MAX_HOLD",
    "BatchSize",
    "Hold",
    "HoldDetails",
    "HoldLine",
    "HoldState",
    "ListedHold",
    "StockReservation",
    "StockReservationLine",
    "confirm",
    "expire_due",
    "page",
    "release",
    "reserve",
    "show",
]
