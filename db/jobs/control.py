"""What people and services do to a job that is there: ask how it stands, cancel it, try it again, bury it.

Promise: what a person does is written down in the same transaction, with who did it. A job that has meanwhile moved on
is left alone: each row's state is looked at again under its lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from db.checks import checked_text
from db.errors import JobHasSuccessor, JobNotFound, JobNotMoved
from db.jobs.job import Job, JobState
from db.jobs.operators import record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.orm import Session

_RACES: Final = 5


class Verb(StrEnum):
    """What can be done to a job by hand."""

    RETRY = "retry"
    CANCEL = "cancel"
    BURY = "bury"


FROM: Final = {
    Verb.RETRY: (JobState.DEAD, JobState.CANCELLED),
    Verb.CANCEL: (JobState.READY, JobState.PUBLISHED, JobState.RUNNING),
    Verb.BURY: (JobState.READY, JobState.PUBLISHED),
}
"""The states in which a job can be retried, cancelled or buried."""

_DONE: Final = {Verb.RETRY: "retried", Verb.CANCEL: "cancelled", Verb.BURY: "buried"}

# In the order of their ids, so that two operators do not wait for each other.
_LOCK: Final = """
SELECT id FROM jobs WHERE id = ANY(:ids) AND state IN ({states}) ORDER BY id FOR NO KEY UPDATE"""
# The end of a job lets the next one of its key go. PostgreSQL leaves a row alone that a trigger has changed in the same
# statement, so those that are to end, too, must have nothing left that could be lifted.
_UNBLOCK: Final = text("UPDATE jobs SET blocked = false WHERE id = ANY(:ids) AND blocked")

# Of several with one dedupe_key only the oldest can go, and none while there is a live one. An `expires_at` that has
# passed would end the job again as soon as it is claimed.
_RETRY: Final = """
WITH free AS (
  SELECT min(id) AS id FROM jobs dead
   WHERE id = ANY(:ids)
     AND NOT EXISTS (SELECT FROM jobs live
                      WHERE live.dedupe_key = dead.dedupe_key AND NOT live.cancel_requested
                        AND live.state IN ('ready', 'published', 'running'))
   GROUP BY coalesce('key ' || dedupe_key, 'id ' || id)),
told AS (
  INSERT INTO job_attempts (job_id, attempt, outcome) SELECT id, attempt, 'retried' FROM jobs JOIN free USING (id)),
moved AS (
  UPDATE jobs
     SET state = 'ready', attempt = 0, available_at = statement_timestamp(), cancel_requested = false,
         publish_count = 0, expires_at = CASE WHEN expires_at > statement_timestamp() THEN expires_at END
    FROM free WHERE jobs.id = free.id
  RETURNING jobs.id)
SELECT count(*) FROM moved"""
_BURY: Final = """
WITH moved AS (UPDATE jobs SET state = 'dead' WHERE id = ANY(:ids) RETURNING id, attempt),
told AS (
  INSERT INTO job_attempts (job_id, attempt, outcome, error) SELECT id, attempt, 'buried', :error FROM moved)
SELECT count(*) FROM moved"""
_CANCEL: Final = """
WITH moved AS MATERIALIZED (SELECT id, attempt, harbor_cancel_v1(task_id) AS state FROM jobs WHERE id = ANY(:ids)),
told AS (
  INSERT INTO job_attempts (job_id, attempt, outcome, error)
  SELECT id, attempt, 'cancelled', :error FROM moved WHERE state = 'cancelled')
SELECT count(*) FROM moved"""
_STATEMENTS: Final = {Verb.RETRY: text(_RETRY), Verb.CANCEL: text(_CANCEL), Verb.BURY: text(_BURY)}
_LOCKS: Final = {
    verb: text(_LOCK.format(states=", ".join(f"'{state}'" for state in states))) for verb, states in FROM.items()
}

_STATUS: Final = text("SELECT * FROM harbor_job_v1(:task_id)")
_CANCEL_ONE: Final = text("SELECT harbor_cancel_v1(:task_id)")
_LIVE: Final = text("""
SELECT live.task_id FROM jobs JOIN jobs live
    ON live.dedupe_key = jobs.dedupe_key AND NOT live.cancel_requested
   AND live.state IN ('ready', 'published', 'running')
 WHERE jobs.id = :id""")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What who enqueued a job may know of it; `error` is that of its last attempt."""

    task: str
    queue: str
    state: JobState
    attempt: int
    max_attempts: int
    cancel_requested: bool
    error: str | None
    available_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def status(session: Session, task_id: UUID) -> JobStatus:
    """Return how a job stands. Raises JobNotFound when there is none of that id, or no longer."""
    row = session.execute(_STATUS, {"task_id": task_id}).mappings().one_or_none()
    if row is None:
        raise JobNotFound(task_id=task_id)
    return JobStatus(**{**row, "state": JobState(row["state"])})


def cancel(session: Session, task_id: UUID) -> JobState:
    """Cancel a job that has not started, ask one that runs to stop, and return its state, which `running` may be.

    One that has ended stays as it is. Raises JobNotFound when there is none of that id, or no longer.
    """
    state = session.execute(_CANCEL_ONE, {"task_id": task_id}).scalar_one()
    if state is None:
        raise JobNotFound(task_id=task_id)
    return JobState(state)


def act(session: Session, verb: Verb, task_id: UUID, actor: str) -> JobState:
    """Do one thing to one job, write down who did it, and return the job's state now.

    Args:
        session: the caller's; nothing is committed.
        verb: what to do. A job that is retried starts over, with all its attempts; of one that runs, `cancel` only asks
            for it to stop.
        task_id: the job's id.
        actor: who does it.

    Raises:
        InvalidText: actor is no name.
        JobHasSuccessor: it cannot be retried, since a newer job with its dedupe_key has not ended
            and was not asked to stop.
        JobNotFound: there is none of that id, or no longer.
        JobNotMoved: it is in a state in which that cannot be done.
    """
    found = session.execute(select(Job.id, Job.state).where(Job.task_id == task_id).with_for_update(key_share=True))
    row = found.one_or_none()
    if row is None:
        raise JobNotFound(task_id=task_id)
    if row.state not in FROM[verb]:
        raise JobNotMoved(task_id=task_id, state=row.state, wanted=" or ".join(FROM[verb]), done=_DONE[verb])
    if not move(session, verb, [row.id], actor):
        raise JobHasSuccessor(task_id=task_id, live_task_id=session.execute(_LIVE, {"id": row.id}).scalar_one())
    record(session, actor, f"jobs.{verb}", str(task_id), was=row.state)
    session.flush()
    return JobState(session.scalars(select(Job.state).where(Job.id == row.id)).one())


def move(session: Session, verb: Verb, ids: Sequence[int], actor: str) -> int:
    """Do one thing to those of some jobs to which it can still be done, and return to how many it was.

    A job whose dedupe_key a live one has is not retried. Whoever calls this writes it down.

    Raises:
        InvalidText: actor is no name.
    """
    told: dict[str, Any] = {"ids": list(session.scalars(_LOCKS[verb], {"ids": list(ids)}))}
    if verb is not Verb.RETRY:
        told["error"] = f"{_DONE[verb]} by {checked_text('actor', actor)}"
        session.execute(_UNBLOCK, told)
    for _ in range(_RACES):
        try:
            with session.begin_nested():
                return int(session.execute(_STATEMENTS[verb], told).scalar_one())
        except IntegrityError as error:
            # Somebody has just enqueued a job with the same dedupe_key. The next look sees it.
            if "uq_jobs_dedupe_key" not in str(error.orig):
                raise
            raced = error
    raise raced
