"""With a million jobs each statement of the ledger finds its rows by index, and reads no more than it was asked for.

Most of them have ended. Of the rest many wait behind a pause, many for their time, and many behind one ordering key:
none of that is looked at by a relay that has other work. Planned for its values, and once for all values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from db import engine, jobs
from db.session import transaction
from db.settings import settings
from tests.conftest import str_url
from tests.db.plans import CUSTOM, GENERIC, Plan, explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

JOBS: Final = 1_000_000
PAUSED: Final = 30_000
DELAYED: Final = 30_000
BEHIND: Final = 20_000
FLYING: Final = 500  # Published, and as many running; a tenth of each is overdue.
DUE: Final = 1_000

_TASK_ID: Final = "lpad(to_hex({}), 32, '0')::uuid"

# What was set at once is not what a relay wrote, so the trigger and the indexes come afterwards.
_FILL: Final = f"""
INSERT INTO jobs (task_id, task, queue, priority, args, kwargs, state, available_at, attempt, max_attempts, lease_token,
                  lease_until, ordering_key, blocked, published_at, publish_count, started_at, finished_at)
SELECT {_TASK_ID.format("n")}, 'sample.count', queue, 6, '[7]', '{{}}', state,
       now() + interval '1 hour' * CASE WHEN overdue THEN -1 ELSE 1 END + n * interval '1 ms',
       CASE WHEN state IN ('running', 'done') THEN 1 ELSE 0 END, 20,
       CASE WHEN state = 'running' THEN {_TASK_ID.format("n")} END,
       CASE WHEN state = 'running' THEN now() + interval '1 hour' * CASE WHEN overdue THEN -1 ELSE 1 END END,
       ordering_key, blocked,
       CASE WHEN state <> 'ready' THEN now() END, 0,
       CASE WHEN state IN ('running', 'done') THEN now() END,
       CASE WHEN state = 'done' THEN now() - n * interval '1 s' END
  FROM generate_series(1, {JOBS}) AS n,
       LATERAL (SELECT {JOBS} - n AS back) AS b,
       LATERAL (SELECT
         CASE WHEN back < {DUE} THEN 'ready'
              WHEN back < {DUE + FLYING} THEN 'published'
              WHEN back < {DUE + 2 * FLYING} THEN 'running'
              WHEN back < {DUE + 2 * FLYING + PAUSED + DELAYED + BEHIND} THEN 'ready'
              ELSE 'done' END AS state,
         back - {DUE + 2 * FLYING} AS waiting) AS s,
       LATERAL (SELECT
         waiting >= {PAUSED + DELAYED} AND state = 'ready' AS behind,
         CASE WHEN state = 'ready' AND waiting BETWEEN 0 AND {PAUSED - 1} THEN 'bulk'
              WHEN n % 3 = 0 THEN 'expiry' ELSE 'default' END AS queue) AS q,
       LATERAL (SELECT
         CASE WHEN behind THEN 'busy' WHEN back = {DUE} THEN 'busy' END AS ordering_key,
         behind AS blocked,
         CASE WHEN state IN ('published', 'running') THEN n % 10 = 0 AND back <> {DUE}
              WHEN waiting BETWEEN {PAUSED} AND {PAUSED + DELAYED - 1} THEN false
              ELSE true END AS overdue) AS o
"""


@pytest.fixture(scope="module")
def ledger(servers: dict[str, str], template: str) -> Iterator[None]:
    """A database with a million jobs, the same for all tests: they roll back what they do."""
    url = make_url(servers["HARBOR_DATABASE_URL"])
    name = f"harbor_million_{uuid4().hex[:8]}"
    with (
        psycopg.connect(str_url(url.set(drivername="postgresql")), autocommit=True) as server,
        pytest.MonkeyPatch.context() as patched,
    ):
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        mine = url.set(database=name)
        with psycopg.connect(str_url(mine.set(drivername="postgresql")), autocommit=True) as connection:
            _fill(connection)
        for variable, told in {**servers, "HARBOR_DATABASE_URL": str_url(mine)}.items():
            patched.setenv(variable, told)
        settings.cache_clear()
        engine.dispose()
        yield
        engine.dispose()
        settings.cache_clear()
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _fill(connection: psycopg.Connection[Any]) -> None:
    found = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'jobs' AND indexname <> 'pk_jobs'"
    ).fetchall()
    connection.execute("SET synchronous_commit = off")
    connection.execute("SET maintenance_work_mem = '256MB'")
    for index, _ in found:
        connection.execute(f'DROP INDEX "{index}"')
    connection.execute("ALTER TABLE jobs SET (autovacuum_enabled = off)")
    connection.execute(_FILL)
    for _, definition in found:
        connection.execute(definition)
    connection.execute("INSERT INTO queue_control (queue, paused) VALUES ('bulk', true)")
    connection.execute("INSERT INTO queue_control (queue, max_in_flight) VALUES ('expiry', 100000)")
    connection.execute("VACUUM (ANALYZE) jobs")


@dataclass(frozen=True)
class Call:
    """What is called, the indexes that it finds its rows by, and about how many rows it is."""

    do: Callable[[Session], object]
    by: set[str] = field(default_factory=set)
    rows: int = 1
    before: Callable[[Session], object] = lambda _session: None


# A statement's own, such as the roots of the indexes that it looks into; and for each row, which a move takes out of
# one index and puts into others.
_AT_LEAST = 120
_FOR_EACH_ROW = 25

_PUBLISHED = UUID(int=JOBS - DUE)
_RUNNING = UUID(int=JOBS - DUE - FLYING)


def _claim(session: Session) -> jobs.Claim:
    taken = jobs.claim(session.connection(), _PUBLISHED, "sample.count", 30)
    assert taken is not None
    return taken


def _running(session: Session) -> jobs.Claim:
    job_id = session.execute(text("SELECT id FROM jobs WHERE task_id = :id"), {"id": _RUNNING}).scalar_one()
    return jobs.Claim(job_id, _RUNNING, "sample.count", _RUNNING, 1, 20, [], {})


def _with_claim(do: Callable[[Session, jobs.Claim], object]) -> Callable[[Session], object]:
    return lambda session: do(session, _running(session))


def _lease(limit: int) -> Callable[[Session], object]:
    def leased(session: Session) -> None:
        assert len(jobs.lease(session, 10, limit)) == limit

    return leased


def _free_the_key(session: Session) -> None:
    session.execute(text("UPDATE jobs SET state = 'cancelled' WHERE task_id = :id"), {"id": _PUBLISHED})


def _end_one_of_the_busy_key(session: Session) -> None:
    taken = _claim(session)
    taken.complete(session)


CALLS = {
    "a relay's lease": Call(_lease(100), {"ix_jobs_ready", "pk_jobs"}, rows=100),
    "a relay's lease of one": Call(_lease(1), {"ix_jobs_ready"}),
    "a relay's lease of a key's next": Call(
        _lease(500), {"ix_jobs_ordering_key_ready"}, rows=500, before=_free_the_key
    ),
    "claim": Call(_claim, {"uq_jobs_task_id"}),
    "complete": Call(_with_claim(lambda session, taken: taken.complete(session)), {"pk_jobs"}),
    "complete with a key": Call(_end_one_of_the_busy_key, {"ix_jobs_ordering_key_ready"}, rows=2),
    "fence": Call(_with_claim(lambda session, taken: taken.fence(session)), {"pk_jobs"}),
    "extend": Call(_with_claim(lambda session, taken: taken.extend(session, 30)), {"pk_jobs"}),
    "retry": Call(_with_claim(lambda session, taken: jobs.retry(session, taken, "it failed")), {"pk_jobs"}),
    "a sweep": Call(jobs.sweep, {"ix_jobs_published", "ix_jobs_running", "pk_jobs"}, rows=FLYING // 5),
}


def _plans(call: Call, mode: str, spoiled: str = "SELECT") -> list[Plan]:
    """The plans of what a call sent about jobs, without PostgreSQL's own checks."""
    with transaction() as session:
        call.before(session)
        session.execute(text(spoiled))
        with explained(session, mode) as plans:
            call.do(session)
        session.rollback()
    return [plan for plan in plans if plan.tables and not plan.checks_a_foreign_key]


def _check(call: Call, plans: list[Plan]) -> None:
    for plan in plans:
        assert "jobs" not in plan.read_whole, plan
        assert plan.buffers <= _AT_LEAST + _FOR_EACH_ROW * call.rows, plan
        assert plan.discarded <= _AT_LEAST + call.rows, plan
    assert call.by <= {index for plan in plans for index in plan.indexes}


@pytest.mark.parametrize("mode", [CUSTOM, GENERIC])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_statement_finds_its_jobs_by_index(ledger: None, call: Call, mode: str) -> None:
    _check(call, _plans(call, mode))


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("claim", "DROP INDEX uq_jobs_task_id"),
        ("complete", "ALTER TABLE jobs DROP CONSTRAINT pk_jobs CASCADE"),
        ("a sweep", "DROP INDEX ix_jobs_published"),
        ("a sweep", "DROP INDEX ix_jobs_running"),
    ],
)
def test_without_its_index_the_check_says_so(ledger: None, name: str, spoil: str) -> None:
    plans = _plans(CALLS[name], CUSTOM, spoil)

    with pytest.raises(AssertionError):
        _check(CALLS[name], plans)


def test_rows_of_every_kind_are_there(ledger: None) -> None:
    with transaction() as session:
        counted = session.execute(
            text("SELECT queue, state, blocked, count(*) FROM jobs GROUP BY 1, 2, 3 ORDER BY 1, 2")
        )
        found = {(queue, state, blocked): count for queue, state, blocked, count in counted}

    assert found["bulk", "ready", False] == PAUSED
    assert sum(count for (_, _, blocked), count in found.items() if blocked) == BEHIND
    assert sum(found.values()) == JOBS
