"""While a job with a dedupe_key has not ended, whoever enqueues the key again gets that job, and nothing is written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db import engine, jobs
from db.jobs import JobRequest
from db.session import transaction
from tests import ledger
from tests.db.sql import change, eventually, rows, somebody_waits_for_a_lock, value

if TYPE_CHECKING:
    from uuid import UUID

TASK = "sample.count"
KEY = "order-1"

shared_database = pytest.mark.usefixtures("database")


def put() -> UUID:
    ledger.make_type(TASK, number=["integer"])
    return ledger.put(TASK, 1, dedupe_key=KEY)


def put_batch(*keys: str) -> list[UUID]:
    with transaction() as session:
        return jobs.enqueue_many(session, [JobRequest(TASK, (n,), dedupe_key=key) for n, key in enumerate(keys)])


def move(*states: str) -> None:
    """Let the only job go from state to state, as relays, workers and operators do."""
    for state in states:
        change(
            "UPDATE jobs SET state = :state, attempt = attempt + (:state = 'running')::int,"
            " lease_token = CASE WHEN :state = 'running' THEN gen_random_uuid() END,"
            " lease_until = CASE WHEN :state = 'running' THEN now() END",
            state=state,
        )


def keys_in_order() -> list[str]:
    return [key for (key,) in rows("SELECT dedupe_key FROM jobs ORDER BY id")]


@shared_database
@pytest.mark.parametrize("states", [(), ("published",), ("published", "running")], ids=" ".join)
def test_a_job_that_has_not_ended_keeps_its_key(states: tuple[str, ...]) -> None:
    first = put()
    move(*states)

    assert put() == first
    assert put_batch(KEY, KEY) == [first, first]
    assert value("SELECT count(*) FROM jobs") == 1


@shared_database
@pytest.mark.parametrize("states", [("published", "running", "done"), ("dead",), ("cancelled",)], ids=" ".join)
def test_a_job_that_has_ended_frees_its_key(states: tuple[str, ...]) -> None:
    first = put()
    move(*states)

    second = put()

    assert second != first
    assert put() == second


@shared_database
def test_the_same_key_twice_in_one_batch_is_one_job() -> None:
    ledger.make_type(TASK, number=["integer"])

    first, other, again = put_batch("a", "b", "a")

    assert (first == again, first == other) == (True, False)
    assert keys_in_order() == ["a", "b"]


@shared_database
def test_a_batch_may_mix_jobs_with_and_without_a_key() -> None:
    first = put()

    with transaction() as session:
        task_ids = jobs.enqueue_many(session, [JobRequest(TASK, (7,)), JobRequest(TASK, (8,), dedupe_key=KEY)])

    assert task_ids[1] == first
    assert ledger.row(task_ids[0]).args == [7]
    assert value("SELECT count(*) FROM jobs") == 2


@shared_database
def test_a_key_whose_savepoint_was_rolled_back_is_free() -> None:
    ledger.make_type(TASK, number=["integer"])
    with transaction() as session:
        savepoint = session.begin_nested()
        gone = jobs.enqueue(session, TASK, 1, dedupe_key=KEY)
        savepoint.rollback()
        kept = jobs.enqueue(session, TASK, 1, dedupe_key=KEY)

    assert gone != kept
    assert rows("SELECT task_id FROM jobs") == [(kept,)]


@shared_database
@pytest.mark.parametrize("commits", [True, False], ids=["commits", "rolls back"])
def test_who_comes_second_waits_for_the_first_and_gets_its_job_if_it_commits(commits: bool) -> None:
    ledger.make_type(TASK, number=["integer"])
    with ThreadPoolExecutor(1) as other, engine.engine().connect() as connection:
        first = connection.execute(
            text("SELECT harbor_enqueue_v1(:task, '[1]', '{}', :options)"),
            {"task": TASK, "options": f'{{"dedupe_key": "{KEY}"}}'},
        ).scalar_one()
        second = other.submit(put)
        eventually(somebody_waits_for_a_lock)
        connection.commit() if commits else connection.rollback()

        assert (second.result() == first) is commits

    assert rows("SELECT task_id FROM jobs") == [(second.result(),)]


@shared_database
def test_a_stricter_transaction_is_told_to_try_again_when_the_job_came_after_it_began() -> None:
    ledger.make_type(TASK, number=["integer"])
    with engine.engine().connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SELECT 1"))
        put()
        with pytest.raises(OperationalError) as refused:
            connection.execute(
                text("SELECT harbor_enqueue_v1(:task, '[1]', '{}', :options)"),
                {"task": TASK, "options": f'{{"dedupe_key": "{KEY}"}}'},
            )

    assert getattr(refused.value.orig, "sqlstate", "") == "40001"


@shared_database
def test_two_batches_with_the_same_keys_in_opposite_order_do_not_deadlock() -> None:
    ledger.make_type(TASK, number=["integer"])
    with ThreadPoolExecutor(2) as others:
        with transaction() as session:
            jobs.enqueue(session, TASK, 0, dedupe_key="b")
            forth, back = others.submit(put_batch, "a", "b", "c"), others.submit(put_batch, "c", "b", "a")
            eventually(lambda: somebody_waits_for_a_lock(2))

        assert forth.result() == back.result()[::-1]

    assert sorted(keys_in_order()) == ["a", "b", "c"]


def test_without_their_locks_two_such_batches_deadlock(environ: dict[str, str]) -> None:
    ledger.make_type(TASK, number=["integer"])
    ledger.replace_in_function("harbor_lock_job_keys", "PERFORM pg_advisory_xact_lock(1212240450, v_lock);", "NULL;")
    with ThreadPoolExecutor(2) as others:
        with transaction() as session:
            jobs.enqueue(session, TASK, 0, dedupe_key="b")
            forth, back = others.submit(put_batch, "a", "b", "c"), others.submit(put_batch, "c", "b", "a")
            eventually(lambda: somebody_waits_for_a_lock(2))

        errors = [each.exception() for each in (forth, back)]

    assert "deadlock detected" in "".join(map(str, errors))


@shared_database
def test_a_job_that_is_too_late_and_that_nobody_has_ended_keeps_no_other_out() -> None:
    ledger.make_type(TASK, number=["integer"])
    late = ledger.put(TASK, 1, dedupe_key=KEY, expires=5)
    ledger.pass_time(late, timedelta(seconds=6))

    other = put()

    assert other != late
    assert (ledger.state(late), ledger.state(other)) == ("cancelled", "ready")


@shared_database
def test_a_job_that_was_asked_to_stop_keeps_no_other_out() -> None:
    stopping = put()
    ledger.lease()
    assert ledger.claim(stopping, TASK) is not None
    change(f"SELECT harbor_cancel_v1('{stopping}')")

    other = put()

    assert other != stopping
    assert (ledger.state(stopping), ledger.state(other)) == ("running", "ready")


def test_without_the_unique_index_the_same_key_is_written_twice(environ: dict[str, str]) -> None:
    change("DROP INDEX uq_jobs_dedupe_key")
    ledger.replace_in_function(
        "harbor_insert_jobs",
        "ON CONFLICT (dedupe_key)\n    WHERE dedupe_key IS NOT NULL AND NOT cancel_requested"
        " AND state IN ('ready', 'published', 'running') DO NOTHING",
        "",
    )

    assert put() != put()
    assert value("SELECT count(*) FROM jobs") == 2
