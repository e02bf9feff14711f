"""Products, their variants and every unit that ever moved: stock changes only together with the movement that says why.

For every variant `stock_qty + units in open holds = sum of its movements`; `reconcile` proves it from the rows and
repairs nothing, because a broken invariant is a defect to find and not a number to overwrite.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, ForeignKey, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.checks import checked_id, checked_limit, checked_qty, checked_text
from db.errors import ProductHasHolds, ProductNotFound, StockTooLow, VariantNotFound
from db.schema import STATEMENT_TIME, Base, bigint_identity, created_at
from db.session import snapshot

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy.orm import Session

_MAX_PAGE = 100_000
_REASON_CHARACTERS = 2_000


class Product(Base):
    """What the shop lists. Archiving takes it off sale and keeps its history."""

    __tablename__ = "products"
    __table_args__ = (CheckConstraint("price_cents >= 0", name="price_not_negative"),)

    id: Mapped[bigint_identity]
    sku: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    category: Mapped[str] = mapped_column(server_default=text("''"))
    price_cents: Mapped[int] = mapped_column(BigInteger)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    attributes: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    archived_at: Mapped[datetime | None]
    created_at: Mapped[created_at]
    updated_at: Mapped[datetime] = mapped_column(server_default=STATEMENT_TIME, onupdate=STATEMENT_TIME)

    variants: Mapped[list[Variant]] = relationship(back_populates="product", lazy="raise", passive_deletes=True)


class Variant(Base):
    """One thing that can be bought. `stock_qty` is the units free to sell: what a hold has taken is not in it.

    bigint, so that no sum of 32-bit quantities can overflow and stop a sweep. Nothing that a hold changes is indexed
    and half of each page is left free, so an update stays within its page (HOT) and touches no index.
    """

    __tablename__ = "variants"
    __table_args__ = (
        CheckConstraint("stock_qty >= 0", name="stock_not_negative"),
        {
            "postgresql_with": {
                "fillfactor": 50,
                # A hot row dies hundreds of times a second: a fixed threshold serves large tables like small ones.
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_threshold": 500,
            }
        },
    )

    id: Mapped[bigint_identity]
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id, ondelete="CASCADE"), index=True)
    sku: Mapped[str] = mapped_column(unique=True)
    size: Mapped[str] = mapped_column(server_default=text("''"))
    stock_qty: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))

    product: Mapped[Product] = relationship(back_populates="variants", lazy="raise")


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
    return _move(session, variant_id, checked_qty(variant_id, qty), MovementKind.RECEIVE, reason=reason)


def adjust(session: Session, variant_id: int, change: int, *, reason: str) -> int:
    """Correct the count by `change` units, up or down, and return the units now free to sell.

    Raises:
        InvalidInput: change is 0 or beyond 32 bits, or the reason is missing.
        StockTooLow: the variant has fewer units free to sell than `change` takes.
        VariantNotFound: there is no such variant.
    """
    checked_text("reason", reason, most=_REASON_CHARACTERS)
    change = checked_qty(variant_id, change, field="change", least=-(2**31) + 1)
    return _move(session, variant_id, change, MovementKind.ADJUST, reason=reason)


def take_back(
    session: Session, variant_id: int, qty: int, *, reservation_id: int | None = None, reason: str | None = None
) -> int:
    """Put `qty` units that a customer returned back on sale and return the units now free to sell.

    Args:
        session: the caller's session; nothing is committed.
        variant_id: the variant that came back.
        qty: units, 1 to 2^31-1.
        reservation_id: the confirmed hold they were sold by, when it is known.
        reason: free text for the ledger.

    Raises:
        InvalidInput: an id or qty is out of range, or the reason is no text.
        VariantNotFound: there is no such variant.
    """
    if reservation_id is not None:
        checked_id("reservation_id", reservation_id)
    qty = checked_qty(variant_id, qty)
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
    checked_id("variant_id", variant_id)
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


def archive(session: Session, product_id: int) -> None:
    """Take a product off sale: its variants can no longer be reserved, open holds live on. Repeating it does nothing.

    Raises:
        InvalidId: product_id is no id.
        ProductNotFound: there is no such product.
    """
    archived = session.execute(
        text("""UPDATE products SET archived_at = coalesce(archived_at, statement_timestamp()),
                       updated_at = statement_timestamp() WHERE id = :product_id RETURNING id"""),
        {"product_id": checked_id("product_id", product_id)},
    )
    if archived.scalar() is None:
        raise ProductNotFound(product_id=product_id)


def delete_product(session: Session, product_id: int) -> None:
    """Delete a product and its variants. Its movements stay. Archiving is the normal way.

    Raises:
        InvalidId: product_id is no id.
        ProductHasHolds: a reservation, open or ended and not yet pruned, names one of its variants.
        ProductNotFound: there is no such product.
    """
    told = {"product_id": checked_id("product_id", product_id)}
    # Locking the variants first keeps a new hold out: its lines need FOR KEY SHARE on them, which waits for FOR UPDATE.
    session.execute(text("SELECT id FROM variants WHERE product_id = :product_id ORDER BY id FOR UPDATE"), told)
    holds = session.execute(
        text("""SELECT DISTINCT l.reservation_id FROM variants v
                  JOIN stock_reservation_lines l ON l.variant_id = v.id
                 WHERE v.product_id = :product_id ORDER BY 1 LIMIT 100"""),
        told,
    ).scalars()
    if reservation_ids := list(holds):
        raise ProductHasHolds(product_id=product_id, reservation_ids=reservation_ids)
    deleted = session.execute(text("DELETE FROM products WHERE id = :product_id RETURNING id"), told)
    if deleted.scalar() is None:
        raise ProductNotFound(product_id=product_id)


@dataclass(frozen=True, slots=True)
class BrokenVariant:
    """A variant whose units do not add up: `stock_qty + held_qty` should equal `moved_qty`, all in units."""

    variant_id: int
    sku: str
    stock_qty: int
    held_qty: int
    moved_qty: int


@dataclass(slots=True)
class Reconciliation:
    """What a run of `reconcile` saw. `next_after` is where to go on when the budget ended it, None when it saw all."""

    checked: int = 0
    broken: list[BrokenVariant] = field(default_factory=list)
    next_after: int | None = None


_RECONCILE = text("""
WITH page AS MATERIALIZED (
  SELECT id, sku, stock_qty FROM variants WHERE id > :after ORDER BY id LIMIT :page),
held AS (
  SELECT l.variant_id, sum(l.qty - l.released_qty) AS qty
    FROM stock_reservations r JOIN stock_reservation_lines l ON l.reservation_id = r.id
   WHERE r.state = 'held' AND l.variant_id > :after AND l.variant_id <= (SELECT max(id) FROM page)
   GROUP BY l.variant_id)
SELECT p.id, p.sku, p.stock_qty, coalesce(h.qty, 0)::bigint AS held_qty, coalesce(m.qty, 0)::bigint AS moved_qty
  FROM page p
  LEFT JOIN held h ON h.variant_id = p.id
  LEFT JOIN LATERAL (SELECT sum(s.qty) AS qty FROM stock_movements s WHERE s.variant_id = p.id) m ON true
 ORDER BY p.id
""")


def reconcile(*, budget: timedelta | None = None, after: int = 0, page: int = 1_000) -> Reconciliation:
    """Check the invariant of every variant, page by page, each page in a snapshot of its own. Changes nothing.

    Args:
        budget: stop after the page during which this much time has passed; None checks everything.
        after: start behind this variant id, such as a former run's `next_after`.
        page: variants per snapshot, 1 to 100,000.

    Raises:
        InvalidInput: `after` or `page` is out of range.
    """
    checked_limit("page", page, most=_MAX_PAGE)
    if after != 0:
        checked_id("after", after)
    result = Reconciliation()
    ends = None if budget is None else time.monotonic() + budget.total_seconds()
    while True:
        with snapshot() as session:
            rows = session.execute(_RECONCILE, {"after": after, "page": page}).all()
        result.checked += len(rows)
        result.broken += [BrokenVariant(*row) for row in rows if row.stock_qty + row.held_qty != row.moved_qty]
        if len(rows) < page:
            return result
        after = rows[-1].id
        if ends is not None and time.monotonic() >= ends:
            result.next_after = after
            return result
