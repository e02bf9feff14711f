"""The effect of a job and its end commit together or not at all, and whoever has lost the job commits nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from db.errors import JobCancelled, JobLeaseLost, SecondTransaction
from db.session import transaction
from db.statements import TimedConnection
from tests.db.sql import change, value
from tests.ledger import (
    attempt,
    before_commit,
    claimed,
    effects,
    elsewhere,
    have_effect,
    lease,
    make_type,
    put,
    request_cancel,
    row,
    run_by,
    run_out,
    state,
    sweep,
    taken_over,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ONE_OR_SEVERAL = pytest.mark.parametrize("repeatable", [False, True], ids=["one transaction", "repeatable"])


@pytest.fixture(autouse=True)
def _count(database: None) -> None:
    make_type()


def end_its_backend(session: Session) -> None:
    """The server ends the connection, as at a failover."""
    mine = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    elsewhere(lambda: value("SELECT pg_terminate_backend(:mine, 5000)", mine=mine))


# ---- together or not at all ------------------------------------------------------------------------------------------


def test_the_one_transaction_of_a_task_completes_its_job() -> None:
    taken = claimed()

    run_by(taken)

    assert (effects(taken.task_id), state(taken.task_id), taken.completed) == (1, "done", True)


def test_each_transaction_of_a_repeatable_task_commits_and_none_completes() -> None:
    taken = claimed()

    with attempt(taken, repeatable=True):
        have_effect(taken)
        have_effect(taken)

    assert (effects(taken.task_id), state(taken.task_id), taken.completed) == (2, "running", False)


def test_an_error_takes_the_effect_and_the_end_back() -> None:
    taken = claimed()

    def fail() -> None:
        raise LookupError

    with attempt(taken), pytest.raises(LookupError):
        have_effect(taken, fail)

    assert (effects(taken.task_id), state(taken.task_id), taken.completed) == (0, "running", False)


@ONE_OR_SEVERAL
def test_a_connection_that_dies_before_the_commit_leaves_neither(repeatable: bool) -> None:
    taken = claimed()

    with attempt(taken, repeatable=repeatable), pytest.raises(OperationalError), before_commit(end_its_backend):
        have_effect(taken)

    assert (effects(taken.task_id), state(taken.task_id), taken.completed) == (0, "running", False)


def test_a_connection_that_dies_in_the_commit_leaves_both_or_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = claimed()
    commit = TimedConnection.commit

    def committed_but_unanswered(connection: TimedConnection) -> None:
        commit(connection)
        connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with attempt(taken), monkeypatch.context() as cut:
        cut.setattr(TimedConnection, "commit", committed_but_unanswered)
        with pytest.raises(OperationalError):
            have_effect(taken)

    assert (effects(taken.task_id), state(taken.task_id)) == (1, "done")
    # The worker does not know: it must not take the job for its own any more, nor for completed.
    assert not taken.completed
    with pytest.raises(JobLeaseLost), transaction() as session:
        taken.complete(session)


def test_a_commit_that_a_deferred_constraint_refuses_leaves_the_job_to_be_completed() -> None:
    change("CREATE TABLE promised (id int PRIMARY KEY, next int REFERENCES promised DEFERRABLE INITIALLY DEFERRED)")
    taken = claimed()

    try:
        with attempt(taken), pytest.raises(IntegrityError), transaction() as session:
            session.execute(text("INSERT INTO promised VALUES (1, 2)"))
    finally:
        change("DROP TABLE promised")

    assert (state(taken.task_id), taken.completed) == ("running", False)


# ---- who has lost it commits nothing ---------------------------------------------------------------------------------


@ONE_OR_SEVERAL
def test_a_worker_whose_job_was_taken_over_commits_nothing(repeatable: bool) -> None:
    late = claimed()
    now = taken_over(late)

    with attempt(late, repeatable=repeatable), pytest.raises(JobLeaseLost):
        have_effect(late)

    assert (effects(late.task_id), row(late.task_id).lease_token) == (0, now.token)


@ONE_OR_SEVERAL
def test_a_worker_whose_job_was_swept_commits_nothing(repeatable: bool) -> None:
    late = claimed()
    run_out(late)
    assert sweep().lease_expired == 1

    with attempt(late, repeatable=repeatable), pytest.raises(JobLeaseLost):
        have_effect(late)

    assert (effects(late.task_id), state(late.task_id)) == (0, "ready")


@ONE_OR_SEVERAL
def test_a_worker_that_loses_its_job_while_it_works_commits_nothing(repeatable: bool) -> None:
    late = claimed()

    with attempt(late, repeatable=repeatable), pytest.raises(JobLeaseLost):
        have_effect(late, lambda: elsewhere(lambda: run_by(taken_over(late))))

    assert (effects(late.task_id), state(late.task_id)) == (1, "done")


def test_each_transaction_of_a_repeatable_task_is_fenced() -> None:
    late = claimed()

    with attempt(late, repeatable=True):
        have_effect(late)
        now = taken_over(late)
        with pytest.raises(JobLeaseLost):
            have_effect(late)

    assert (effects(late.task_id), row(late.task_id).lease_token) == (1, now.token)


def test_a_lease_that_ran_out_and_that_nobody_took_is_still_good_for_a_commit() -> None:
    taken = claimed()
    run_out(taken)

    run_by(taken)

    assert (effects(taken.task_id), state(taken.task_id)) == (1, "done")


def test_nobody_takes_a_job_between_the_last_statement_and_the_commit() -> None:
    taken = claimed()
    run_out(taken)
    swept: list[int] = []

    # A sweep passes over the row, which the fence has locked.
    with attempt(taken, repeatable=True), before_commit(lambda _: swept.append(elsewhere(sweep).lease_expired)):
        have_effect(taken)

    assert (swept, effects(taken.task_id)) == ([0], 1)


# ---- who is asked to stop commits nothing ----------------------------------------------------------------------------


@ONE_OR_SEVERAL
def test_a_job_that_was_asked_to_stop_commits_nothing(repeatable: bool) -> None:
    taken = claimed()

    with attempt(taken, repeatable=repeatable), pytest.raises(JobCancelled):
        have_effect(taken, lambda: elsewhere(lambda: request_cancel(taken.task_id)))

    assert (effects(taken.task_id), state(taken.task_id), taken.completed) == (0, "running", False)


@pytest.mark.parametrize("reason", [JobCancelled, JobLeaseLost])
def test_what_the_heartbeat_has_seen_stops_the_next_transaction_before_it_opens(reason: type[Any]) -> None:
    taken = claimed()
    taken.stop = reason

    with attempt(taken), pytest.raises(reason):
        have_effect(taken)

    assert effects(taken.task_id) == 0


# ---- one transaction -------------------------------------------------------------------------------------------------


def test_a_second_transaction_inside_the_first_is_refused_and_nothing_is_committed() -> None:
    taken = claimed()

    with attempt(taken), pytest.raises(SecondTransaction):
        have_effect(taken, lambda: have_effect(taken))

    assert (effects(taken.task_id), state(taken.task_id)) == (0, "running")


def test_a_job_enqueued_by_a_job_is_there_when_that_is_done_and_only_then() -> None:
    taken = claimed()
    with attempt(taken), transaction() as session:
        next_id = session.execute(text("SELECT harbor_enqueue_v1('sample.count')")).scalar_one()
        assert elsewhere(lease) == []

    assert [message.task_id for message in lease()] == [next_id]
    assert put() != next_id
