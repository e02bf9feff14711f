"""What became of the jobs and the ticks, counted from what was to happen and not from what the ledger says of itself.

A follow-up is owed for each hold that is confirmed, and a tick for each multiple of a schedule's interval. Letters are
many jobs at once, so that a fault meets some of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from db import jobs as queue
from db import schedule
from db.session import snapshot, transaction
from demo import tasks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

Window = tuple["datetime", "datetime"]

LETTERS: Final = 60
# Whatever else is to be done goes first.
_LETTER_PRIORITY: Final = 9

_TABLES: Final = (
    text("CREATE TABLE demo_follow_ups (reservation_id bigint PRIMARY KEY, x int NOT NULL)"),
    text("CREATE TABLE demo_letters (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, x int NOT NULL DEFAULT 0)"),
)
_WRITE_LETTERS: Final = text("INSERT INTO demo_letters SELECT FROM generate_series(1, :count) RETURNING id")
_COUNTED: Final = [tasks.FOLLOW_UP, tasks.LETTER]
_TICKS: Final = schedule.Declaration("demo-tick", tasks.TICK, every_seconds=1, catch_up="all")


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of some letters were published and have not been started, and how many have."""

    published: int
    started: int


@dataclass(frozen=True, slots=True)
class Jobs:
    """What became of the follow-ups, and of the letters.

    Attributes:
        jobs_committed: Follow-ups owed: holds that were confirmed.
        jobs_done: Of these, whose effect is there once.
        jobs_lost: Of these, whose effect is not there.
        jobs_twice: Effects that are there more than once.
        jobs_unasked: Effects of a sale that was never committed.
        letters: Letters that were committed.
        letters_lost, letters_twice: Of these, whose effect is not there, or is there more than once.
        jobs_recovered: Follow-ups and letters that a fault met: published or started more than once.
        job_latency_p50_ms, job_latency_p99_ms: From the job's row to its start, of those that started at the first
            attempt and met no fault.
    """

    jobs_committed: int
    jobs_done: int
    jobs_lost: int
    jobs_twice: int
    jobs_unasked: int
    letters: int
    letters_lost: int
    letters_twice: int
    jobs_recovered: int
    job_latency_p50_ms: float | None
    job_latency_p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Ticks:
    """What became of the ticks of all schedules that have an interval.

    Attributes:
        ticks_due: Multiples of the intervals since each schedule was made.
        ticks_missed: Of these, those of which nothing is written, neither a job nor the policy that left it out.
        ticks_twice: Jobs of a schedule's task that are no tick's.
    """

    ticks_due: int
    ticks_missed: int
    ticks_twice: int


_EFFECTS: Final = text("""
SELECT count(sold.id) AS jobs_committed,
       count(sold.id) FILTER (WHERE x = 1) AS jobs_done,
       count(sold.id) FILTER (WHERE x IS NULL OR x < 1) AS jobs_lost,
       count(*) FILTER (WHERE x > 1) AS jobs_twice,
       count(*) FILTER (WHERE sold.id IS NULL) AS jobs_unasked
  FROM (SELECT id FROM stock_reservations WHERE state = 'confirmed') AS sold
  FULL JOIN demo_follow_ups AS done ON done.reservation_id = sold.id
""")

_LETTERS: Final = text("""
SELECT count(*) AS letters,
       count(*) FILTER (WHERE x = 0) AS letters_lost,
       count(*) FILTER (WHERE x > 1) AS letters_twice,
       -- What was published again was so 5 s after its row, at the earliest (REPUBLISH_SECONDS in demo/process.py).
       (SELECT count(*) FROM jobs
         WHERE task = ANY (:tasks) AND (published_at > created_at + interval '5 s' OR attempt > 1)) AS jobs_recovered
  FROM demo_letters
""")

# A fault meets a job when it lasts at any moment between the job's row and its start.
_LATENCIES: Final = text("""
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY latency) AS job_latency_p50_ms,
       percentile_disc(0.99) WITHIN GROUP (ORDER BY latency) AS job_latency_p99_ms
  FROM (SELECT extract(epoch FROM started_at - created_at)::float8 * 1000 AS latency
          FROM jobs
         WHERE task = :task AND state = 'done' AND attempt = 1
           AND NOT EXISTS (
                 SELECT FROM unnest(CAST(:begins AS timestamptz[]), CAST(:ends AS timestamptz[])) AS fault(begins, ends)
                  WHERE created_at <= fault.ends AND started_at >= fault.begins)) AS started
""")

_UNENDED: Final = text("SELECT count(*) FROM jobs WHERE task = ANY (:tasks) AND finished_at IS NULL")
_PROGRESS: Final = text("""
SELECT count(*) FILTER (WHERE state = 'published') AS published, count(started_at) AS started
  FROM jobs WHERE task_id = ANY (:letters)
""")

# Multiples of an interval count from the Unix epoch. They are at least 0.1 s apart, and a float has its errors.
_MISSED: Final = text("""
SELECT count(*) AS ticks_due,
       count(*) FILTER (WHERE NOT EXISTS (
         SELECT FROM schedule_ticks t
          WHERE t.schedule = s.name
            AND t.due_at BETWEEN due.moment - interval '1 ms' AND due.moment + interval '1 ms')) AS ticks_missed
  FROM schedules s
 CROSS JOIN LATERAL generate_series(
         floor(extract(epoch FROM s.created_at) / s.every_seconds)::bigint + 1,
         floor(extract(epoch FROM CAST(:until AS timestamptz)) / s.every_seconds)::bigint) AS n
 CROSS JOIN LATERAL to_timestamp(n * s.every_seconds) AS due(moment)
 WHERE s.every_seconds IS NOT NULL
""")

# Nobody in the demo enqueues the task of a schedule but its ticks.
_TWICE: Final = text("""
SELECT count(*) FROM jobs
 WHERE task IN (SELECT task FROM schedules)
   AND NOT EXISTS (SELECT FROM schedule_ticks t WHERE t.task_id = jobs.task_id)
""")


def prepare() -> None:
    """Make what the demo's own jobs need: their table, their types, and a schedule that is due each second."""
    # Celery's configuration needs the URLs, which are not known when this module is imported.
    from worker.celery import app
    from worker.registry import keep_types

    with transaction() as session:
        for table in _TABLES:
            session.execute(table)
        keep_types(app, session)
        schedule.add(session, _TICKS)


def send_letters() -> list[UUID]:
    """Enqueue many letters at once and return their jobs."""
    with transaction() as session:
        ids = session.scalars(_WRITE_LETTERS, {"count": LETTERS})
        letters = [queue.JobRequest(tasks.LETTER, [id_], priority=_LETTER_PRIORITY) for id_ in ids]
        return queue.enqueue_many(session, letters)


def progress(letters: list[UUID]) -> Progress:
    """Return how many of these letters are on their way, and how many workers have begun."""
    with snapshot() as session:
        return Progress(*session.execute(_PROGRESS, {"letters": letters}).one())


def unended() -> int:
    """Return how many follow-ups and letters wait or run."""
    with snapshot() as session:
        return int(session.execute(_UNENDED, {"tasks": _COUNTED}).scalar_one())


def jobs(faults: Sequence[Window]) -> Jobs:
    """Count what became of the follow-ups. `faults` are the times in which something was wrong."""
    met = {"begins": [begins for begins, _ in faults], "ends": [ends for _, ends in faults]}
    with snapshot() as session:
        effects = session.execute(_EFFECTS).one()._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
        latencies = session.execute(_LATENCIES, {"task": tasks.FOLLOW_UP, **met}).one()._mapping  # noqa: SLF001
        letters = session.execute(_LETTERS, {"tasks": _COUNTED}).one()._mapping  # noqa: SLF001
    return Jobs(**effects, **letters, **latencies)


def ticks(until: datetime) -> Ticks:
    """Count what became of the ticks that were due until then."""
    with snapshot() as session:
        due, missed = session.execute(_MISSED, {"until": until}).one()
        return Ticks(due, missed, session.execute(_TWICE).scalar_one())
