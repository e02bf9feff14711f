"""What must be true of the ledger when everything is over, asked of the database, and the jobs that say otherwise."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.db.sql import change, rows, value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from tests.concurrency.job_producers import Books

LIVE = "SELECT count(*) FROM jobs WHERE state IN ('ready', 'published', 'running')"
_MOST_JOBS = 5

_TABLES = """
DROP TABLE IF EXISTS chaos_wanted, chaos_effects, chaos_steps;
CREATE TABLE chaos_wanted (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text NOT NULL UNIQUE, task_id uuid, ordering_key text,
  delay_seconds float8 NOT NULL);
CREATE TABLE chaos_effects (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text, task_id uuid, attempt int,
  begun_at timestamptz NOT NULL, ended_at timestamptz NOT NULL);
CREATE TABLE chaos_steps (task_id uuid NOT NULL)"""

_FOREIGN = "SELECT key FROM chaos_effects WHERE key IS NOT NULL AND key NOT IN (SELECT key FROM chaos_wanted)"
_TICKS = "SELECT due_at FROM schedule_ticks WHERE schedule = :name ORDER BY due_at"
_ATTEMPTS = "SELECT to_jsonb(a) FROM job_attempts a JOIN jobs j ON j.id = a.job_id WHERE j.task_id = :id ORDER BY a.id"

# Each asks for the jobs that break a promise; none may answer anything.
_PROMISES = {
    "was committed, and has another number of effects than one": """
SELECT w.task_id FROM chaos_wanted w
 WHERE (SELECT count(*) FROM chaos_effects e WHERE e.task_id = w.task_id) <> 1""",
    "has an effect, and was not committed": """
SELECT e.task_id FROM chaos_effects e JOIN jobs j USING (task_id)
 WHERE j.task <> 'chaos.tick' AND NOT EXISTS (SELECT FROM chaos_wanted w WHERE w.task_id = e.task_id)""",
    "is in the ledger, and was not committed": """
SELECT j.task_id FROM jobs j
 WHERE j.task LIKE 'chaos.%' AND j.task <> 'chaos.tick'
   AND NOT EXISTS (SELECT FROM chaos_wanted w WHERE w.task_id = j.task_id)""",
    "was committed, and is not in the ledger": """
SELECT w.task_id FROM chaos_wanted w WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.task_id = w.task_id)""",
    "is not done": "SELECT task_id FROM jobs WHERE state <> 'done' AND task LIKE 'chaos.%'",
    "began before its time": """
SELECT w.task_id FROM chaos_wanted w JOIN jobs j USING (task_id) JOIN chaos_effects e USING (task_id)
 WHERE e.begun_at < j.created_at + make_interval(secs => w.delay_seconds)""",
    "overtook another one of its ordering key": """
SELECT task_id FROM (
  SELECT w.task_id, e.id, max(e.id) OVER (PARTITION BY w.ordering_key ORDER BY w.id) AS latest
    FROM chaos_wanted w JOIN chaos_effects e USING (task_id) WHERE w.ordering_key IS NOT NULL) AS ordered
 WHERE id < latest""",
    "began before another one of its ordering key was over": """
SELECT task_id FROM (
  SELECT w.task_id, e.begun_at, lag(e.ended_at) OVER (PARTITION BY w.ordering_key ORDER BY e.begun_at) AS ended_at
    FROM chaos_wanted w JOIN chaos_effects e USING (task_id) WHERE w.ordering_key IS NOT NULL) AS placed
 WHERE begun_at < ended_at""",
    "is of a tick, and has another number of effects than one": """
SELECT t.task_id FROM schedule_ticks t JOIN jobs j USING (task_id)
 WHERE j.task = 'chaos.tick' AND (SELECT count(*) FROM chaos_effects e WHERE e.task_id = t.task_id) <> 1""",
    "is of a tick that there is not": """
SELECT j.task_id FROM jobs j
 WHERE j.task = 'chaos.tick' AND NOT EXISTS (SELECT FROM schedule_ticks t WHERE t.task_id = j.task_id)""",
    "is of two ticks": """
SELECT task_id FROM schedule_ticks WHERE task_id IS NOT NULL GROUP BY task_id HAVING count(*) > 1""",
    "is of a tick, and not in the ledger": """
SELECT t.task_id FROM schedule_ticks t
 WHERE t.task_id IS NOT NULL AND NOT EXISTS (SELECT FROM jobs j WHERE j.task_id = t.task_id)""",
}


def make_tables() -> None:
    """Make the tables of producers and tasks, empty."""
    change(_TABLES)


def broken(books: Books) -> Iterator[str]:
    """Say which promises are broken, each with some of the jobs that break it."""
    for promise, statement in _PROMISES.items():
        task_ids = [task_id for (task_id,) in rows(f"SELECT DISTINCT task_id FROM ({statement}) AS found")]
        if task_ids:
            yield f"{len(task_ids)} times a job {promise}:\n" + "\n".join(map(describe, task_ids[:_MOST_JOBS]))
    wanted = {key for (key,) in rows("SELECT key FROM chaos_wanted")}
    if lost := sorted(set(books.committed) - wanted):
        yield f"PostgreSQL lost what it said it had committed: {lost}"
    if back := sorted(set(books.rolled_back) & wanted):
        yield f"PostgreSQL kept what was rolled back: {back}"
    if foreign := rows(_FOREIGN):
        yield f"effects that nobody committed: {foreign}"


def broken_ticks(schedule: str, until: datetime) -> Iterator[str]:
    """Say where a schedule of each second has left a second out."""
    due = [due_at for (due_at,) in rows(_TICKS, name=schedule)]
    made_at = value("SELECT created_at FROM schedules WHERE name = :name", name=schedule)
    if not due or (due[0] - made_at).total_seconds() > 1 or due[-1] < until.replace(microsecond=0):
        yield f"{schedule}, made at {made_at}, ticked until {until} at least, but has the ticks {due[:1]} to {due[-1:]}"
    for before, after in pairwise(due):
        if (after - before).total_seconds() != 1:
            yield f"{schedule} has no tick between {before} and {after}"


def describe(task_id: Any) -> str:
    """Everything that the ledger and the test know of a job."""
    told = [f"  {task_id}"]
    for name, statement in {
        "row": "SELECT to_jsonb(j) FROM jobs j WHERE task_id = :id",
        "attempt": _ATTEMPTS,
        "wanted": "SELECT to_jsonb(w) FROM chaos_wanted w WHERE task_id = :id ORDER BY id",
        "effect": "SELECT to_jsonb(e) FROM chaos_effects e WHERE task_id = :id ORDER BY id",
        "tick": "SELECT to_jsonb(t) FROM schedule_ticks t WHERE task_id = :id",
    }.items():
        told += [f"    {name}: {row}" for (row,) in rows(statement, id=task_id)]
    return "\n".join(told)
