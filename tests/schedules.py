"""What tests do with schedules: make one on a clock of the test's own, let Beats look at it, and see what they did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from db import schedule
from db.schedule import Declaration
from db.session import transaction
from tests import ledger
from tests.db.sql import change, rows

if TYPE_CHECKING:
    from uuid import UUID

    from db.schedule import Ticked

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
"""When the schedules of these tests were made, on their own clock."""


def at(seconds: float) -> datetime:
    """The moment so many seconds after START."""
    return START + timedelta(seconds=seconds)


def since_start(name: str) -> None:
    """Let a schedule be one that was made at START and has not ticked."""
    change("UPDATE schedules SET created_at = :start, last_due_at = NULL WHERE name = :name", start=START, name=name)


def make(name: str = "counts", *, every: float | None = 10.0, **told: Any) -> str:
    """A schedule of an operator's that was made at START, and its name."""
    ledger.make_type()
    with transaction() as session:
        schedule.add(session, Declaration(name, "sample.count", every_seconds=every, **told))
    since_start(name)
    return name


def tick(seconds: float, name: str = "counts") -> Ticked | None:
    """Let a Beat decide what is due so many seconds after START."""
    with transaction() as session:
        return schedule.tick(session, name, at(seconds))


def ticks(name: str = "counts") -> list[tuple[float, str]]:
    """When each tick was due, in seconds after START, and what became of it."""
    query = "SELECT due_at, coalesce(skipped, 'job') FROM schedule_ticks WHERE schedule = :name ORDER BY due_at"
    return [((due - START).total_seconds(), what) for due, what in rows(query, name=name)]


def jobs_of(task: str = "sample.count") -> list[UUID]:
    """The ids of a task's jobs, oldest first."""
    return [task_id for (task_id,) in rows("SELECT task_id FROM jobs WHERE task = :task ORDER BY id", task=task)]
