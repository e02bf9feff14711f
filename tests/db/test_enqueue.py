"""A job is a row of its caller's transaction: there at once, gone with it, one statement for as many as one likes."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from db import jobs
from db.errors import InvalidJob
from db.jobs import JobRequest
from db.session import transaction
from tests import ledger
from tests.db.sql import recorded, rows, value

pytestmark = pytest.mark.usefixtures("database")

TASK = "sample.count"


@pytest.fixture(autouse=True)
def known(database: None) -> None:
    """A task that takes a number."""
    ledger.make_type(TASK, queue="bulk", priority=3, max_attempts=7, number=["integer"])


def number_of_jobs() -> int:
    return int(value("SELECT count(*) FROM jobs"))


# ---- in the caller's transaction -------------------------------------------------------------------------------------


def test_the_row_is_there_at_once_for_its_transaction_and_for_others_when_that_commits() -> None:
    with transaction() as session:
        task_id = jobs.enqueue(session, TASK, 42)
        seen = session.execute(text("SELECT state FROM jobs WHERE task_id = :id"), {"id": task_id}).scalar_one()
        assert (seen, number_of_jobs()) == ("ready", 0)

    row = ledger.row(task_id)
    assert (row.task, row.args, row.kwargs, row.state, row.attempt) == (TASK, [42], {}, "ready", 0)


def test_a_savepoint_that_is_rolled_back_takes_its_jobs_with_it() -> None:
    with transaction() as session:
        kept = jobs.enqueue(session, TASK, 1)
        savepoint = session.begin_nested()
        jobs.enqueue(session, TASK, 2)
        jobs.enqueue_many(session, [JobRequest(TASK, (3,))])
        savepoint.rollback()

    assert rows("SELECT task_id FROM jobs") == [(kept,)]


def test_a_transaction_that_is_rolled_back_leaves_no_job() -> None:
    def enqueue_and_fail() -> None:
        with transaction() as session:
            jobs.enqueue(session, TASK, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        enqueue_and_fail()

    assert number_of_jobs() == 0


@pytest.mark.parametrize("count", [1, 2, 1_000])
def test_many_jobs_are_one_statement(count: int) -> None:
    with transaction() as session, recorded() as sent:
        jobs.enqueue_many(session, [JobRequest(TASK, (number,)) for number in range(count)])

    assert len(sent) == 1
    assert number_of_jobs() == count


def test_no_jobs_are_no_statement() -> None:
    with transaction() as session, recorded() as sent:
        assert jobs.enqueue_many(session, []) == []

    assert sent == []


@pytest.mark.parametrize("with_keys", [False, True], ids=["plain", "deduped"])
def test_the_ids_of_many_are_in_the_order_of_the_requests(with_keys: bool) -> None:
    keys = [f"key-{number}" if with_keys and number % 2 else None for number in range(200)]
    wanted = [JobRequest(TASK, (number,), dedupe_key=key) for number, key in enumerate(keys)]

    with transaction() as session:
        task_ids = jobs.enqueue_many(session, iter(wanted))

    written = rows("SELECT task_id, args FROM jobs ORDER BY id")
    assert written == [(task_id, [number]) for number, task_id in enumerate(task_ids)]


def test_ten_thousand_jobs_are_a_batch_and_one_more_is_refused() -> None:
    requests = [JobRequest(TASK, (number,)) for number in range(10_001)]

    with pytest.raises(InvalidJob, match="jobs are more than 10000 at once"), transaction() as session:
        jobs.enqueue_many(session, requests)
    refused = number_of_jobs()
    with transaction() as session:
        jobs.enqueue_many(session, requests[1:])

    assert (refused, number_of_jobs()) == (0, 10_000)


@pytest.mark.parametrize("wrong", [None, 7])
def test_what_is_no_list_of_jobs_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidJob, match="jobs must be a list of JobRequest"), transaction() as session:
        jobs.enqueue_many(session, wrong)


# ---- options ---------------------------------------------------------------------------------------------------------


def seconds_until(task_id: UUID, column: str) -> float:
    """How long after it was enqueued a moment of the job is."""
    row = ledger.row(task_id)
    return float((getattr(row, column) - row.created_at).total_seconds())


def test_what_is_not_said_is_as_the_task_was_declared() -> None:
    row = ledger.row(ledger.put(TASK, 1))

    assert (row.queue, row.priority, row.max_attempts) == ("bulk", 3, 7)
    assert (row.available_at, row.expires_at) == (row.created_at, None)
    assert (row.dedupe_key, row.ordering_key, row.cancel_requested) == (None, None, False)


@pytest.mark.parametrize("priority", [0, 9])
@pytest.mark.parametrize("max_attempts", [1, 1_000])
def test_priority_and_max_attempts_may_be_said(priority: int, max_attempts: int) -> None:
    row = ledger.row(ledger.put(TASK, 1, priority=priority, max_attempts=max_attempts))

    assert (row.priority, row.max_attempts) == (priority, max_attempts)


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [(0, 0), (90, 90), (1.5, 1.5), (timedelta(minutes=2), 120), (timedelta(days=365), 365 * 86_400)],
)
def test_a_delay_counts_from_the_databases_clock(delay: timedelta | float, seconds: float) -> None:
    assert seconds_until(ledger.put(TASK, 1, delay=delay), "available_at") == seconds


@pytest.mark.parametrize("at", [datetime(2020, 2, 29, 12, 30, 15, 250, UTC), datetime(1900, 1, 1, tzinfo=UTC)])
def test_a_moment_is_kept_as_it_was_said(at: datetime) -> None:
    assert ledger.row(ledger.put(TASK, 1, at=at)).available_at == at


def test_the_offset_of_a_moment_may_have_seconds() -> None:
    at = datetime(2020, 1, 1, tzinfo=timezone(timedelta(minutes=19, seconds=32)))

    assert ledger.row(ledger.put(TASK, 1, at=at)).available_at == at


@pytest.mark.parametrize("expires", [5, timedelta(hours=1)])
def test_a_job_expires_counted_from_now(expires: timedelta | float) -> None:
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires

    assert seconds_until(ledger.put(TASK, 1, expires=expires), "expires_at") == seconds


@pytest.mark.parametrize(("args", "kwargs"), [((5,), {}), ((), {"number": 5})], ids=["by place", "by name"])
def test_arguments_stay_as_they_were_given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    row = ledger.row(ledger.put(TASK, *args, **kwargs))

    assert (row.args, row.kwargs) == (list(args), kwargs)


def test_any_text_comes_back_as_it_was() -> None:
    ledger.make_type("sample.say", words=["string"])
    words = "Grüße 🧉 \\u0000 \\x00 \" ' \n % :name {0} \x7f"

    assert ledger.row(ledger.put("sample.say", words, ordering_key=words, dedupe_key=words)).args == [words]


# ---- ids -------------------------------------------------------------------------------------------------------------


def test_an_id_is_a_uuid_of_version_7_that_tells_the_millisecond() -> None:
    before = time.time() - 1
    with transaction() as session:
        task_ids = jobs.enqueue_many(session, [JobRequest(TASK, (number,)) for number in range(50)])
    after = time.time() + 1

    stamps = [task_id.int >> 80 for task_id in task_ids]
    assert {(task_id.version, task_id.variant) for task_id in task_ids} == {(7, UUID(int=0x8 << 60).variant)}
    assert before * 1_000 <= stamps[0] <= stamps[-1] <= after * 1_000
    assert len(set(task_ids)) == 50


def test_a_later_millisecond_has_a_greater_id() -> None:
    with transaction() as session:
        found = session.execute(
            text("SELECT harbor_uuid7(), pg_sleep(0.002) FROM generate_series(1, 50)"),
        ).all()

    task_ids = [task_id for task_id, _ in found]
    assert task_ids == sorted(task_ids)
    assert len({task_id.int >> 80 for task_id in task_ids}) == 50
