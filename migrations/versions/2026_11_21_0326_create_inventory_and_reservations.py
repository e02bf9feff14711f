"""Create inventory and reservations.

The old code is still running while this does: add before you use, stop using before you drop, fill in a backfill.
It runs in one transaction with lock_timeout 3 s; an index on a filled table is built CONCURRENTLY in an
op.get_context().autocommit_block(), after dropping an invalid leftover of the same name.

Revision: f92e394b7b09, after: , created: 2026-11-21 03:26:50.107506+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "f92e394b7b09"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "products",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("price_cents", sa.BigInteger(), nullable=False),
        sa.Column("tags", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "attributes", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("price_cents >= 0", name=op.f("ck_products_price_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
        sa.UniqueConstraint("sku", name=op.f("uq_products_sku")),
    )
    op.create_table(
        "stock_movements",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("variant_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("qty", sa.BigInteger(), nullable=False),
        sa.Column("reservation_id", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "CASE kind WHEN 'adjust' THEN qty <> 0 AND reason IS NOT NULL WHEN 'sale' THEN qty < 0 AND reservation_id IS NOT NULL WHEN 'receive' THEN qty > 0 WHEN 'take_back' THEN qty > 0 ELSE false END",
            name=op.f("ck_stock_movements_kind"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stock_movements")),
    )
    op.create_index(
        op.f("ix_stock_movements_created_at"), "stock_movements", ["created_at"], unique=False, postgresql_using="brin"
    )
    op.create_index(
        op.f("ix_stock_movements_variant_id"),
        "stock_movements",
        ["variant_id"],
        unique=False,
        postgresql_include=["qty"],
    )
    op.create_table(
        "stock_reservations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'held'"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("max_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("extend_count", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("payment_ref", sa.Text(), nullable=True),
        sa.Column("revived_from", sa.BigInteger(), nullable=True),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "(state = 'confirmed') = (payment_ref IS NOT NULL)", name=op.f("ck_stock_reservations_paid_when_confirmed")
        ),
        sa.CheckConstraint(
            "(state = 'held') = (resolved_at IS NULL)", name=op.f("ck_stock_reservations_resolved_when_not_held")
        ),
        sa.CheckConstraint(
            "state IN ('held', 'confirmed', 'released', 'expired')", name=op.f("ck_stock_reservations_state")
        ),
        sa.CheckConstraint("expires_at <= max_expires_at", name=op.f("ck_stock_reservations_expires_within_max")),
        sa.ForeignKeyConstraint(
            ["revived_from"],
            ["stock_reservations.id"],
            name=op.f("fk_stock_reservations_revived_from_stock_reservations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stock_reservations")),
    )
    op.create_index(
        "ix_stock_reservations_due",
        "stock_reservations",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'held'"),
    )
    op.create_index(
        op.f("ix_stock_reservations_revived_from"),
        "stock_reservations",
        ["revived_from"],
        unique=False,
        postgresql_where=sa.text("revived_from IS NOT NULL"),
    )
    op.create_index(
        "uq_stock_reservations_live_order",
        "stock_reservations",
        ["order_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('held', 'confirmed')"),
    )
    op.create_index(
        "uq_stock_reservations_payment_ref",
        "stock_reservations",
        ["payment_ref"],
        unique=True,
        postgresql_where=sa.text("payment_ref IS NOT NULL"),
    )
    op.create_table(
        "variants",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("size", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("stock_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("stock_qty >= 0", name=op.f("ck_variants_stock_not_negative")),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name=op.f("fk_variants_product_id_products"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_variants")),
        sa.UniqueConstraint("sku", name=op.f("uq_variants_sku")),
        postgresql_with={"fillfactor": 50, "autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 500},
    )
    op.create_index(op.f("ix_variants_product_id"), "variants", ["product_id"], unique=False)
    op.create_table(
        "stock_reservation_lines",
        sa.Column("reservation_id", sa.BigInteger(), nullable=False),
        sa.Column("variant_id", sa.BigInteger(), nullable=False),
        sa.Column("qty", sa.Integer(), nullable=False),
        sa.Column("released_qty", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("qty > 0", name=op.f("ck_stock_reservation_lines_qty_positive")),
        sa.CheckConstraint(
            "released_qty BETWEEN 0 AND qty", name=op.f("ck_stock_reservation_lines_released_within_qty")
        ),
        sa.ForeignKeyConstraint(
            ["reservation_id"],
            ["stock_reservations.id"],
            name=op.f("fk_stock_reservation_lines_reservation_id_stock_reservations"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["variant_id"], ["variants.id"], name=op.f("fk_stock_reservation_lines_variant_id_variants")
        ),
        sa.PrimaryKeyConstraint("reservation_id", "variant_id", name=op.f("pk_stock_reservation_lines")),
    )
    op.create_index(
        op.f("ix_stock_reservation_lines_variant_id"), "stock_reservation_lines", ["variant_id"], unique=False
    )


def downgrade() -> None:

    op.drop_index(op.f("ix_stock_reservation_lines_variant_id"), table_name="stock_reservation_lines")
    op.drop_table("stock_reservation_lines")
    op.drop_index(op.f("ix_variants_product_id"), table_name="variants")
    op.drop_table("variants")
    op.drop_index(
        "uq_stock_reservations_payment_ref",
        table_name="stock_reservations",
        postgresql_where=sa.text("payment_ref IS NOT NULL"),
    )
    op.drop_index(
        "uq_stock_reservations_live_order",
        table_name="stock_reservations",
        postgresql_where=sa.text("state IN ('held', 'confirmed')"),
    )
    op.drop_index(
        op.f("ix_stock_reservations_revived_from"),
        table_name="stock_reservations",
        postgresql_where=sa.text("revived_from IS NOT NULL"),
    )
    op.drop_index(
        "ix_stock_reservations_due", table_name="stock_reservations", postgresql_where=sa.text("state = 'held'")
    )
    op.drop_table("stock_reservations")
    op.drop_index(op.f("ix_stock_movements_variant_id"), table_name="stock_movements", postgresql_include=["qty"])
    op.drop_index(op.f("ix_stock_movements_created_at"), table_name="stock_movements", postgresql_using="brin")
    op.drop_table("stock_movements")
    op.drop_table("products")
