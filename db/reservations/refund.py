"""A payment that came too late to be a sale is a refund, for ever: the answer is kept with the payment.

Without the row a second delivery of the same webhook could find stock that has come back meanwhile, and the customer
would have the goods and the money.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from db.schema import Base, created_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session


class RefundReason(StrEnum):
    """Why a payment cannot be a sale any more."""

    SOLD_OUT = "sold_out"
    NOT_FOR_SALE = "not_for_sale"
    PAID_TWICE = "paid_twice"
    ORDER_CHANGED = "order_changed"


@dataclass(frozen=True, slots=True)
class RefundRequired:
    """The answer to a payment that came too late: give it back. `variant_ids` are those that are missing, if any."""

    reservation_id: int
    order_id: str
    reason: RefundReason
    variant_ids: list[int]
    payment_ref: str = field(repr=False)


class RequiredRefund(Base):
    """A payment that has to go back. `reservation_id` is no foreign key: the row outlives a pruned hold."""

    __tablename__ = "required_refunds"
    __table_args__ = (
        CheckConstraint("reason IN ('sold_out', 'not_for_sale', 'paid_twice', 'order_changed')", name="reason"),
        Index(None, "created_at"),
    )

    payment_ref: Mapped[str] = mapped_column(primary_key=True)
    reservation_id: Mapped[int] = mapped_column(BigInteger)
    order_id: Mapped[str]
    reason: Mapped[str]
    variant_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    created_at: Mapped[created_at]


_FIND = text("""
SELECT reservation_id, order_id, reason, variant_ids, payment_ref
  FROM required_refunds WHERE payment_ref = :payment_ref
""")

_REQUIRE = text("""
INSERT INTO required_refunds (payment_ref, reservation_id, order_id, reason, variant_ids)
VALUES (:payment_ref, :reservation_id, :order_id, :reason, CAST(:variant_ids AS bigint[]))
""")


def refund_of(session: Session, payment_ref: str) -> RefundRequired | None:
    """Return the refund that was answered to this payment before."""
    row = session.execute(_FIND, {"payment_ref": payment_ref}).one_or_none()
    if row is None:
        return None
    return RefundRequired(row.reservation_id, row.order_id, RefundReason(row.reason), row.variant_ids, row.payment_ref)


def require_refund(
    session: Session,
    reservation_id: int,
    order_id: str,
    payment_ref: str,
    reason: RefundReason,
    variant_ids: Iterable[int] = (),
) -> RefundRequired:
    """Remember, and return, that a payment has to be refunded. The caller has made sure that it is the only one."""
    refund = RefundRequired(reservation_id, order_id, reason, sorted(variant_ids), payment_ref)
    told = {"payment_ref": payment_ref, "reservation_id": reservation_id, "order_id": order_id, "reason": reason}
    session.execute(_REQUIRE, {**told, "variant_ids": refund.variant_ids})
    return refund
