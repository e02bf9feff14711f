"""Ticking: what is due becomes jobs, each tick in one transaction with its job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import structlog
from sqlalchemy import text

from db import jobs
from db.errors import HarborError
from db.schedule.policy import Policy
from db.schedule.rule import Rule, due_times, next_due, rule_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

log = structlog.get_logger()

MOST_TICKS: Final = 1_000
"""So many ticks of a schedule are decided in one transaction; after a long outage the next one takes the next."""

FROZEN_MS: Final = 5_000
"""A Beat that says nothing for so long in the middle of a tick loses its transaction, and the others go on."""

STEP_BACK_SECONDS: Final = 60.0
"""A clock that was set back by less is waited for."""

_MOST_FORGOTTEN: Final = 10_000

_SCHEDULES: Final = text("""
SELECT name, every_seconds, crontab, timezone, coalesce(last_due_at, created_at) AS decided_until,
       statement_timestamp() AS now
  FROM schedules""")

# The row is locked by its newest version, so what another Beat has decided is seen. Ticks behind `decided_until` are
# there only when somebody has turned that back.
_LOCK: Final = """
SELECT s.*, coalesce(s.last_due_at, s.created_at) AS decided_until, statement_timestamp() AS now,
       set_config('idle_in_transaction_session_timeout', :frozen_ms, true),
       ARRAY(SELECT due_at FROM schedule_ticks t
              WHERE t.schedule = s.name AND t.due_at > coalesce(s.last_due_at, s.created_at)
              ORDER BY due_at LIMIT 10000) AS known
  FROM schedules s WHERE s.name = :name FOR NO KEY UPDATE OF s"""
_LOCK_IF_FREE: Final = text(f"{_LOCK} SKIP LOCKED")
LOCK_AND_WAIT: Final = text(_LOCK)

# A job that has expired is not started any more: it has ended, though no worker has said so yet. That bounds how long
# one that was lost, fails, or waits in a paused queue keeps its schedule from running.
_BUSY: Final = text("""
SELECT EXISTS (
  SELECT FROM jobs
   WHERE task_id = :task_id
     AND (state = 'running' OR state IN ('ready', 'published')
                               AND (expires_at IS NULL OR expires_at > statement_timestamp())))""")
_WRITE: Final = text("""
INSERT INTO schedule_ticks (schedule, due_at, task_id, skipped)
SELECT :name, t.due_at, t.task_id, t.skipped
  FROM unnest(CAST(:due AS timestamptz[]), CAST(:task_ids AS uuid[]), CAST(:skipped AS text[]))
       AS t(due_at, task_id, skipped)""")
_ADVANCE: Final = text("""
UPDATE schedules SET last_due_at = greatest(last_due_at, :due_at), last_task_id = coalesce(:task_id, last_task_id)
 WHERE name = :name""")
_FORGET: Final = text("""
WITH forgotten AS (
  DELETE FROM schedule_ticks
   WHERE schedule = :name AND due_at = ANY (ARRAY(
     SELECT due_at FROM schedule_ticks WHERE schedule = :name AND due_at > :now ORDER BY due_at DESC LIMIT :most))
  RETURNING due_at)
UPDATE schedules
   SET last_due_at = CASE WHEN (SELECT count(*) FROM forgotten) < :most THEN :now
                          ELSE (SELECT min(due_at) FROM forgotten) END
 WHERE name = :name""")


@dataclass(frozen=True, slots=True)
class Outlook:
    """When a schedule is due next; `decided_until` is the moment up to which all its ticks have been decided.

    `error` says what is wrong with a row that no rule can be read from.
    """

    name: str
    decided_until: datetime
    now: datetime
    next_due_at: datetime | None = None
    error: HarborError | None = None

    @property
    def is_due(self) -> bool:
        """Whether there is something to decide."""
        return self.next_due_at is not None and self.next_due_at <= self.now


@dataclass(frozen=True, slots=True)
class Ticked:
    """What one transaction decided: how many ticks, the jobs of those that ran, and whether more are due."""

    decided: int = 0
    task_ids: tuple[UUID, ...] = ()
    more: bool = False


def outlook(session: Session, now: datetime | None = None) -> list[Outlook]:
    """Return when each schedule is due next, by one statement and without a lock.

    Args:
        session: any session.
        now: the present moment; the database's clock unless given.
    """
    return [_outlook(row, now or row.now) for row in session.execute(_SCHEDULES)]


def tick(session: Session, name: str, now: datetime | None = None) -> Ticked | None:
    """Decide up to MOST_TICKS due ticks of a schedule; None when another Beat is at it, or it is gone.

    The caller commits. When the commit fails, neither ticks nor jobs are there. Two that decide the same tick cannot
    both commit: its schedule and its due time are the primary key.

    Args:
        session: a transaction of its own, READ COMMITTED.
        name: which schedule.
        now: the present moment; the database's clock unless given.

    Raises:
        InvalidJob: its task is unknown, or its arguments or options do not fit.
        InvalidSchedule: its row says no rule.
    """
    row = session.execute(_LOCK_IF_FREE, {"name": name, "frozen_ms": str(FROZEN_MS)}).one_or_none()
    return None if row is None else settle(session, row, now or row.now)


def settle(session: Session, row: Row[Any], now: datetime) -> Ticked:
    """Decide what is due of a schedule whose row is locked; the row is one of LOCK_AND_WAIT."""
    rule = rule_of(row.name, row.every_seconds, row.crontab, row.timezone)
    if _clock_went_back(rule, row.decided_until, now):
        log.warning("schedule.clock_went_back", schedule=row.name, decided_until=str(row.decided_until), now=str(now))
        session.execute(_FORGET, {"name": row.name, "now": now, "most": _MOST_FORGOTTEN})
        return Ticked(more=True)
    due = list(islice(due_times(rule, row.decided_until, now), MOST_TICKS + 1))
    more, due = len(due) > MOST_TICKS, due[:MOST_TICKS]
    if not due:
        return Ticked()
    policy = Policy(row.misfire_grace_seconds, row.catch_up, row.overlap, row.paused)
    known = set(row.known)
    new = [moment for moment in due if moment not in known]
    busy = row.overlap == "skip" and session.execute(_BUSY, {"task_id": row.last_task_id}).scalar_one()
    skipped = policy.decide(new, now, newest=not more and new[-1:] == due[-1:], busy=busy)
    task_ids = _enqueue(session, row, skipped.count(None))
    _write(session, row.name, new, skipped, task_ids)
    newest = task_ids[-1] if task_ids else None
    session.execute(_ADVANCE, {"name": row.name, "due_at": due[-1], "task_id": newest})
    return Ticked(len(new), tuple(task_ids), more)


def _enqueue(session: Session, row: Row[Any], count: int) -> list[UUID]:
    if count == 0:
        return []
    request = jobs.JobRequest(row.task, row.args, row.kwargs, **row.options)
    return jobs.enqueue_many(session, [request] * count)


def _write(
    session: Session, name: str, due: Sequence[datetime], skipped: Sequence[str | None], task_ids: Sequence[UUID]
) -> None:
    if due:
        ids = iter(task_ids)
        told = {"due": list(due), "task_ids": [None if why else next(ids) for why in skipped], "skipped": list(skipped)}
        session.execute(_WRITE, {"name": name, **told})


def _outlook(row: Row[Any], now: datetime) -> Outlook:
    try:
        rule = rule_of(row.name, row.every_seconds, row.crontab, row.timezone)
    except HarborError as error:
        return Outlook(row.name, row.decided_until, now, error=error)
    if _clock_went_back(rule, row.decided_until, now):
        return Outlook(row.name, row.decided_until, now, now)
    return Outlook(row.name, row.decided_until, now, next_due(rule, row.decided_until))


def _clock_went_back(rule: Rule, decided_until: datetime, now: datetime) -> bool:
    """Return whether the clock is so far behind what was decided by it that waiting would miss two ticks or more.

    A clock that was ahead by an hour has decided the next hour's ticks. When it is put right those would never run, so
    what was decided of a time that has not come is forgotten. After a small step, or when at most one tick of the
    schedule is affected, none of them runs a second time: the clock catches up.
    """
    if decided_until <= now + timedelta(seconds=STEP_BACK_SECONDS):
        return False
    second = next(islice(rule.after(now), 1, 2), None)
    return second is not None and second <= decided_until
