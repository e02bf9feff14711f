"""What a job is: its row, its states and the arrows between them.

Promise: the row is the job. It is written in its caller's transaction, and whatever Redis loses is published again from
it. The database itself refuses every arrow that is not in `ARROWS`, whoever draws it: the trigger `harbor_job_moves`
holds the same table, which a test compares with this one.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, SmallInteger, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.schema import STATEMENT_TIME, Base, bigint_identity, created_at


class JobState(StrEnum):
    """Where a job stands; `ARROWS` says how it got there and where it can go."""

    READY = "ready"
    PUBLISHED = "published"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"


ARROWS: Final[dict[tuple[JobState, JobState], str]] = {
    (JobState.READY, JobState.PUBLISHED): "A relay has leased it and sends its message.",
    (JobState.READY, JobState.DEAD): "An operator has buried it.",
    (JobState.READY, JobState.CANCELLED): "It was cancelled before it started.",
    (JobState.PUBLISHED, JobState.READY): "Nobody has started it for so long that its message may be lost.",
    (JobState.PUBLISHED, JobState.RUNNING): "A worker has claimed it.",
    (JobState.PUBLISHED, JobState.DEAD): "Its attempts are used up, or its arguments do not fit, or it was buried.",
    (JobState.PUBLISHED, JobState.CANCELLED): "It was cancelled, or too late, before it started.",
    (JobState.RUNNING, JobState.READY): "It failed and is tried again, or was given back, or its worker is lost.",
    (JobState.RUNNING, JobState.RUNNING): "Its worker is lost, and another one had its message and claimed it.",
    (JobState.RUNNING, JobState.DONE): "It is done, in the transaction of its effect.",
    (JobState.RUNNING, JobState.DEAD): "It failed for good, or for the last time.",
    (JobState.RUNNING, JobState.CANCELLED): "It was asked to stop, or answered that there is nothing to do.",
    (JobState.DEAD, JobState.READY): "An operator lets it be tried again.",
    (JobState.CANCELLED, JobState.READY): "An operator lets it be tried again.",
}
"""Every arrow, with what it means. All others are refused."""

ENDED: Final = (JobState.DONE, JobState.DEAD, JobState.CANCELLED)

_LIVE = "state IN ('ready', 'published', 'running')"
_IN_FLIGHT = "state IN ('published', 'running')"


class Job(Base):
    """One job. `available_at` is when it is due next: to be published when ready, and again when published.

    `attempt` counts how often it was claimed, and `publish_count` how often it was published since it last started. A
    row that is `blocked` waits for an older one of its `ordering_key`, and is in no index that a relay reads.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("state IN ('ready', 'published', 'running', 'done', 'dead', 'cancelled')", name="state"),
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        CheckConstraint("max_attempts > 0 AND attempt BETWEEN 0 AND max_attempts", name="attempts"),
        CheckConstraint("jsonb_typeof(args) = 'array' AND jsonb_typeof(kwargs) = 'object'", name="arguments"),
        CheckConstraint(
            "(state = 'running') = (lease_token IS NOT NULL) AND (state = 'running') = (lease_until IS NOT NULL)",
            name="leased_when_running",
        ),
        CheckConstraint(
            "(state IN ('done', 'dead', 'cancelled')) = (finished_at IS NOT NULL)", name="finished_when_ended"
        ),
        CheckConstraint("state <> 'published' OR published_at IS NOT NULL", name="published"),
        CheckConstraint("state NOT IN ('running', 'done') OR started_at IS NOT NULL AND attempt > 0", name="started"),
        CheckConstraint("NOT blocked OR state = 'ready' AND ordering_key IS NOT NULL", name="blocked_when_ready"),
        Index("uq_jobs_task_id", "task_id", unique=True),
        Index(
            "ix_jobs_ready",
            *("queue", "priority", "available_at", "id"),
            postgresql_where=text("state = 'ready' AND NOT blocked"),
        ),
        Index("ix_jobs_published", "queue", "available_at", postgresql_where=text("state = 'published'")),
        Index("ix_jobs_running", "queue", "lease_until", postgresql_where=text("state = 'running'")),
        Index(
            "uq_jobs_dedupe_key",
            "dedupe_key",
            unique=True,
            postgresql_where=text(f"dedupe_key IS NOT NULL AND NOT cancel_requested AND {_LIVE}"),
        ),
        Index(
            "uq_jobs_ordering_key_in_flight",
            "ordering_key",
            unique=True,
            postgresql_where=text(f"ordering_key IS NOT NULL AND {_IN_FLIGHT}"),
        ),
        Index(
            "ix_jobs_ordering_key_ready",
            *("ordering_key", "id"),
            postgresql_where=text("ordering_key IS NOT NULL AND state = 'ready'"),
        ),
        Index("ix_jobs_blocked", "ordering_key", "id", postgresql_where=text("blocked")),
        Index("ix_jobs_ended", "state", "finished_at", "id", postgresql_where=text("finished_at IS NOT NULL")),
        {
            # Each job changes its state three times, and each time it leaves an index: its dead row versions have to go
            # soon, or every poll steps over them.
            "postgresql_with": {
                "fillfactor": 80,
                "autovacuum_vacuum_scale_factor": 0.01,
                "autovacuum_vacuum_cost_delay": 0,
            }
        },
    )

    id: Mapped[bigint_identity]
    task_id: Mapped[UUID]
    task: Mapped[str]
    queue: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger)
    args: Mapped[list[Any]] = mapped_column(JSONB)
    kwargs: Mapped[dict[str, Any]] = mapped_column(JSONB)
    state: Mapped[str] = mapped_column(server_default=text("'ready'"))
    available_at: Mapped[datetime] = mapped_column(server_default=STATEMENT_TIME)
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(SmallInteger)
    lease_token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    dedupe_key: Mapped[str | None]
    ordering_key: Mapped[str | None]
    blocked: Mapped[bool] = mapped_column(server_default=text("false"))
    expires_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[created_at]
    published_at: Mapped[datetime | None]
    publish_count: Mapped[int] = mapped_column(server_default=text("0"))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobAttempt(Base):
    """How an attempt ended that did not end well, or what else happened to a job. Success leaves none."""

    __tablename__ = "job_attempts"
    __table_args__ = (Index(None, "job_id", "id"),)

    id: Mapped[bigint_identity]
    job_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(Job.id, ondelete="CASCADE"))
    attempt: Mapped[int] = mapped_column(SmallInteger)
    outcome: Mapped[str]
    error: Mapped[str | None]
    created_at: Mapped[created_at]
