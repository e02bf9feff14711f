"""What operators say about queues and jobs: a queue's limits, and who did what when."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Float, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.schema import STATEMENT_TIME, Base, bigint_identity, created_at


class QueueControl(Base):
    """The limits of one queue, for all its workers together. A queue without a row has none.

    `tokens` are what is left of `rate_per_second` at `refilled_at`: a bucket that holds one second's worth, at least 1.
    """

    __tablename__ = "queue_control"
    __table_args__ = (
        CheckConstraint("max_in_flight > 0", name="max_in_flight"),
        CheckConstraint("rate_per_second > 0", name="rate_per_second"),
    )

    queue: Mapped[str] = mapped_column(primary_key=True)
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    max_in_flight: Mapped[int | None]
    rate_per_second: Mapped[float | None] = mapped_column(Float)
    tokens: Mapped[float] = mapped_column(Float, server_default=text("0"))
    refilled_at: Mapped[datetime] = mapped_column(server_default=STATEMENT_TIME)


class OperatorAction(Base):
    """What a person did to jobs, queues or schedules."""

    __tablename__ = "operator_actions"
    __table_args__ = (Index(None, "created_at"),)

    id: Mapped[bigint_identity]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    created_at: Mapped[created_at]
