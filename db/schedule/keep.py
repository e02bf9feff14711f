"""Which schedules there are: those that code declares, and those that operators add, pause and remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from db import jobs
from db.errors import ScheduleDeclared, ScheduleExists, ScheduleNotFound
from db.schedule.tick import FROZEN_MS, LOCK_AND_WAIT, settle

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from db.schedule.declaration import Declaration

_COLUMNS: Final = """
(name, task, args, kwargs, options, every_seconds, crontab, timezone, misfire_grace_seconds, catch_up, overlap, source)
VALUES (:name, :task, CAST(:args AS jsonb), CAST(:kwargs AS jsonb), CAST(:options AS jsonb), :every_seconds, :crontab,
        :timezone, :misfire_grace_seconds, :catch_up, :overlap, :source)"""

# With another rule the schedule starts anew: by the new one, much of the time before would be full of missed ticks.
_KEEP: Final = text(f"""
INSERT INTO schedules {_COLUMNS}
ON CONFLICT (name) DO UPDATE
   SET task = excluded.task, args = excluded.args, kwargs = excluded.kwargs, options = excluded.options,
       every_seconds = excluded.every_seconds, crontab = excluded.crontab, timezone = excluded.timezone,
       misfire_grace_seconds = excluded.misfire_grace_seconds, catch_up = excluded.catch_up, overlap = excluded.overlap,
       last_due_at = CASE WHEN (schedules.every_seconds, schedules.crontab, schedules.timezone)
                               IS DISTINCT FROM (excluded.every_seconds, excluded.crontab, excluded.timezone)
                          THEN greatest(schedules.last_due_at, statement_timestamp()) ELSE schedules.last_due_at END
 WHERE schedules.source = 'code'
   AND (schedules.task, schedules.args, schedules.kwargs, schedules.options, schedules.every_seconds, schedules.crontab,
        schedules.timezone, schedules.misfire_grace_seconds, schedules.catch_up, schedules.overlap)
       IS DISTINCT FROM
       (excluded.task, excluded.args, excluded.kwargs, excluded.options, excluded.every_seconds, excluded.crontab,
        excluded.timezone, excluded.misfire_grace_seconds, excluded.catch_up, excluded.overlap)
RETURNING name""")  # noqa: S608 - a constant of this file
_DROP: Final = text("DELETE FROM schedules WHERE source = 'code' AND name <> ALL (:names) RETURNING name")
_TAKEN: Final = text("SELECT name FROM schedules WHERE source = 'operator' AND name = ANY (:names) ORDER BY name")
_ADD: Final = text(f"INSERT INTO schedules {_COLUMNS} ON CONFLICT (name) DO NOTHING RETURNING name")
_REMOVE: Final = text("DELETE FROM schedules WHERE name = :name")
_PAUSE: Final = text("UPDATE schedules SET paused = :paused WHERE name = :name")


@dataclass(frozen=True, slots=True)
class Kept:
    """What `keep` did: names that were written, that are gone, and that an operator's schedule has."""

    written: tuple[str, ...]
    dropped: tuple[str, ...]
    taken: tuple[str, ...]


def keep(session: Session, declared: Sequence[Declaration], also: Collection[str] = ()) -> Kept:
    """Make the schedules of source `code` those that are declared. Pauses stay, and so do those of operators.

    A schedule that is new, or whose rule has changed, starts now.

    Args:
        session: the caller's; nothing is committed.
        declared: all that there are to be; of one name that an operator's has, the operator's stays.
        also: names of others that stay as they are.
    """
    names = sorted({*also, *(one.name for one in declared)})
    taken = tuple(session.scalars(_TAKEN, {"names": names}))
    written: list[str] = []
    # In one order, so that two that do this at the same time wait for each other in one direction only.
    for one in sorted(declared, key=lambda one: one.name):
        written += session.scalars(_KEEP, {**one.columns(), "source": "code"})
    dropped = tuple(session.scalars(_DROP, {"names": names}))
    return Kept(tuple(written), dropped, taken)


def add(session: Session, declaration: Declaration) -> None:
    """Add an operator's schedule. Its first due time is the first one after now.

    Raises:
        InvalidJob: the task is unknown, or its arguments or options do not fit.
        InvalidSchedule: something else about it is not JSON.
        ScheduleExists: there is one of this name.
    """
    if not session.scalars(_ADD, {**declaration.columns(), "source": "operator"}).all():
        raise ScheduleExists(name=declaration.name)
    # A job that cannot be enqueued is better refused now than at each tick.
    with session.begin_nested() as tried:
        _enqueue(session, _locked(session, declaration.name))
        tried.rollback()


def remove(session: Session, name: str) -> None:
    """Remove an operator's schedule and what is known of its ticks. Jobs that it enqueued stay.

    Raises:
        ScheduleDeclared: it is celeryconfig's, and the next Beat that starts would bring it back.
        ScheduleNotFound: there is none of this name.
    """
    if _locked(session, name).source == "code":
        raise ScheduleDeclared(name=name)
    session.execute(_REMOVE, {"name": name})


def pause(session: Session, name: str) -> bool:
    """Let a schedule's ticks be left out until it is resumed; returns whether it was not paused. ScheduleNotFound."""
    row = _locked(session, name)
    session.execute(_PAUSE, {"name": name, "paused": True})
    return not row.paused


def resume(session: Session, name: str) -> bool:
    """Let a schedule go on with its next tick; returns whether it was paused.

    What was due until now counts as left out by the pause, also when no Beat ran meanwhile.

    Raises:
        ScheduleNotFound: there is none of this name.
    """
    row = _locked(session, name)
    if not row.paused:
        return False
    while settle(session, row, row.now).more:
        row = _locked(session, name)
    session.execute(_PAUSE, {"name": name, "paused": False})
    return True


def run_now(session: Session, name: str) -> UUID:
    """Enqueue a schedule's job once more, now and whatever its policies say; returns the job's id. It is no tick.

    Raises:
        InvalidJob: its task is unknown by now, or its arguments or options do not fit.
        ScheduleNotFound: there is none of this name.
    """
    return _enqueue(session, _locked(session, name))


def _enqueue(session: Session, row: Row[Any]) -> UUID:
    return jobs.enqueue(session, row.task, *row.args, **row.options, **row.kwargs)


def _locked(session: Session, name: str) -> Row[Any]:
    row = session.execute(LOCK_AND_WAIT, {"name": name, "frozen_ms": str(FROZEN_MS)}).one_or_none()
    if row is None:
        raise ScheduleNotFound(name=name)
    return row
