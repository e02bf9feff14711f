"""Jobs of one ordering_key have ids in the order in which their transactions commit: who comes second waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from db import jobs
from db.jobs import JobRequest
from db.session import transaction
from tests import ledger
from tests.db.sql import eventually, rows, somebody_waits_for_a_lock, value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.orm import Session

TASK = "sample.count"
KEY = "order-1"
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"

shared_database = pytest.mark.usefixtures("known")


def batch(session: Session, keys: Sequence[str | None]) -> list[UUID]:
    return jobs.enqueue_many(session, [JobRequest(TASK, (n,), ordering_key=key) for n, key in enumerate(keys)])


def put_batch(*keys: str | None) -> list[UUID]:
    with transaction() as session:
        return batch(session, keys)


def put_one(key: str | None) -> list[UUID]:
    return [ledger.put(TASK, 0, ordering_key=key)]


@pytest.fixture
def known(database: None) -> None:
    ledger.make_type(TASK, number=["integer"])


@shared_database
@pytest.mark.parametrize("second", [[KEY], [None, KEY], ["other", KEY]], ids=["one", "behind one without", "of two"])
@pytest.mark.parametrize("first", [[KEY], [None, KEY]], ids=["one", "behind one without"])
def test_the_second_to_enqueue_a_key_waits_until_the_first_has_committed(
    first: list[str | None], second: list[str | None]
) -> None:
    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            before = jobs.enqueue(session, TASK, 0, ordering_key=KEY) if len(first) == 1 else batch(session, first)[-1]
            waiting = other.submit(put_one, KEY) if len(second) == 1 else other.submit(put_batch, *second)
            eventually(somebody_waits_for_a_lock)
        after = waiting.result()[-1]

    assert rows("SELECT task_id FROM jobs WHERE ordering_key = :key ORDER BY id", key=KEY) == [(before,), (after,)]


@shared_database
def test_nobody_waits_who_has_another_key_or_none() -> None:
    with ThreadPoolExecutor(1) as other, transaction() as session:
        jobs.enqueue(session, TASK, 0, ordering_key=KEY)

        assert other.submit(put_batch, None, "order-2").result(timeout=20)
        assert other.submit(put_one, None).result(timeout=20)


@shared_database
def test_a_job_without_a_key_takes_no_lock() -> None:
    with transaction() as session:
        batch(session, [None] * 3)
        jobs.enqueue(session, TASK, 1)

        assert value(LOCKS) == 0


@shared_database
def test_a_batch_of_many_keys_takes_few_of_the_locks_that_all_sessions_share() -> None:
    with transaction() as session:
        batch(session, [f"order-{number}" for number in range(5_000)])

        assert 900 < value(LOCKS) <= 1_024


@shared_database
def test_two_batches_with_the_same_keys_in_opposite_order_do_not_deadlock() -> None:
    with ThreadPoolExecutor(2) as others:
        with transaction() as session:
            jobs.enqueue(session, TASK, 0, ordering_key="b")
            forth, back = others.submit(put_batch, "a", "b", "c"), others.submit(put_batch, "c", "b", "a")
            eventually(lambda: somebody_waits_for_a_lock(2))

        assert [len(forth.result()), len(back.result())] == [3, 3]


# ---- each guard, taken away ------------------------------------------------------------------------------------------


def test_without_their_order_two_such_batches_deadlock(environ: dict[str, str]) -> None:
    ledger.make_type(TASK, number=["integer"])
    ledger.replace_in_function("harbor_lock_job_keys", "SELECT DISTINCT (hash", "SELECT (hash")
    ledger.replace_in_function("harbor_lock_job_keys", "ORDER BY 1", "")
    with ThreadPoolExecutor(2) as others:
        with transaction() as session:
            jobs.enqueue(session, TASK, 0, ordering_key="b")
            forth, back = others.submit(put_batch, "a", "b", "c"), others.submit(put_batch, "c", "b", "a")
            eventually(lambda: somebody_waits_for_a_lock(2))

        errors = [each.exception() for each in (forth, back)]

    assert "deadlock detected" in "".join(map(str, errors))


def test_without_the_lock_ids_are_not_in_the_order_of_commits(environ: dict[str, str]) -> None:
    ledger.make_type(TASK, number=["integer"])
    ledger.replace_in_function("harbor_lock_job_keys", "PERFORM pg_advisory_xact_lock(1212240450, v_lock);", "NULL;")
    with ThreadPoolExecutor(1) as other, transaction() as session:
        later = jobs.enqueue(session, TASK, 0, ordering_key=KEY)
        (earlier,) = other.submit(put_one, KEY).result(timeout=20)

    assert rows("SELECT task_id FROM jobs ORDER BY id") == [(later,), (earlier,)]
