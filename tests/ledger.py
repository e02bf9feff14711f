"""What tests do with the ledger besides enqueuing: make a task known to it, look at rows, and turn its clock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from db import jobs
from db.session import snapshot, transaction

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy import Row

REPUBLISH_SECONDS = 10.0
LEASE_SECONDS = 30.0


def make_type(
    task: str = "sample.count",
    *,
    queue: str = "default",
    priority: int = 6,
    max_attempts: int = 20,
    **parameters: list[str],
) -> str:
    """Make a task known to the database, with required parameters and their JSON types, and return its name."""
    told = [{"name": n, "kind": "positional", "types": t, "required": True} for n, t in parameters.items()]
    statement = text("""
INSERT INTO job_types (task, queue, priority, max_attempts, parameters)
VALUES (:task, :queue, :priority, :max_attempts, CAST(:parameters AS jsonb))
ON CONFLICT (task) DO UPDATE SET queue = excluded.queue, priority = excluded.priority,
  max_attempts = excluded.max_attempts, parameters = excluded.parameters""")
    with transaction() as session:
        session.execute(
            statement,
            {
                "task": task,
                "queue": queue,
                "priority": priority,
                "max_attempts": max_attempts,
                "parameters": json.dumps(told),
            },
        )
    return task


def put(task: str = "sample.count", *args: Any, **options: Any) -> UUID:
    """Enqueue a job in a transaction of its own and return its id."""
    with transaction() as session:
        return jobs.enqueue(session, task, *args, **options)


def lease(limit: int = jobs.LEASE_LIMIT) -> list[jobs.Message]:
    """Lease what is due, as a relay does."""
    with transaction() as session:
        return jobs.lease(session, REPUBLISH_SECONDS, limit)


def claim(task_id: UUID, task: str = "sample.count", lease_seconds: float = LEASE_SECONDS) -> jobs.Claim | None:
    """Claim a published job, as a worker does."""
    with transaction() as session:
        return jobs.claim(session, task_id, task, lease_seconds)


def row(task_id: UUID) -> Row[Any]:
    """Every column of a job's row."""
    with snapshot() as session:
        return session.execute(text("SELECT * FROM jobs WHERE task_id = :id"), {"id": task_id}).one()


def state(task_id: UUID) -> str:
    """The state of a job."""
    return str(row(task_id).state)


def attempts(task_id: UUID) -> list[tuple[int, str, str | None]]:
    """What is written about a job's attempts: number, outcome, error; oldest first."""
    statement = text("""
SELECT a.attempt, a.outcome, a.error FROM job_attempts a JOIN jobs j ON j.id = a.job_id
 WHERE j.task_id = :id ORDER BY a.id""")
    with snapshot() as session:
        return [(attempt, outcome, error) for attempt, outcome, error in session.execute(statement, {"id": task_id})]


def pass_time(task_id: UUID, by: timedelta) -> None:
    """Make a job's moments so much earlier, which is as if that much time had passed for it."""
    statement = text("""
UPDATE jobs SET available_at = available_at - :by, lease_until = lease_until - :by, expires_at = expires_at - :by,
                created_at = created_at - :by, finished_at = finished_at - :by
 WHERE task_id = :id""")
    with transaction() as session:
        session.execute(statement, {"id": task_id, "by": by})
