"""Holds on stock: taken all or nothing, ended exactly once, and given back on time.

    reserve                 takes units for an order and returns a hold that ends by itself
    reserve_many            does so for many orders at once
    extend                  lets a hold last longer
    confirm                 sells what a hold has
    confirm_or_reacquire    sells it also when the payment came late, or says that the money has to go back
    release                 gives it back, all or part of it
    expire_due              gives back what nobody confirmed in time
    page, show, refunds     what there is to know about holds and payments that have to go back
    slot                    one of few places before a hot variant

Locks are taken in one order everywhere, so that no two of these can wait for each other: the payment, reservations
ascending, the new holds by order, variants ascending. So a transaction has one call that changes holds or units; a
second one would begin on the left again. They are meant for READ COMMITTED, PostgreSQL's default: in a stricter one
they answer from the transaction's snapshot, or fail to serialize, and a payment is refused.
"""

from db.reservations.admission import slot
from db.reservations.deadline import extend
from db.reservations.expire import BatchSize, expire_due
from db.reservations.hold import (
    DEFAULT_HOLD,
    DEFAULT_MAX_HOLD,
    Hold,
    HoldState,
    StockReservation,
    StockReservationLine,
)
from db.reservations.late import confirm_or_reacquire
from db.reservations.many import reserve_many
from db.reservations.read import HoldDetails, HoldLine, ListedHold, ListedRefund, page, refunds, show
from db.reservations.refund import RefundReason, RefundRequired, RequiredRefund
from db.reservations.request import HoldRequest
from db.reservations.resolve import confirm, release
from db.reservations.take import reserve

__all__ = [
    "DEFAULT_HOLD",
    "DEFAULT_MAX_HOLD",
    "BatchSize",
    "Hold",
    "HoldDetails",
    "HoldLine",
    "HoldRequest",
    "HoldState",
    "ListedHold",
    "ListedRefund",
    "RefundReason",
    "RefundRequired",
    "RequiredRefund",
    "StockReservation",
    "StockReservationLine",
    "confirm",
    "confirm_or_reacquire",
    "expire_due",
    "extend",
    "page",
    "refunds",
    "release",
    "reserve",
    "reserve_many",
    "show",
    "slot",
]
