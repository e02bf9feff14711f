"""Which jobs an operator means: the same filter for a list and for what is done to many."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, func, select, text

from db.checks import checked_text
from db.errors import InvalidAge, InvalidState, shown
from db.jobs.job import Job, JobState
from db.jobs.kinds import JobType

if TYPE_CHECKING:
    from sqlalchemy import TextClause
    from sqlalchemy.orm import Session

_LONGEST: Final = timedelta(days=36_500)

# Written out, and not bound, since that is how PostgreSQL can tell that a partial index holds all of them.
_STATES: Final = {
    JobState.READY: "state = 'ready' AND NOT blocked OR state = 'ready' AND blocked",
    JobState.PUBLISHED: "state = 'published'",
    JobState.RUNNING: "state = 'running'",
    JobState.DONE: "state = 'done' AND finished_at IS NOT NULL",
    JobState.DEAD: "state = 'dead' AND finished_at IS NOT NULL",
    JobState.CANCELLED: "state = 'cancelled' AND finished_at IS NOT NULL",
}


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Jobs of a task, of a queue, in one of some states, and made longer ago than one time and not than another.

    What is None, and no state at all, is every job. A job's age is counted from when it was enqueued.
    """

    task: str | None = None
    queue: str | None = None
    states: tuple[JobState, ...] = ()
    older_than: timedelta | None = None
    newer_than: timedelta | None = None

    def conditions(self) -> list[ColumnElement[bool] | TextClause]:
        """Return what a job's row has to fulfil.

        Raises:
            InvalidInput: a field is out of range; the error names it.
        """
        wanted: list[ColumnElement[bool] | TextClause] = []
        if self.task is not None:
            wanted.append(Job.task == checked_text("task", self.task))
        if self.queue is not None:
            wanted.append(Job.queue == checked_text("queue", self.queue))
        if self.states:
            wanted.append(text(f"({' OR '.join(_STATES[_checked_state(state)] for state in self.states)})"))
        now = func.statement_timestamp()
        if self.older_than is not None:
            wanted.append(Job.created_at < now - _checked_age("older_than", self.older_than))
        if self.newer_than is not None:
            wanted.append(Job.created_at >= now - _checked_age("newer_than", self.newer_than))
        return wanted

    def told(self) -> dict[str, Any]:
        """Return what is filtered by, for the record; ages in seconds."""
        return {
            name: value
            for name, value in {
                "task": self.task,
                "queue": self.queue,
                "states": [state.value for state in self.states] or None,
                "older_than_seconds": None if self.older_than is None else self.older_than.total_seconds(),
                "newer_than_seconds": None if self.newer_than is None else self.newer_than.total_seconds(),
            }.items()
            if value is not None
        }


def known_tasks(session: Session) -> list[str]:
    """Return the names of the tasks that the database knows."""
    return list(session.scalars(select(JobType.task).order_by(JobType.task)))


def _checked_state(state: object) -> JobState:
    try:
        return JobState(state)  # type: ignore[arg-type] # whatever it is, the enumeration says whether it is one
    except ValueError:
        raise InvalidState(field="states", states=", ".join(JobState), value=shown(state)) from None


def _checked_age(field: str, age: object) -> timedelta:
    if not isinstance(age, timedelta) or not timedelta(0) <= age <= _LONGEST:
        raise InvalidAge(field=field, value=shown(age))
    return age
