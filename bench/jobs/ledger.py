"""Jobs in the ledger that no worker runs: written by one statement, for a relay to publish, and taken away again."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from bench.measure import check
from db.session import transaction

TASK: Final = "bench.rest"

# Each is due a moment after the one before it, all of them by now.
_FILL: Final = text("""
INSERT INTO jobs (task_id, task, queue, priority, args, kwargs, available_at, max_attempts)
SELECT harbor_uuid7(), :task, :queue, 6, '[]', '{}',
       statement_timestamp() - make_interval(secs => (:rows - n) / 10000.0), 20
  FROM generate_series(1, :rows) n""")
_PAUSE: Final = text("""
INSERT INTO queue_control (queue, paused) VALUES (:queue, :paused)
ON CONFLICT (queue) DO UPDATE SET paused = excluded.paused""")
_UNCONTROL: Final = text("DELETE FROM queue_control WHERE queue = :queue")
_COUNT: Final = text("SELECT count(*) FROM jobs WHERE state = :state")
_DELETE: Final = text("DELETE FROM jobs WHERE state = :state")
_EMPTY: Final = text("TRUNCATE jobs CASCADE")


def declare() -> None:
    """Tell the database of the tasks of this process, as a worker does when it starts."""
    # The app is configured when it is imported, by an environment that this module's import is too early for.
    from bench.worker.harbor import app
    from worker.registry import keep_types

    with transaction() as session:
        keep_types(app, session)


def fill(queue: str, rows: int) -> None:
    """Write so many jobs that are due."""
    with transaction() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        session.execute(_FILL, {"task": TASK, "queue": queue, "rows": rows})


def empty() -> None:
    """Delete all jobs."""
    with transaction() as session:
        session.execute(_EMPTY)


def pause(queue: str) -> None:
    """Have no relay publish what a queue holds."""
    with transaction() as session:
        session.execute(_PAUSE, {"queue": queue, "paused": True})


def resume(queue: str) -> None:
    """Have relays publish what a queue holds, as if nobody had ever limited it."""
    with transaction() as session:
        session.execute(_UNCONTROL, {"queue": queue})


def check_count(state: str, rows: int) -> None:
    """Check that so many jobs are in a state. Raises CheckFailedError."""
    with transaction() as session:
        found = session.execute(_COUNT, {"state": state}).scalar_one()
    check(f"harbor has {found} jobs that are {state}, and not {rows}", right=found == rows)


def delete(state: str) -> None:
    """Delete the jobs that are in a state."""
    with transaction() as session:
        session.execute(_DELETE, {"state": state})
