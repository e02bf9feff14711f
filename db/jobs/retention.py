"""How long the ledger keeps what is over, and removing the rest: in batches, each a transaction of the caller's.

A row that somebody else has locked is passed over, and met the next time. A batch goes on where the one before ended,
so that it does not step over what that one removed: until a vacuum the index still names it. The attempts of a job and
its dedupe_key go with its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import TextClause, text

from db.checks import checked_limit
from db.jobs.job import JobState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

BATCH: Final = 5_000


class Kept(StrEnum):
    """What is kept for a while."""

    DONE = "done"
    CANCELLED = "cancelled"
    DEAD = "dead"
    TICKS = "ticks"
    ACTIONS = "actions"


KEEP: Final = {
    Kept.DONE: timedelta(days=1),
    Kept.CANCELLED: timedelta(days=1),
    Kept.DEAD: timedelta(days=30),
    Kept.TICKS: timedelta(days=1),
    Kept.ACTIONS: timedelta(days=365),
}
"""For how long: since a job ended, since a schedule was due, since an operator did it."""

_OLD: Final = "< statement_timestamp() - :keep"


def _of_jobs(state: JobState) -> TextClause:
    return text(f"""
WITH old AS MATERIALIZED (
  SELECT id, finished_at FROM jobs
   WHERE state = '{state}' AND finished_at {_OLD} AND (finished_at, id) > (CAST(:moment AS timestamptz), :id)
   ORDER BY finished_at, id LIMIT :batch FOR UPDATE SKIP LOCKED),
removed AS (DELETE FROM jobs WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING id)
SELECT finished_at AS moment, id, (SELECT count(*) FROM removed) AS removed
  FROM old ORDER BY finished_at DESC, id DESC LIMIT 1""")


# What was decided last of each schedule stays, so that it can be shown.
_OF_TICKS: Final = text(f"""
WITH removed AS (
  DELETE FROM schedule_ticks WHERE (schedule, due_at) IN (
    SELECT schedule, due_at FROM schedule_ticks t
     WHERE created_at {_OLD}
       AND EXISTS (SELECT FROM schedule_ticks newer WHERE newer.schedule = t.schedule AND newer.due_at > t.due_at)
     ORDER BY created_at LIMIT :batch FOR UPDATE SKIP LOCKED)
  RETURNING 1)
SELECT NULL AS moment, NULL AS id, count(*) AS removed FROM removed""")
_OF_ACTIONS: Final = text(f"""
WITH removed AS (
  DELETE FROM operator_actions WHERE id = ANY (ARRAY(
    SELECT id FROM operator_actions WHERE created_at {_OLD}
     ORDER BY created_at LIMIT :batch FOR UPDATE SKIP LOCKED))
  RETURNING 1)
SELECT NULL AS moment, NULL AS id, count(*) AS removed FROM removed""")
_STATEMENTS: Final = {
    Kept.DONE: _of_jobs(JobState.DONE),
    Kept.CANCELLED: _of_jobs(JobState.CANCELLED),
    Kept.DEAD: _of_jobs(JobState.DEAD),
    Kept.TICKS: _OF_TICKS,
    Kept.ACTIONS: _OF_ACTIONS,
}


_JOBS: Final = {Kept.DONE, Kept.CANCELLED, Kept.DEAD}


@dataclass(frozen=True, slots=True)
class Batch:
    """How many rows a batch removed, and where the next one goes on."""

    removed: int = 0
    moment: datetime | str = "-infinity"
    id: int = 0


def prune(session: Session, kept: Kept, after: Batch | None = None, *, limit: int = BATCH) -> Batch:
    """Remove rows that have been kept for long enough, the oldest first; fewer than `limit` means that none is left.

    Args:
        session: the caller's; nothing is committed. Each batch is a transaction of its own.
        kept: of what.
        after: the batch before, in the same run.
        limit: at most so many, 1 to 5,000.

    Raises:
        InvalidLimit: limit is out of range.
    """
    batch = after or Batch()
    told = {
        "keep": KEEP[kept],
        "moment": batch.moment,
        "id": batch.id,
        "batch": checked_limit("limit", limit, most=BATCH),
    }
    row: Any = session.execute(_STATEMENTS[kept], told).one_or_none()
    if row is None:
        return Batch(0, batch.moment, batch.id)
    return Batch(row.removed, row.moment or batch.moment, row.id or batch.id)
