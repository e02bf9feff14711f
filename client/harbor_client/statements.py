"""The statements: each calls one of Harbor's functions, which hold all the rules.

They are ordinary SELECTs of SQLAlchemy. Whoever executes them decides on the transaction, and nothing here opens,
commits or rolls back one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import Boolean, DateTime, Integer, Select, Text, Uuid, cast, column, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB

from harbor_client.refusal import InvalidJob
from harbor_client.request import Request, request

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement


UNSET: Final[Any] = object()
"""The default of an argument that a caller may leave out: then the task's own default counts, where it runs."""


class Enqueue(Select[UUID]):
    """One job as a statement: execute it, or hand several to `enqueue_many`."""

    inherit_cache = True

    def __init__(self, job: Request) -> None:
        told = (literal(job.task, Text), _jsonb(job.args), _jsonb(job.kwargs), _jsonb(job.options))
        super().__init__(func.harbor_enqueue_v1(*told, type_=Uuid()).label("task_id"))
        self.request = job


def enqueue(
    task: str,
    *args: Any,
    delay: timedelta | float | None = None,
    at: datetime | None = None,
    priority: int | None = None,
    dedupe_key: str | None = None,
    ordering_key: str | None = None,
    max_attempts: int | None = None,
    expires: timedelta | float | None = None,
    **kwargs: Any,
) -> Enqueue:
    """Return the statement that writes a job; `session.execute(…).scalar_one()` is the job's id.

    The functions in `harbor_client.tasks` make the same statement and know what each task takes.

    Args:
        task: its name, such as `reservations.release`.
        args: by place, JSON values.
        delay: how long the job waits, a timedelta or seconds; at most a year.
        at: when it is due, with a time zone; instead of `delay`.
        priority: 0 goes first, 9 last.
        dedupe_key: while a job with this key has not ended, its id is returned and nothing is written. Whoever enqueues
            the same key at the same moment waits until this transaction ends.
        ordering_key: jobs of one key run one at a time, in the order in which their transactions commit: who enqueues
            the same key at the same moment waits until this transaction ends.
        max_attempts: how often it is started at most, 1 to 1,000.
        expires: counted from now, after which it is not started any more; a timedelta or seconds.
        kwargs: by name, JSON values.

    Raises:
        InvalidJob: a value cannot be sent. What the database refuses is raised when it is executed: see `refusals`.
    """
    options = {
        "delay": delay,
        "at": at,
        "priority": priority,
        "dedupe_key": dedupe_key,
        "ordering_key": ordering_key,
        "max_attempts": max_attempts,
        "expires": expires,
    }
    given = {name: value for name, value in kwargs.items() if value is not UNSET}
    return Enqueue(request(task, args, given, options))


def enqueue_many(jobs: Iterable[Enqueue]) -> Select[UUID]:
    """Return one statement that writes up to 10,000 jobs, all or none; `.scalars().all()` are their ids in order.

    Args:
        jobs: what `enqueue`, or a function of `harbor_client.tasks`, returned.

    Raises:
        InvalidJob: one of them is something else.
    """
    if not isinstance(jobs, Iterable):
        raise InvalidJob("?", "jobs", "must be a list of what enqueue() returns")
    told = []
    for place, job in enumerate(jobs):
        if not isinstance(job, Enqueue):
            raise InvalidJob("?", f"jobs[{place}]", "must be what enqueue() returns")
        told.append(job.request.as_json())
    return select(func.harbor_enqueue_many_v1(_jsonb(f"[{','.join(told)}]"), type_=Uuid()).label("task_id"))


def job(task_id: UUID | str) -> Select[str, str, str, int, int, bool, str | None, datetime, datetime, Any, Any]:
    """Return the statement that tells about a job; `.one_or_none()` has a row, or None when there is no such job.

    Its columns: task, queue, state (ready, published, running, done, dead or cancelled), attempt, max_attempts,
    cancel_requested, error (of its newest attempt that failed), available_at, created_at, started_at, finished_at.

    Raises:
        InvalidJob: `task_id` is no UUID.
    """
    told = func.harbor_job_v1(_id(task_id)).table_valued(
        column("task", Text),
        column("queue", Text),
        column("state", Text),
        column("attempt", Integer),
        column("max_attempts", Integer),
        column("cancel_requested", Boolean),
        column("error", Text),
        column("available_at", DateTime(timezone=True)),
        column("created_at", DateTime(timezone=True)),
        column("started_at", DateTime(timezone=True)),
        column("finished_at", DateTime(timezone=True)),
    )
    return select(*told.c)


def cancel(task_id: UUID | str) -> Select[str | None]:
    """Return the statement that stops a job; `.scalar_one()` is its state then, or None when there is no such job.

    `cancelled` is a job that had not started. One that is `running` is asked to stop; ask `job` how it ended. `done`
    and `dead` stay what they are.

    Raises:
        InvalidJob: `task_id` is no UUID.
    """
    return select(func.harbor_cancel_v1(_id(task_id), type_=Text()).label("state"))


def _jsonb(value: str) -> ColumnElement[Any]:
    # As text, so that the JSON serializer of the service's engine has no say in it.
    return cast(literal(value, Text), JSONB)


def _id(task_id: UUID | str) -> ColumnElement[UUID]:
    try:
        known = task_id if isinstance(task_id, UUID) else UUID(task_id)
    except (ValueError, AttributeError, TypeError):
        raise InvalidJob("?", "task_id", "must be the UUID of a job") from None
    return literal(known, Uuid())
