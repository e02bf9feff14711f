"""How queues and tasks are doing, for an operator who was woken: cheap however long the ledger is.

Nothing counts a table. Live jobs are counted by the partial index of their state up to `MOST_COUNTED` for each queue,
so that a backlog of millions costs what ten thousand rows do; waits are those of the jobs that ended last.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from db.jobs.limits import QueueLimits, limits_of, queues
from db.jobs.publish import _PRIORITIES as PRIORITIES
from db.jobs.publish import READY

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.orm import Session

MOST_COUNTED: Final = 10_000
"""A count of so many means that or more."""

RECENT: Final = 5_000
"""Rates and waits are those of so many jobs that ended last, at most."""

RATE_SECONDS: Final = 10
_AGED: Final = ("due", "published", "running")
RECENT_SECONDS: Final = 3_600

_NOW: Final = "statement_timestamp()"


def _some(what: str, since: str, by: str, condition: str) -> str:
    """Return those of a queue that come first by an index; without an order a table that is half live is read whole."""
    return f"""
(SELECT '{what}' AS what, j.task, j.{since} AS since, j.publish_count > 1 AS again, j.cancel_requested
   FROM jobs j WHERE {condition} AND j.queue = q.queue ORDER BY j.{by} LIMIT :most)"""


def _some_ready(what: str, comparison: str) -> str:
    """As `_some`, by each priority's range of the index: what is due later does not stand in the way of what is due."""
    condition = f"{READY} AND j.priority = p.priority AND j.available_at {comparison} {_NOW}"
    one = _some(what, "available_at", "available_at", condition)
    return f"(SELECT due.* FROM {PRIORITIES} CROSS JOIN LATERAL {one} due LIMIT :most)"


_LIVE: Final = text(f"""
SELECT q.queue, l.what, l.task, count(*) AS amount, extract(epoch FROM {_NOW} - min(l.since))::float8 AS oldest_seconds,
       count(*) FILTER (WHERE l.again) AS again, count(*) FILTER (WHERE l.cancel_requested) AS stopping,
       sum(count(*)) OVER (PARTITION BY q.queue, l.what) AS seen
  FROM unnest(CAST(:queues AS text[])) AS q(queue) CROSS JOIN LATERAL (
    {_some_ready("due", "<=")} UNION ALL {_some_ready("later", ">")}
    UNION ALL {_some("published", "published_at", "available_at", "j.state = 'published'")}
    UNION ALL {_some("running", "started_at", "lease_until", f"j.state = 'running' AND j.lease_until > {_NOW}")}
    UNION ALL {_some("lost", "lease_until", "lease_until", f"j.state = 'running' AND j.lease_until <= {_NOW}")}) l
 GROUP BY q.queue, l.what, l.task""")
# In no index by queue, since relays do not look for them.
_BLOCKED: Final = text("""
SELECT queue, 'blocked' AS what, task, count(*) AS amount, NULL AS oldest_seconds, 0 AS again, 0 AS stopping,
       sum(count(*)) OVER () AS seen
  FROM (SELECT queue, task FROM jobs WHERE blocked LIMIT :most) b
 GROUP BY queue, task""")
# One entry of the index for each priority, exact also where the count is not.
_OLDEST: Final = text(f"""
SELECT q.queue, extract(epoch FROM {_NOW} - min(o.available_at))::float8
  FROM unnest(CAST(:queues AS text[])) AS q(queue) CROSS JOIN {PRIORITIES} CROSS JOIN LATERAL (
    SELECT available_at FROM jobs j
     WHERE {READY} AND j.queue = q.queue AND j.priority = p.priority AND j.available_at <= {_NOW}
     ORDER BY available_at LIMIT 1) o
 GROUP BY q.queue""")
_DEAD: Final = text(f"""
SELECT queue, 'dead' AS what, task, count(*) AS amount, NULL AS oldest_seconds, 0 AS again, 0 AS stopping,
       sum(count(*)) OVER () AS seen
  FROM (SELECT queue, task FROM jobs
         WHERE state = 'dead' AND finished_at > {_NOW} - interval '24 hours'
         ORDER BY finished_at DESC LIMIT :most) d
 GROUP BY queue, task""")
# A wait is from the message to the start: how long workers took to get to it. A job that is late because no relay
# takes it has no message yet, and shows as the age of what is due.
_RECENT: Final = text(f"""
SELECT queue, task,
       count(*) FILTER (WHERE finished_at > {_NOW} - interval '{RATE_SECONDS} seconds')
         / max(CASE WHEN seen < :recent THEN {RATE_SECONDS}
                    ELSE least({RATE_SECONDS}, extract(epoch FROM {_NOW} - earliest)) END)::float8 AS done_per_second,
       percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - published_at)) AS waits,
       percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at)) AS runs
  FROM (SELECT *, count(*) OVER () AS seen, min(finished_at) OVER () AS earliest
          FROM (SELECT queue, task, finished_at, started_at, published_at FROM jobs
                 WHERE state = 'done' AND finished_at > {_NOW} - interval '{RECENT_SECONDS} seconds'
                 ORDER BY finished_at DESC LIMIT :recent) d) e
 GROUP BY GROUPING SETS ((queue), (task))""")
_SIZE: Final = text(f"""
SELECT (SELECT reltuples::bigint FROM pg_class WHERE oid = 'jobs'::regclass) AS rows,
       (SELECT extract(epoch FROM {_NOW} - finished_at)::float8 FROM jobs
         WHERE state = 'done' AND finished_at IS NOT NULL ORDER BY finished_at LIMIT 1) AS oldest_done_seconds""")


@dataclass(slots=True)
class Figures:
    """How many live jobs there are of a queue or a task, how it goes with those that ended, and how long they took.

    `due` could be published, `later` are not due yet, `blocked` wait for an older one of their ordering key. Of those
    published, `again` were sent more than once. `lost` run out of their lease, and nobody has swept them. `dead` are
    those of the last 24 hours. `at_least` names the counts that were not counted to their end. Waits and runs are the
    median and the 99th percentile of the last hour, None when nothing was done.
    """

    due: int = 0
    later: int = 0
    blocked: int = 0
    published: int = 0
    again: int = 0
    running: int = 0
    stopping: int = 0
    lost: int = 0
    dead: int = 0
    oldest_due_seconds: float | None = None
    oldest_published_seconds: float | None = None
    oldest_running_seconds: float | None = None
    done_per_second: float = 0.0
    wait_seconds: tuple[float, float] | None = None
    run_seconds: tuple[float, float] | None = None
    at_least: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stats:
    """The figures of every queue, and of every task that has any; what the queues are told; and the ledger's size.

    `rows` is what PostgreSQL's statistics say, None before its first; `oldest_done_seconds` tells whether old jobs are
    removed: they are kept for a day.
    """

    queues: dict[str, Figures]
    tasks: dict[str, Figures]
    limits: dict[str, QueueLimits]
    rows: int | None
    oldest_done_seconds: float | None


def stats(session: Session) -> Stats:
    """Return how everything is doing now; nothing is locked."""
    names = queues(session)
    by_queue: dict[str, Figures] = {name: Figures() for name in names}
    by_task: defaultdict[str, Figures] = defaultdict(Figures)
    told = {"queues": names, "most": MOST_COUNTED}
    for statement in (_LIVE, _BLOCKED, _DEAD):
        for row in session.execute(statement, told):
            for figures in (by_queue.setdefault(row.queue, Figures()), by_task[row.task]):
                _add(figures, row)
    # What the samples miss of a queue, this does not.
    for queue, seconds in session.execute(_OLDEST, told):
        by_queue[queue].oldest_due_seconds = seconds
    for row in session.execute(_RECENT, {"recent": RECENT}):
        figures = by_task[row.task] if row.queue is None else by_queue.setdefault(row.queue, Figures())
        figures.done_per_second = row.done_per_second
        figures.wait_seconds, figures.run_seconds = tuple(row.waits), tuple(row.runs)
    size = session.execute(_SIZE).one()
    return Stats(
        by_queue,
        dict(sorted(by_task.items())),
        {name: limits_of(session, name) for name in by_queue},
        None if size.rows < 0 else size.rows,
        size.oldest_done_seconds,
    )


def _add(figures: Figures, row: Row[Any]) -> None:
    if not row.amount:
        return
    setattr(figures, row.what, getattr(figures, row.what) + row.amount)
    figures.again += row.again if row.what == "published" else 0
    figures.stopping += row.stopping
    if row.seen >= MOST_COUNTED and row.what not in figures.at_least:
        figures.at_least.append(row.what)
    if row.what in _AGED:
        field_ = f"oldest_{row.what}_seconds"
        setattr(figures, field_, max(row.oldest_seconds, getattr(figures, field_) or 0.0))
