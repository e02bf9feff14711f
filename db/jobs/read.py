"""What there is to know about jobs, read without a lock: page 1,000 of a list costs what page 1 does.

A filter that takes few of many jobs reads past the others, unless it names a state that few jobs are in: for an
operator's question, not for a request of the shop.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, text

from db.checks import checked_limit
from db.errors import JobNotFound
from db.jobs.filter import JobFilter
from db.jobs.job import Job, JobAttempt, JobState
from db.jobs.limits import QueueLimits, limits_of
from db.jobs.queue import OperatorAction

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.orm import Session

MAX_PAGE: Final = 1_000
_MOST_TOLD: Final = 50

_LATER = (Job.state == JobState.READY) & (Job.available_at > func.statement_timestamp())
_LOST = (Job.state == JobState.RUNNING) & (Job.lease_until <= func.statement_timestamp())

# The job that one with this key waits for: the one in flight, or else the oldest that is ready.
_HEAD: Final = text("""
SELECT task_id, state FROM jobs
 WHERE ordering_key = :key AND state IN ('published', 'running') AND id <> :id
UNION ALL
SELECT task_id, state FROM (
  SELECT task_id, state FROM jobs WHERE ordering_key = :key AND state = 'ready' AND id < :id ORDER BY id LIMIT 1) o
LIMIT 1""")
_IN_FLIGHT: Final = text("""
SELECT (SELECT count(*) FROM (SELECT FROM jobs WHERE state = 'published' AND queue = :queue LIMIT :most) p)
     + (SELECT count(*) FROM (SELECT FROM jobs WHERE state = 'running' AND queue = :queue LIMIT :most) r)""")
# By the index of what runs; those whose worker is lost keep nobody busy.
_RUNNING: Final = text("""
SELECT count(*), min(started_at)
  FROM (SELECT started_at FROM jobs
         WHERE state = 'running' AND queue = :queue AND lease_until > statement_timestamp()
         ORDER BY lease_until LIMIT 1000) r""")


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job in a list. `later` says of a ready one that it is not due yet, `lost` of a running one that its worker is.

    `error` is what was last written about an attempt.
    """

    task_id: UUID
    task: str
    queue: str
    state: JobState
    later: bool
    blocked: bool
    lost: bool
    cancel_requested: bool
    attempt: int
    max_attempts: int
    created_at: datetime
    available_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt ended that did not end well, or what else happened to a job."""

    attempt: int
    outcome: str
    error: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Action:
    """What a person did to this one job."""

    actor: str
    action: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Head:
    """The job of the same ordering key that has to end first."""

    task_id: UUID
    state: JobState


@dataclass(frozen=True, slots=True)
class JobDetails:
    """One job, whole, and what stands in its way; attempts and actions oldest first, the last 50.

    `head` is the job that it waits for by its ordering key. `in_flight` counts the published and running jobs of its
    queue, as far as that is limited. `running` counts what workers do of the queue, to 1,000, and `oldest_started_at`
    is the longest of it; of a published job only. The arguments are in no repr, since they may be personal.
    """

    task_id: UUID
    task: str
    queue: str
    state: JobState
    later: bool
    lost: bool
    blocked: bool
    cancel_requested: bool
    priority: int
    attempt: int
    max_attempts: int
    dedupe_key: str | None
    ordering_key: str | None
    created_at: datetime
    available_at: datetime
    published_at: datetime | None
    publish_count: int
    started_at: datetime | None
    lease_until: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    now: datetime
    args: list[Any] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    head: Head | None
    limits: QueueLimits
    in_flight: int | None
    running: int | None
    oldest_started_at: datetime | None
    attempts: list[Attempt]
    actions: list[Action]


_COLUMNS: Final = tuple(
    each.name for each in fields(JobDetails) if each.name in Job.__mapper__.columns and each.name != "state"
)


def page(
    session: Session, wanted: JobFilter | None = None, *, limit: int = 50, after: UUID | None = None
) -> list[ListedJob]:
    """Return jobs, newest first: at most `limit`, and those behind `after`, the last id of a former page.

    Ids are in the order in which they were given, so a page can also go on behind a job that is gone.

    Args:
        session: any session; nothing is locked.
        wanted: which jobs; all unless given.
        limit: 1 to 1,000.
        after: where the page before ended.

    Raises:
        InvalidInput: limit or a field of the filter is out of range.
    """
    conditions = (wanted or JobFilter()).conditions()
    if after is not None:
        conditions.append(Job.task_id < after)
    error = (
        select(JobAttempt.error)
        .where(JobAttempt.job_id == Job.id)
        .order_by(JobAttempt.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    found = session.execute(
        select(
            *(Job.task_id, Job.task, Job.queue, Job.state, _LATER.label("later"), Job.blocked),
            *(func.coalesce(_LOST, False).label("lost"), Job.cancel_requested, Job.attempt, Job.max_attempts),
            *(Job.created_at, Job.available_at, Job.started_at, Job.finished_at, error.label("error")),
        )
        .where(*conditions)
        .order_by(Job.task_id.desc())
        .limit(checked_limit("limit", limit, most=MAX_PAGE))
    )
    return [ListedJob(**{**row, "state": JobState(row["state"])}) for row in found.mappings()]


def show(session: Session, task_id: UUID) -> JobDetails:
    """Return one job with its attempts, what people did to it, and what it waits for.

    Raises:
        JobNotFound: there is none of that id, or no longer.
    """
    found = session.execute(
        select(Job, _LATER, func.coalesce(_LOST, False), func.statement_timestamp()).where(Job.task_id == task_id)
    ).one_or_none()
    if found is None:
        raise JobNotFound(task_id=task_id)
    job, later, lost, now = found
    limits = limits_of(session, job.queue)
    running, oldest = None, None
    if job.state == JobState.PUBLISHED:
        running, oldest = session.execute(_RUNNING, {"queue": job.queue}).one()
    return JobDetails(
        **{name: getattr(job, name) for name in _COLUMNS},
        state=JobState(job.state),
        later=later,
        lost=lost,
        now=now,
        head=_head(session, job),
        limits=limits,
        in_flight=_in_flight(session, job.queue, limits),
        running=running,
        oldest_started_at=oldest,
        attempts=_attempts(session, job.id),
        actions=_actions(session, task_id),
    )


def _head(session: Session, job: Job) -> Head | None:
    if job.ordering_key is None or job.state != JobState.READY:
        return None
    row = session.execute(_HEAD, {"key": job.ordering_key, "id": job.id}).first()
    return None if row is None else Head(row.task_id, JobState(row.state))


def _in_flight(session: Session, queue: str, limits: QueueLimits) -> int | None:
    if limits.max_in_flight is None:
        return None
    return int(session.execute(_IN_FLIGHT, {"queue": queue, "most": limits.max_in_flight}).scalar_one())


def _attempts(session: Session, job_id: int) -> list[Attempt]:
    told = select(JobAttempt.attempt, JobAttempt.outcome, JobAttempt.error, JobAttempt.created_at)
    rows = session.execute(told.where(JobAttempt.job_id == job_id).order_by(JobAttempt.id.desc()).limit(_MOST_TOLD))
    return [Attempt(*row) for row in rows][::-1]


def _actions(session: Session, task_id: UUID) -> list[Action]:
    told = select(OperatorAction.actor, OperatorAction.action, OperatorAction.created_at)
    about = told.where(OperatorAction.subject == str(task_id))
    rows = session.execute(about.order_by(OperatorAction.id.desc()).limit(_MOST_TOLD))
    return [Action(*row) for row in rows][::-1]
