"""What a hold is: its two tables, its states and the arrows between them.

    held → confirmed   the order was paid in time; its units are sold
    held → released    somebody gave it back before its time was over
    held → expired     its time was over, and a sweep or a buyer who needed the units closed it

The three on the right are final: a late payment makes a new hold, which `revived_from` ties to the one that was paid
for; a return is `inventory.take_back`. Units move only in
the transaction that wins the conditional update of `state`, so no hold gives its units back twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.inventory import Variant
from db.schema import Base, bigint_identity, created_at

DEFAULT_HOLD: Final = timedelta(minutes=15)
DEFAULT_MAX_HOLD: Final = timedelta(hours=2)


class HoldState(StrEnum):
    """Where a hold stands; see the module for what each arrow means."""

    HELD = "held"
    CONFIRMED = "confirmed"
    RELEASED = "released"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as its caller sees it. `expires_at` is by the database's clock, and at that moment it has expired."""

    id: int
    order_id: str
    state: HoldState
    expires_at: datetime


class StockReservation(Base):
    """One hold. Rows are kept after it ended, so that every question about it can be answered."""

    __tablename__ = "stock_reservations"
    __table_args__ = (
        CheckConstraint("state IN ('held', 'confirmed', 'released', 'expired')", name="state"),
        CheckConstraint("(state = 'held') = (resolved_at IS NULL)", name="resolved_when_not_held"),
        CheckConstraint("(state = 'confirmed') = (payment_ref IS NOT NULL)", name="paid_when_confirmed"),
        CheckConstraint("expires_at <= max_expires_at", name="expires_within_max"),
        Index("ix_stock_reservations_due", "expires_at", postgresql_where=text("state = 'held'")),
        Index(
            "uq_stock_reservations_live_order",
            "order_id",
            unique=True,
            postgresql_where=text("state IN ('held', 'confirmed')"),
        ),
        Index(
            "uq_stock_reservations_payment_ref",
            "payment_ref",
            unique=True,
            postgresql_where=text("payment_ref IS NOT NULL"),
        ),
        # Few holds are revived: leaving the others out spares each of them an index entry.
        Index(None, "revived_from", postgresql_where=text("revived_from IS NOT NULL")),
    )

    id: Mapped[bigint_identity]
    order_id: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'held'"))
    created_at: Mapped[created_at]
    expires_at: Mapped[datetime]
    max_expires_at: Mapped[datetime]
    extend_count: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    payment_ref: Mapped[str | None]
    revived_from: Mapped[int | None] = mapped_column(ForeignKey("stock_reservations.id"))
    resolved_at: Mapped[datetime | None]
    request_hash: Mapped[bytes]

    lines: Mapped[list[StockReservationLine]] = relationship(lazy="raise", passive_deletes=True)


class StockReservationLine(Base):
    """Units of one variant in one hold; `released_qty` of them have already been given back."""

    __tablename__ = "stock_reservation_lines"
    __table_args__ = (
        CheckConstraint("qty > 0", name="qty_positive"),
        CheckConstraint("released_qty BETWEEN 0 AND qty", name="released_within_qty"),
        # Deleting a variant looks here for holds, and reconciliation sums by variant.
        Index(None, "variant_id"),
    )

    reservation_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(StockReservation.id, ondelete="CASCADE"), primary_key=True
    )
    variant_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(Variant.id), primary_key=True)
    qty: Mapped[int]
    released_qty: Mapped[int] = mapped_column(server_default=text("0"))
