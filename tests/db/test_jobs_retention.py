"""What is over is removed when it has been kept for long enough: neither before nor never, and a batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from db.errors import InvalidLimit
from db.jobs import retention
from db.jobs.retention import Batch, Kept, prune
from db.session import transaction
from tests.db.plans import CUSTOM, GENERIC, explained
from tests.db.sql import change, locked, rows, value
from tests.ledger import fill, make_type, put

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 100_000
LIMIT = 500


@pytest.fixture
def _types(database: None) -> None:
    make_type()


def pruned(kept: Kept, after: Batch | None = None, **options: Any) -> Batch:
    with transaction() as session:
        return prune(session, kept, after, **options)


def left(state: str) -> int:
    return int(value("SELECT count(*) FROM jobs WHERE state = :state", state=state))


@pytest.mark.usefixtures("_types")
@pytest.mark.parametrize(
    ("kept", "old", "young"),
    [
        (Kept.DONE, "25 h", "23 h"),
        (Kept.CANCELLED, "25 h", "23 h"),
        (Kept.DEAD, "31 d", "29 d"),
    ],
)
def test_an_ended_job_is_kept_for_its_time_and_then_goes_with_its_attempts(kept: Kept, old: str, young: str) -> None:
    fill(3, kept, ended_ago=old, attempts=2)
    fill(2, kept, ended_ago=young, attempts=2)

    assert pruned(kept).removed == 3
    assert left(kept) == 2
    assert value("SELECT count(*) FROM job_attempts") == 4
    assert pruned(kept).removed == 0


@pytest.mark.usefixtures("_types")
def test_no_job_that_has_not_ended_is_ever_removed() -> None:
    for state in ("ready", "published", "running"):
        fill(1, state, ended_ago="400 d")
    put()

    assert [pruned(kept).removed for kept in Kept] == [0, 0, 0, 0, 0]
    assert value("SELECT count(*) FROM jobs") == 4


@pytest.mark.usefixtures("_types")
def test_a_key_that_is_free_again_can_be_used_while_the_old_job_is_kept() -> None:
    first = put(dedupe_key="k")
    change("UPDATE jobs SET state = 'cancelled'")

    assert put(dedupe_key="k") != first


@pytest.mark.usefixtures("_types")
def test_a_row_that_somebody_has_locked_is_passed_over_and_met_the_next_time() -> None:
    fill(3, "dead", ended_ago="31 d")

    with locked("SELECT FROM jobs WHERE id = (SELECT min(id) FROM jobs) FOR NO KEY UPDATE"):
        assert pruned(Kept.DEAD).removed == 2

    assert pruned(Kept.DEAD).removed == 1


@pytest.mark.usefixtures("_types")
def test_batches_go_on_where_the_one_before_ended() -> None:
    fill(5, "done", ended_ago="2 d")

    first = pruned(Kept.DONE, limit=2)
    second = pruned(Kept.DONE, first, limit=2)
    third = pruned(Kept.DONE, second, limit=2)

    assert [batch.removed for batch in (first, second, third)] == [2, 2, 1]
    assert first.moment < second.moment < third.moment  # type: ignore[operator] # each is a datetime by now


@pytest.mark.parametrize("limit", [0, -1, retention.BATCH + 1, True])
@pytest.mark.usefixtures("_types")
def test_a_limit_out_of_range_is_refused(limit: int) -> None:
    with pytest.raises(InvalidLimit, match="limit must be an integer from 1 to 5000"):
        pruned(Kept.DONE, limit=limit)


@pytest.mark.usefixtures("database")
def test_of_each_schedule_the_last_tick_stays() -> None:
    change(
        "INSERT INTO schedules (name, task, every_seconds, source) VALUES ('a', 't', 1, 'code'), ('b', 't', 1, 'code')"
    )
    change("""
INSERT INTO schedule_ticks (schedule, due_at, skipped, created_at)
SELECT s, at, 'paused', at FROM unnest('{a,b}'::text[]) AS s, generate_series(1, 3) AS n,
       LATERAL (SELECT statement_timestamp() - n * interval '20 h' AS at) m
 WHERE s = 'a' OR n > 1""")

    assert pruned(Kept.TICKS).removed == 3
    # Of `a` the one of 20 hours ago, which is young; of `b` the one of 40 hours ago, which is its last.
    assert rows("SELECT schedule, count(*) FROM schedule_ticks GROUP BY 1 ORDER BY 1") == [("a", 1), ("b", 1)]


@pytest.mark.usefixtures("database")
def test_what_operators_did_is_kept_for_a_year() -> None:
    change("""
INSERT INTO operator_actions (actor, action, subject, created_at)
SELECT 'ada', 'jobs.retry', age, statement_timestamp() - age::interval FROM unnest('{364 d,366 d}'::text[]) AS age""")

    assert pruned(Kept.ACTIONS).removed == 1
    assert rows("SELECT subject FROM operator_actions") == [("364 d",)]


# ---- a long ledger ---------------------------------------------------------------------------------------------------


@pytest.fixture
def _long(environ: dict[str, str]) -> None:
    make_type()
    fill(MANY, "done", ended_ago="2 d")
    fill(MANY // 100, "dead", ended_ago="2 d", attempts=1)
    with transaction() as session:
        session.execute(text("ANALYZE jobs, job_attempts"))


@pytest.mark.usefixtures("_long")
def test_a_batch_reads_no_more_than_itself_however_long_the_ledger_is() -> None:
    for mode in (CUSTOM, GENERIC):
        assert read_by(lambda session: prune(session, Kept.DONE, limit=LIMIT), mode) == LIMIT
        # The batch behind another one does not step over what that one has removed.
        assert read_by(_second, mode) == LIMIT


@pytest.mark.usefixtures("_long")
def test_without_the_place_where_the_last_batch_ended_each_one_steps_over_all_before() -> None:
    def from_the_start(session: Any) -> None:
        for _ in range(3):
            prune(session, Kept.DONE, limit=LIMIT)

    on = pages_of_last(_third)
    assert pages_of_last(from_the_start) > on * 1.2


def _second(session: Any) -> None:
    prune(session, Kept.DONE, prune(session, Kept.DONE, limit=LIMIT), limit=LIMIT)


def _third(session: Any) -> None:
    batch = None
    for _ in range(3):
        batch = prune(session, Kept.DONE, batch, limit=LIMIT)


def read_by(do: Callable[[Any], object], mode: str) -> int:
    """How many rows the scan of the last batch found or discarded; it is by index, and nothing is read whole."""
    with transaction() as session:
        with explained(session, mode) as plans:
            do(session)
        ours = [plan for plan in plans if "WITH old" in plan.statement]
        assert all(not plan.read_whole for plan in plans)
        scans = [node for node in ours[-1].nodes if node.get("Index Name") == "ix_jobs_ended"]
        session.rollback()
    (scan,) = scans
    return int(scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0))


def pages_of_last(do: Callable[[Any], object]) -> int:
    with transaction() as session:
        with explained(session, CUSTOM) as plans:
            do(session)
        ours = [plan for plan in plans if "WITH old" in plan.statement]
        scans = [node for node in ours[-1].nodes if node.get("Index Name") == "ix_jobs_ended"]
        session.rollback()
    return int(scans[0]["Shared Hit Blocks"] + scans[0]["Shared Read Blocks"])
