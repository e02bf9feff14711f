"""What there is to know about schedules: when each is due next, and what became of its last tick."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from db.errors import HarborError, ScheduleNotFound
from db.schedule.rule import next_due, rule_of

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

OVERDUE_SECONDS: Final = 30.0
"""A due time that is older and not decided says that no Beat runs, or that none can decide it."""

_LISTED: Final = """
SELECT s.*, coalesce(s.last_due_at, s.created_at) AS decided_until, statement_timestamp() AS now,
       t.due_at AS tick_due_at, t.skipped, t.task_id, j.state
  FROM schedules s
  LEFT JOIN LATERAL (
    SELECT due_at, skipped, task_id FROM schedule_ticks WHERE schedule = s.name ORDER BY due_at DESC LIMIT 1) t ON true
  LEFT JOIN jobs j ON j.task_id = t.task_id"""
_ALL: Final = text(f"{_LISTED} ORDER BY s.name")
_ONE: Final = text(f"{_LISTED} WHERE s.name = :name")


@dataclass(frozen=True, slots=True)
class ListedSchedule:
    """A schedule with its next and its last tick.

    `next_due_at` is empty for one that never comes again, or whose row says no rule. `last_skipped` says why the last
    tick made no job; `last_job_state` is that of the job it made, and empty when the job has been pruned.
    """

    name: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    every_seconds: float | None
    crontab: str | None
    timezone: str
    misfire_grace_seconds: float
    catch_up: str
    overlap: str
    paused: bool
    source: str
    created_at: datetime
    next_due_at: datetime | None
    overdue: bool
    last_due_at: datetime | None
    last_skipped: str | None
    last_task_id: UUID | None
    last_job_state: str | None


def listed(session: Session) -> list[ListedSchedule]:
    """Return all schedules by name. Nothing is locked."""
    return [_listed(row) for row in session.execute(_ALL)]


def show(session: Session, name: str) -> ListedSchedule:
    """Return one schedule. Raises ScheduleNotFound."""
    row = session.execute(_ONE, {"name": name}).one_or_none()
    if row is None:
        raise ScheduleNotFound(name=name)
    return _listed(row)


def overdue(session: Session) -> list[ListedSchedule]:
    """Return the schedules of which a tick should have been decided OVERDUE_SECONDS ago: no Beat runs, or none can."""
    return [one for one in listed(session) if one.overdue]


def _listed(row: Row[Any]) -> ListedSchedule:
    try:
        coming = next_due(rule_of(row.name, row.every_seconds, row.crontab, row.timezone), row.decided_until)
    except HarborError:
        coming = None
    return ListedSchedule(
        name=row.name,
        task=row.task,
        args=row.args,
        kwargs=row.kwargs,
        options=row.options,
        every_seconds=row.every_seconds,
        crontab=row.crontab,
        timezone=row.timezone,
        misfire_grace_seconds=row.misfire_grace_seconds,
        catch_up=row.catch_up,
        overlap=row.overlap,
        paused=row.paused,
        source=row.source,
        created_at=row.created_at,
        next_due_at=coming,
        overdue=coming is not None and coming < row.now - timedelta(seconds=OVERDUE_SECONDS),
        last_due_at=row.tick_due_at,
        last_skipped=row.skipped,
        last_task_id=row.task_id,
        last_job_state=row.state,
    )
