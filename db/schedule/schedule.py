"""What a schedule and its ticks are in the database: two tables, of which the second remembers every due time."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.schema import Base, created_at


class Schedule(Base):
    """One periodic job: every so many seconds, counted from the Unix epoch, or by a crontab in its time zone.

    Every due time up to `last_due_at`, or while that is empty up to `created_at`, has been decided. `last_task_id` is
    the job of the newest tick that made one. `source` is `code` for what celeryconfig declares, and `operator` for what
    was added at run time. `options` are those of `enqueue`.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("(every_seconds IS NULL) <> (crontab IS NULL)", name="one_rule"),
        CheckConstraint("every_seconds > 0", name="every_seconds"),
        CheckConstraint("source IN ('code', 'operator')", name="source"),
        CheckConstraint("catch_up IN ('latest', 'all', 'skip')", name="catch_up"),
        CheckConstraint("overlap IN ('allow', 'skip')", name="overlap"),
        CheckConstraint("misfire_grace_seconds > 0", name="misfire_grace_seconds"),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str]
    args: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'"))
    kwargs: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    options: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    every_seconds: Mapped[float | None] = mapped_column(Float)
    crontab: Mapped[str | None]
    timezone: Mapped[str] = mapped_column(server_default=text("'UTC'"))
    misfire_grace_seconds: Mapped[float] = mapped_column(Float, server_default=text("600"))
    catch_up: Mapped[str] = mapped_column(server_default=text("'latest'"))
    overlap: Mapped[str] = mapped_column(server_default=text("'allow'"))
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    source: Mapped[str]
    last_due_at: Mapped[datetime | None]
    last_task_id: Mapped[UUID | None]
    created_at: Mapped[created_at]


class ScheduleTick(Base):
    """One moment at which a schedule was due, and what became of it: a job, or the policy that left it out."""

    __tablename__ = "schedule_ticks"
    __table_args__ = (
        CheckConstraint("(task_id IS NULL) = (skipped IS NOT NULL)", name="a_job_or_a_reason"),
        CheckConstraint("skipped IN ('misfire', 'superseded', 'overlap', 'paused')", name="skipped"),
        Index(None, "created_at"),
    )

    schedule: Mapped[str] = mapped_column(ForeignKey(Schedule.name, ondelete="CASCADE"), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(primary_key=True)
    task_id: Mapped[UUID | None]
    skipped: Mapped[str | None]
    created_at: Mapped[created_at]
