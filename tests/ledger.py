"""What tests do with the ledger besides enqueuing: make a task known to it, look at rows, and turn its clock."""

from __future__ import annotations

import json
from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from db import jobs
from db.session import snapshot, task_scope, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy import Row

T = TypeVar("T")

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
        return jobs.claim(session.connection(), task_id, task, lease_seconds)


def claimed(task: str = "sample.count", *args: Any, lease_seconds: float = LEASE_SECONDS, **options: Any) -> jobs.Claim:
    """A new job that a worker has just claimed."""
    task_id = put(task, *args, **options)
    lease()
    taken = claim(task_id, task, lease_seconds)
    assert taken is not None
    return taken


@contextmanager
def attempt(taken: jobs.Claim, *, repeatable: bool = False) -> Iterator[None]:
    """Be a worker that runs a claimed job during the block."""
    with task_scope(taken.task, repeatable=repeatable) as scope:
        scope.claim = taken
        yield


def elsewhere(call: Callable[[], T]) -> T:
    """Call something as another process does in the middle of this one's task."""
    return Context().run(call)


def act(session: Session, task_id: UUID) -> None:
    """Have the effect of a job: a row that a test can count."""
    written = "INSERT INTO operator_actions (actor, action, subject) VALUES ('job', 'effect', :id)"
    session.execute(text(written), {"id": str(task_id)})


def have_effect(taken: jobs.Claim, then: Callable[[], object] = lambda: None) -> None:
    """Have the effect, and do something else before the transaction ends."""
    with transaction() as session:
        act(session, taken.task_id)
        then()


def taken_over(taken: jobs.Claim) -> jobs.Claim:
    """Another worker has the job now."""
    run_out(taken)
    other = elsewhere(lambda: claim(taken.task_id, taken.task))
    assert other is not None
    return other


def run_by(taken: jobs.Claim) -> None:
    """Be the worker that runs it, from its effect to its end."""
    with attempt(taken):
        have_effect(taken)


@contextmanager
def before_commit(do: Callable[[Session], object]) -> Iterator[None]:
    """Let something happen once, after the last statement of the next transaction and before its COMMIT."""
    listening = [do]

    def once(session: Session) -> None:
        if listening:
            listening.pop()(session)

    event.listen(Session, "before_commit", once)
    try:
        yield
    finally:
        event.remove(Session, "before_commit", once)


def effects(task_id: UUID) -> int:
    """How often the effect of a job was committed."""
    with snapshot() as session:
        counted = "SELECT count(*) FROM operator_actions WHERE action = 'effect' AND subject = :id"
        return int(session.execute(text(counted), {"id": str(task_id)}).scalar_one())


def run_out(taken: jobs.Claim) -> None:
    """Let the lease of a claim be over."""
    with transaction() as session:
        over = "UPDATE jobs SET lease_until = statement_timestamp() - interval '1 second' WHERE lease_token = :token"
        assert session.execute(text(over), {"token": taken.token}).rowcount == 1  # type: ignore[attr-defined]


def sweep() -> jobs.Swept:
    """Sweep, as a relay does."""
    with transaction() as session:
        return jobs.sweep(session)


def request_cancel(task_id: UUID) -> str | None:
    """Cancel a job as whoever enqueued it may, and return its state then."""
    with transaction() as session:
        found: str | None = session.execute(text("SELECT harbor_cancel_v1(:id)"), {"id": task_id}).scalar_one()
        return found


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


def replace_in_function(name: str, guard: str, instead: str) -> None:
    """Define a function of the ledger again with other words in one place, in a database of the test's own."""
    statement = text("SELECT pg_get_functiondef(CAST(:name AS regproc))")
    with transaction() as session:
        source = str(session.execute(statement, {"name": name}).scalar_one())
        assert source.count(guard) == 1, f"{name} no longer says {guard!r} once"
        session.connection().exec_driver_sql(source.replace(guard, instead))


def buried(task: str = "sample.count", *args: Any, error: str = "for good", **options: Any) -> UUID:
    """A job that has failed for good at its first attempt."""
    taken = claimed(task, *args, **options)
    with transaction() as session:
        jobs.bury(session, taken, error)
    return taken.task_id


def operator_actions() -> list[tuple[Any, ...]]:
    """What is written down of people: actor, action, subject, details; oldest first."""
    with snapshot() as session:
        told = text("SELECT actor, action, subject, details FROM operator_actions ORDER BY id")
        return [tuple(row) for row in session.execute(told)]


def fill(count: int, state: str, *, task: str = "sample.count", ended_ago: str = "0 s", attempts: int = 0) -> None:
    """Write many jobs in a state at once, each a millisecond older than the next, with so many failed attempts."""
    statement = text("""
WITH filled AS (
  INSERT INTO jobs (task_id, task, queue, priority, args, kwargs, state, available_at, attempt, max_attempts,
                    published_at, publish_count, started_at, finished_at, lease_token, lease_until, created_at)
  SELECT harbor_uuid7(), :task, 'default', 6, '[]', '{}', :state, at, 1, 20,
         at, 1, at, CASE WHEN :state IN ('done', 'dead', 'cancelled') THEN at END,
         CASE WHEN :state = 'running' THEN gen_random_uuid() END,
         CASE WHEN :state = 'running' THEN statement_timestamp() + interval '1 hour' END, at
    FROM generate_series(1, :count) AS n,
         LATERAL (SELECT statement_timestamp() - CAST(:ago AS interval) - (:count - n) * interval '1 ms' AS at) m
  RETURNING id)
INSERT INTO job_attempts (job_id, attempt, outcome, error)
SELECT id, 1, 'failed', 'because' FROM filled, generate_series(1, :attempts)""")
    told = {"count": count, "state": state, "task": task, "ago": ended_ago, "attempts": attempts}
    with transaction() as session:
        session.execute(statement, told)
