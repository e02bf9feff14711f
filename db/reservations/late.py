"""A payment that was made has to become a sale or a refund, whatever has become of the hold meanwhile: never neither.

For the webhook of a payment provider, which comes late, twice and in any order. The answer to a payment is decided once
and kept: a sale with the hold that it confirmed, a refund in `required_refunds`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from db.checks import checked_id, checked_text
from db.errors import (
    InsufficientStock,
    OrderAlreadyReserved,
    OrderContended,
    PaymentRefInUse,
    VariantArchived,
)
from db.reservations import sale
from db.reservations.hold import Hold, HoldState
from db.reservations.refund import RefundReason, RefundRequired, refund_of, require_refund
from db.reservations.state import read
from db.reservations.take import reserve

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

_LINES_AT_ITS_END = text("""
SELECT variant_id, qty - released_qty AS qty
  FROM stock_reservation_lines WHERE reservation_id = :reservation_id AND qty > released_qty
""")


def confirm_or_reacquire(session: Session, reservation_id: int, payment_ref: str) -> Hold | RefundRequired:
    """Sell what a hold has, also when its time is over; if its units are gone, take them again for the same order.

    In time it does what `confirm` does. Past its time, but not swept, the hold still has its units and is sold. After
    release or expiry the order gets a new hold for the same lines, or finds the one that it has made meanwhile, and
    that is sold, with `revived_from` naming the hold that was paid for. If that cannot be, the money has to go back:
    enqueue the refund in this same transaction. The same call again is answered the same way: a sale as long as the
    hold is kept, a refund for ever.

    It sells what the hold has. When a part was given back after the customer had gone to pay, the rest of the money is
    the shop's to give back.

    Raises:
        InvalidInput: reservation_id is no id, or payment_ref is empty, over 200 characters or not storable.
        OrderContended: others keep changing the order's hold or its units; try again.
        PaymentRefInUse: this payment belongs to another order.
        ReservationNotFound: there is no such reservation.
        WrongIsolation: the transaction is not READ COMMITTED.
    """
    checked_id("reservation_id", reservation_id)
    checked_text("payment_ref", payment_ref, secret=True)
    sale.lock_payment(session, payment_ref)
    answered = sale.sold_by(session, payment_ref) or refund_of(session, payment_ref)
    if answered is not None:
        _check_it_is_the_same(session, reservation_id, answered)
        return answered
    sold = sale.sell(session, sale.EVEN_LATE, reservation_id, payment_ref)
    if sold is not None:
        return sold
    paid = read(session, reservation_id)
    if paid.state == HoldState.CONFIRMED:
        return require_refund(session, reservation_id, paid.order_id, payment_ref, RefundReason.PAID_TWICE)
    with session.begin_nested():  # An error must not leave the new hold behind.
        return _reacquire(session, paid, payment_ref)


def _check_it_is_the_same(session: Session, reservation_id: int, answered: Hold | RefundRequired) -> None:
    """Check that a payment is asked about for the order that it was made for; a refund outlives its hold's row."""
    other_id = answered.id if isinstance(answered, Hold) else answered.reservation_id
    if other_id != reservation_id and read(session, reservation_id).order_id != answered.order_id:
        raise PaymentRefInUse(reservation_id=reservation_id, other_id=other_id)


def _reacquire(session: Session, paid: Row[Any], payment_ref: str) -> Hold | RefundRequired:
    """Take again what the hold had at its end, and sell it; or say why the payment has to go back."""

    def refund(reason: RefundReason, variant_ids: list[int] | None = None) -> RefundRequired:
        return require_refund(session, paid.id, paid.order_id, payment_ref, reason, variant_ids or ())

    lines = {row.variant_id: row.qty for row in session.execute(_LINES_AT_ITS_END, {"reservation_id": paid.id})}
    try:
        hold = reserve(session, paid.order_id, lines)
    except InsufficientStock as short:
        return refund(RefundReason.SOLD_OUT, short.ids["variant_ids"])
    except VariantArchived as archived:
        return refund(RefundReason.NOT_FOR_SALE, archived.ids["variant_ids"])
    except OrderAlreadyReserved as other:
        paid_already = read(session, other.ids["reservation_id"]).state == HoldState.CONFIRMED
        return refund(RefundReason.PAID_TWICE if paid_already else RefundReason.ORDER_CHANGED)
    if hold.state == HoldState.CONFIRMED:
        return refund(RefundReason.PAID_TWICE)
    sold = sale.sell(session, sale.EVEN_LATE, hold.id, payment_ref, revived_from=paid.id)
    if sold is None:
        # The order had made a new hold itself, and somebody has ended that one between the two statements.
        raise OrderContended(order_id=paid.order_id)
    return sold
