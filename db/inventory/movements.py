"""Every unit that ever moved: stock changes only together with the movement that says why, in one statement."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from db.checks import checked_id, checked_qty, checked_text
from db.errors import StockTooLow, VariantNotFound
from db.schema import Base, bigint_identity, created_at

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_REASON_CHARACTERS = 2_000


class MovementKind(StrEnum):
    """Why units came or went."""

    RECEIVE = "receive"
    ADJUST = "adjust"
    SALE = "sale"
    TAKE_BACK = "take_back"


class StockMovement(Base):
    """One line of the append-only ledger: `qty` units came (positive) or went (negative).

    `variant_id` and `reservation_id` are no foreign keys: the ledger outlives a deleted product and a pruned hold, and
    a sale does not have to lock the row of its variant, which is the one that every buyer waits for.
    """

    __tablename__ = "stock_movements"
    __table_args__ = (
        CheckConstraint(
            "CASE kind WHEN 'adjust' THEN qty <> 0 AND reason IS NOT NULL"
            " WHEN 'sale' THEN qty < 0 AND reservation_id IS NOT NULL"
            " WHEN 'receive' THEN qty > 0 WHEN 'take_back' THEN qty > 0 ELSE false END",
            name="kind",
        ),
        Index(None, "variant_id", postgresql_include=["qty"]),
        Index(None, "created_at", postgresql_using="brin"),
    )

    id: Mapped[bigint_identity]
    variant_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str]
    qty: Mapped[int] = mapped_column(BigInteger)
    reservation_id: Mapped[int | None] = mapped_column(BigInteger)
    reason: Mapped[str | None]
    created_at: Mapped[created_at]


def receive(session: Session, variant_id: int, qty: int, *, reason: str | None = None) -> int:
    """Put `qty` delivered units on sale and return the units now free to sell.

    Raises:
        InvalidInput: variant_id is no id, qty is not 1 to 2^31-1, or the reason is no text.
        VariantNotFound: there is no such variant.
    """
    qty = checked_qty(checked_id("variant_id", variant_id), qty)
    return _move(session, variant_id, qty, MovementKind.RECEIVE, reason=reason)


def adjust(session: Session, variant_id: int, qty: int, *, reason: str) -> int:
    """Correct the count by `qty` units, up or down, and return the units now free to sell.

    Raises:
        InvalidInput: qty is 0 or beyond 32 bits, or the reason is missing.
        StockTooLow: the variant has fewer units free to sell than `qty` takes.
        VariantNotFound: there is no such variant.
    """
    checked_text("reason", reason, most=_REASON_CHARACTERS)
    qty = checked_qty(checked_id("variant_id", variant_id), qty, least=-(2**31) + 1)
    return _move(session, variant_id, qty, MovementKind.ADJUST, reason=reason)


def take_back(
    session: Session, variant_id: int, qty: int, *, reservation_id: int | None = None, reason: str | None = None
) -> int:
    """Put `qty` units that a customer returned back on sale and return the units now free to sell.

    Args:
        session: the caller's session; nothing is committed.
        variant_id: the variant that came back.
        qty: units, 1 to 2^31-1.
        reservation_id: the confirmed hold they were sold by, when it is known; a note, which is not checked.
        reason: free text for the ledger.

    Raises:
        InvalidInput: an id or qty is out of range, or the reason is no text.
        VariantNotFound: there is no such variant.
    """
    if reservation_id is not None:
        checked_id("reservation_id", reservation_id)
    qty = checked_qty(checked_id("variant_id", variant_id), qty)
    return _move(session, variant_id, qty, MovementKind.TAKE_BACK, reservation_id=reservation_id, reason=reason)


_MOVE = text("""
WITH moved AS (
  UPDATE variants SET stock_qty = stock_qty + :qty
   WHERE id = :variant_id AND stock_qty + :qty >= 0
  RETURNING id, stock_qty),
logged AS (
  INSERT INTO stock_movements (variant_id, kind, qty, reservation_id, reason)
  SELECT id, :kind, :qty, CAST(:reservation_id AS bigint), CAST(:reason AS text) FROM moved)
SELECT stock_qty FROM moved
""")


def _move(
    session: Session,
    variant_id: int,
    qty: int,
    kind: MovementKind,
    *,
    reservation_id: int | None = None,
    reason: str | None = None,
) -> int:
    if reason is not None:
        checked_text("reason", reason, most=_REASON_CHARACTERS)
    told = {"variant_id": variant_id, "qty": qty, "kind": kind, "reservation_id": reservation_id, "reason": reason}
    stock_qty: int | None = session.execute(_MOVE, told).scalar()
    if stock_qty is not None:
        return stock_qty
    present: int | None = session.execute(
        text("SELECT stock_qty FROM variants WHERE id = :variant_id"), {"variant_id": variant_id}
    ).scalar()
    if present is None:
        raise VariantNotFound(variant_ids=[variant_id])
    raise StockTooLow(variant_id=variant_id, change=qty, stock_qty=present)
