"""Create required_refunds: the payments that came too late to be a sale.

A new table, which the old code does not know and does not miss.

Revision: 8d14f0b6a9c2, after: 3a51c0de7b14, created: 2026-11-21 09:30:00+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "8d14f0b6a9c2"
down_revision = "3a51c0de7b14"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "required_refunds",
        sa.Column("payment_ref", sa.Text(), nullable=False),
        sa.Column("reservation_id", sa.BigInteger(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("variant_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "reason IN ('sold_out', 'not_for_sale', 'paid_twice', 'order_changed')",
            name=op.f("ck_required_refunds_reason"),
        ),
        sa.PrimaryKeyConstraint("payment_ref", name=op.f("pk_required_refunds")),
    )
    op.create_index(op.f("ix_required_refunds_created_at"), "required_refunds", ["created_at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_required_refunds_created_at"), table_name="required_refunds")
    op.drop_table("required_refunds")
