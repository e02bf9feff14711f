"""Who may run a job: of all that have its message one, and nobody when it is over, too late or used up."""

from __future__ import annotations

import importlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import text

from db import jobs
from db.session import transaction
from tests.db.sql import change, eventually, locked, somebody_waits_for_a_lock
from tests.ledger import (
    LEASE_SECONDS,
    attempts,
    claim,
    claimed,
    lease,
    make_type,
    pass_time,
    put,
    request_cancel,
    row,
    run_out,
    state,
    sweep,
)

if TYPE_CHECKING:
    from uuid import UUID

# The package's name for it is the function.
claims = importlib.import_module("db.jobs.claim")
CROWD = 8


@pytest.fixture(autouse=True)
def _count(database: None) -> None:
    make_type(number=["integer"])


def published(**options: object) -> UUID:
    task_id = put("sample.count", 7, **options)
    lease()
    return task_id


def claim_together(task_id: UUID) -> list[jobs.Claim]:
    """Let a crowd claim one job at the same moment; who got it."""
    start = threading.Barrier(CROWD)

    def one(_: int) -> jobs.Claim | None:
        start.wait()
        return claim(task_id)

    with ThreadPoolExecutor(CROWD) as pool:
        return [taken for taken in pool.map(one, range(CROWD)) if taken is not None]


# ---- what a claim is -------------------------------------------------------------------------------------------------


def test_a_claim_has_the_job_s_arguments_and_counts_its_attempt() -> None:
    task_id = put("sample.count", number=7, max_attempts=3)
    lease()

    taken = claim(task_id)

    assert taken is not None
    assert (taken.task_id, taken.task, taken.args, taken.kwargs) == (task_id, "sample.count", [], {"number": 7})
    assert (taken.attempt, taken.max_attempts, taken.completed, taken.stop) == (1, 3, False, None)


def test_a_claim_writes_its_token_and_a_lease_of_so_many_seconds() -> None:
    task_id = published()

    taken = claim(task_id)

    assert taken is not None
    found = row(task_id)
    assert (found.state, found.attempt, found.lease_token) == ("running", 1, taken.token)
    assert found.lease_until - found.started_at == timedelta(seconds=LEASE_SECONDS)


def test_each_claim_has_a_token_of_its_own() -> None:
    task_id = published()
    first = claim(task_id)
    assert first is not None
    run_out(first)

    second = claim(task_id)

    assert second is not None
    assert (first.token != second.token, first.attempt, second.attempt) == (True, 1, 2)


# ---- which jobs are taken --------------------------------------------------------------------------------------------


def test_a_job_whose_lease_is_over_is_taken_over_and_the_lost_attempt_is_told() -> None:
    first = claimed(number=7)
    run_out(first)

    assert claim(first.task_id) is not None

    assert attempts(first.task_id) == [(1, "lost", claims.LOST)]
    assert row(first.task_id).publish_count == 0  # Since it last started.


def test_a_job_whose_lease_lasts_is_not_taken() -> None:
    first = claimed(number=7)

    assert claim(first.task_id) is None

    assert row(first.task_id).lease_token == first.token


@pytest.mark.parametrize("answer", ["complete", "bury", "cancel_claimed", "give_back"])
def test_a_job_that_ended_or_was_given_back_is_not_taken_by_an_old_message(answer: str) -> None:
    taken = claimed(number=7)
    with transaction() as session:
        match answer:
            case "complete":
                taken.complete(session)
            case "give_back":
                jobs.give_back(session, taken)
            case _:
                getattr(jobs, answer)(session, taken, "a reason")
    before = row(taken.task_id)

    assert claim(taken.task_id) is None

    assert row(taken.task_id) == before


def test_a_job_that_was_never_published_is_not_taken() -> None:
    task_id = put("sample.count", 7)

    assert claim(task_id) is None
    assert state(task_id) == "ready"


def test_a_message_that_names_another_task_takes_nothing() -> None:
    make_type("sample.other")
    task_id = published()

    assert claim(task_id, "sample.other") is None
    assert state(task_id) == "published"


def test_a_message_without_a_row_takes_nothing() -> None:
    assert claim(uuid4()) is None


# ---- which end instead -----------------------------------------------------------------------------------------------

_EARLY = "cancelled, or expired, before it started"


def test_a_job_that_is_too_late_is_cancelled_instead_and_never_started() -> None:
    task_id = published(expires=60)
    pass_time(task_id, timedelta(seconds=61))

    assert claim(task_id) is None

    found = row(task_id)
    assert (found.state, found.attempt, found.started_at, found.lease_token) == ("cancelled", 0, None, None)
    assert attempts(task_id) == [(0, "cancelled", _EARLY)]


def test_a_job_that_was_asked_to_stop_before_its_worker_was_lost_is_cancelled() -> None:
    taken = claimed(number=7)
    assert request_cancel(taken.task_id) == "running"
    run_out(taken)

    assert claim(taken.task_id) is None

    assert state(taken.task_id) == "cancelled"
    assert attempts(taken.task_id) == [(1, "lost", claims.LOST), (1, "cancelled", _EARLY)]


def test_a_published_job_that_is_cancelled_is_over_at_once() -> None:
    task_id = published()

    assert request_cancel(task_id) == "cancelled"
    assert claim(task_id) is None
    assert row(task_id).finished_at is not None


def test_a_job_whose_attempts_are_used_up_is_dead_instead() -> None:
    taken = claimed(number=7, max_attempts=1)
    run_out(taken)

    assert claim(taken.task_id) is None

    assert (state(taken.task_id), row(taken.task_id).attempt) == ("dead", 1)
    assert attempts(taken.task_id) == [(1, "lost", claims.LOST), (1, "exhausted", "all 1 attempts are used up")]


def test_a_job_is_never_claimed_more_often_than_its_attempts_however_its_workers_die() -> None:
    task_id = put("sample.count", 7, max_attempts=4)
    runs = 0
    for number in range(12):
        change("UPDATE jobs SET available_at = statement_timestamp() WHERE task_id = :id", id=task_id)
        lease()
        taken = claim(task_id)
        if taken is not None:
            runs += 1
            run_out(taken)
        if number % 2:
            sweep()

    assert (runs, state(task_id)) == (4, "dead")
    assert [outcome for _, outcome, _ in attempts(task_id)][:4] == ["lost"] * 4


# ---- many at once ----------------------------------------------------------------------------------------------------


def test_of_many_that_claim_a_published_job_at_once_one_gets_it() -> None:
    task_id = published()

    [winner] = claim_together(task_id)

    assert (row(task_id).lease_token, row(task_id).attempt) == (winner.token, 1)


def test_of_many_that_claim_a_job_of_a_lost_worker_one_gets_it() -> None:
    first = claimed(number=7)
    run_out(first)

    [winner] = claim_together(first.task_id)

    assert (row(first.task_id).lease_token, winner.attempt) == (winner.token, 2)


def test_without_the_guard_on_its_state_many_would_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = "AND (state = 'published' OR state = 'running' AND lease_until <= statement_timestamp())"
    assert claims._CLAIM.text.count(guard) == 1
    monkeypatch.setattr(claims, "_CLAIM", text(claims._CLAIM.text.replace(guard, "")))
    task_id = published()

    assert len(claim_together(task_id)) == CROWD


def test_a_claim_waits_for_whoever_ends_the_job_and_then_gets_nothing() -> None:
    task_id = published()
    cancel = "UPDATE jobs SET state = 'cancelled' WHERE task_id = :id"
    with ThreadPoolExecutor(1) as pool:
        with locked(cancel, id=task_id) as other:
            claiming = pool.submit(claim, task_id)
            eventually(somebody_waits_for_a_lock)
            other.commit()
        assert claiming.result() is None
    assert state(task_id) == "cancelled"
