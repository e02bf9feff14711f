"""What the shop lists and what can be bought: archiving takes it off sale, deleting is for what nobody ever held."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, ForeignKey, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.checks import checked_id, checked_text
from db.errors import ProductHasHolds, ProductNotFound, VariantNotFound
from db.schema import STATEMENT_TIME, Base, bigint_identity, created_at

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


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


def variant_id_of(session: Session, sku: str) -> int:
    """Return the id of the variant with this sku, which is the name that people know it by.

    Raises:
        InvalidText: the sku is empty, too long or not storable.
        VariantNotFound: there is no such variant.
    """
    found: int | None = session.execute(
        text("SELECT id FROM variants WHERE sku = :sku"), {"sku": checked_text("sku", sku)}
    ).scalar()
    if found is None:
        raise VariantNotFound(variant_ids=[sku])
    return found


def archive(session: Session, product_id: int) -> None:
    """Take a product off sale: its variants can no longer be reserved, open holds live on. Repeating it does nothing.

    A `reserve` that has begun may still succeed.

    Raises:
        InvalidId: product_id is no id.
        ProductNotFound: there is no such product.
    """
    told = {"product_id": checked_id("product_id", product_id)}
    archived = text("""UPDATE products SET archived_at = statement_timestamp(), updated_at = statement_timestamp()
                        WHERE id = :product_id AND archived_at IS NULL RETURNING id""")
    if session.execute(archived, told).scalar() is None:
        present = session.execute(text("SELECT id FROM products WHERE id = :product_id"), told)
        if present.scalar() is None:
            raise ProductNotFound(product_id=product_id)


def delete_product(session: Session, product_id: int) -> None:
    """Delete a product and its variants. Its movements stay. Archiving is the normal way.

    Raises:
        InvalidId: product_id is no id.
        ProductHasHolds: a reservation, open or ended and not yet pruned, names one of its variants.
        ProductNotFound: there is no such product.
    """
    told = {"product_id": checked_id("product_id", product_id)}
    # The product first, which keeps new variants out, then its variants, which keeps new holds out: their foreign key
    # checks need FOR KEY SHARE on these rows, and that waits for FOR UPDATE.
    locked = session.execute(text("SELECT id FROM products WHERE id = :product_id FOR UPDATE"), told)
    if locked.scalar() is None:
        raise ProductNotFound(product_id=product_id)
    session.execute(text("SELECT id FROM variants WHERE product_id = :product_id ORDER BY id FOR UPDATE"), told)
    holds = text("""SELECT DISTINCT l.reservation_id FROM variants v
                      JOIN stock_reservation_lines l ON l.variant_id = v.id
                     WHERE v.product_id = :product_id ORDER BY 1 LIMIT 100""")
    if reservation_ids := list(session.execute(holds, told).scalars()):
        raise ProductHasHolds(product_id=product_id, reservation_ids=reservation_ids)
    session.execute(text("DELETE FROM products WHERE id = :product_id"), told)
