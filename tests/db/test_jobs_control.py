"""What a person or a service does to one job: only where that can be done, and written down in the same transaction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from db import jobs
from db.errors import InvalidText, JobCancelled, JobHasSuccessor, JobNotFound, JobNotMoved
from db.jobs import JobState, Verb, control
from db.session import transaction
from tests.db.sql import eventually, locked, somebody_waits_for_a_lock
from tests.ledger import (
    attempt,
    attempts,
    buried,
    claim,
    claimed,
    lease,
    make_type,
    operator_actions,
    pass_time,
    put,
    row,
    state,
)


@pytest.fixture(autouse=True)
def _count(database: None) -> None:
    make_type()


def act(verb: Verb, task_id: UUID, actor: str = "ada") -> JobState:
    with transaction() as session:
        return control.act(session, verb, task_id, actor)


def in_state(wanted: str) -> UUID:
    """A job in a state."""
    if wanted == "ready":
        return put()
    if wanted == "published":
        task_id = put()
        lease()
        return task_id
    taken = claimed()
    with transaction() as session:
        if wanted == "done":
            taken.complete(session)
        elif wanted == "dead":
            jobs.bury(session, taken, "for good")
        elif wanted == "cancelled":
            jobs.cancel_claimed(session, taken, "not wanted")
    return taken.task_id


@pytest.mark.parametrize(
    ("verb", "was", "then"),
    [
        (Verb.RETRY, "dead", "ready"),
        (Verb.RETRY, "cancelled", "ready"),
        (Verb.CANCEL, "ready", "cancelled"),
        (Verb.CANCEL, "published", "cancelled"),
        (Verb.CANCEL, "running", "running"),
        (Verb.BURY, "ready", "dead"),
        (Verb.BURY, "published", "dead"),
    ],
)
def test_what_is_done_is_written_down_with_who_did_it(verb: Verb, was: str, then: str) -> None:
    task_id = in_state(was)

    answered = act(verb, task_id)

    assert answered == state(task_id) == then
    assert operator_actions() == [("ada", f"jobs.{verb}", str(task_id), {"was": was})]


@pytest.mark.parametrize(
    ("verb", "was"),
    [(verb, was) for verb in Verb for was in JobState if was not in control.FROM[verb]],
)
def test_what_cannot_be_done_in_a_state_is_refused_and_nothing_is_written(verb: Verb, was: str) -> None:
    task_id = in_state(was)
    before = row(task_id), attempts(task_id)

    with pytest.raises(JobNotMoved, match=rf"^Job {task_id} is {was}, and only one that is "):
        act(verb, task_id)

    assert (row(task_id), attempts(task_id)) == before
    assert operator_actions() == []


@pytest.mark.parametrize("verb", list(Verb))
def test_a_job_that_does_not_exist_is_named(verb: Verb) -> None:
    with pytest.raises(JobNotFound, match="does not exist"):
        act(verb, uuid4())


@pytest.mark.parametrize("actor", ["", " ", "x" * 201, "a\0b"])
def test_without_a_name_nothing_is_done(actor: str) -> None:
    task_id = put()

    with pytest.raises(InvalidText, match="actor"):
        act(Verb.BURY, task_id, actor)

    assert state(task_id) == "ready"


def test_a_job_that_is_retried_starts_over_and_runs_to_its_end() -> None:
    task_id = buried(max_attempts=1, expires=3_600)
    pass_time(task_id, timedelta(hours=2))  # By now its time is over, too.

    act(Verb.RETRY, task_id)

    again = row(task_id)
    assert (again.attempt, again.publish_count, again.cancel_requested) == (0, 0, False)
    assert (again.finished_at, again.expires_at) == (None, None)
    assert attempts(task_id)[-1] == (1, "retried", None)
    lease()
    running = claim(task_id)
    assert running is not None
    with attempt(running), transaction():
        pass
    assert state(task_id) == "done"


def test_a_job_that_was_cancelled_while_it_ran_runs_when_it_is_retried() -> None:
    taken = claimed()
    act(Verb.CANCEL, taken.task_id)
    with transaction() as session:
        jobs.cancel_claimed(session, taken, "asked to stop")

    act(Verb.RETRY, taken.task_id)

    lease()
    assert claim(taken.task_id) is not None


def test_a_job_with_a_live_successor_of_its_dedupe_key_is_not_retried() -> None:
    old = buried(dedupe_key="k")
    new = put(dedupe_key="k")

    with pytest.raises(JobHasSuccessor, match=rf"{old} .* job {new} "):
        act(Verb.RETRY, old)

    assert state(old) == "dead"
    assert operator_actions() == []


def test_a_job_whose_successor_was_asked_to_stop_is_retried() -> None:
    old = buried(dedupe_key="k")
    new = claimed(dedupe_key="k")
    act(Verb.CANCEL, new.task_id)

    assert act(Verb.RETRY, old) == "ready"


@pytest.mark.parametrize(("looks", "error"), [(control._RACES, JobHasSuccessor), (1, IntegrityError)])
def test_a_successor_that_is_enqueued_at_the_same_moment_is_seen_at_the_second_look(
    monkeypatch: pytest.MonkeyPatch, looks: int, error: type[Exception]
) -> None:
    """With one look, the negative control, it fails as PostgreSQL says it."""
    monkeypatch.setattr(control, "_RACES", looks)
    old = buried(dedupe_key="k")
    enqueue = """SELECT harbor_enqueue_v1('sample.count', options => '{"dedupe_key": "k"}')"""

    with locked(enqueue) as other, ThreadPoolExecutor(1) as pool:
        retried = pool.submit(act, Verb.RETRY, old)
        eventually(somebody_waits_for_a_lock)
        other.commit()
        with pytest.raises(error):
            retried.result()

    assert state(old) == "dead"
    assert operator_actions() == []


def test_burying_the_first_of_a_key_lets_the_next_one_go() -> None:
    first, second = put(ordering_key="k"), put(ordering_key="k")
    lease()
    assert row(second).blocked

    act(Verb.BURY, first)

    assert [message.task_id for message in lease()] == [second]


def test_a_worker_does_not_commit_what_an_operator_has_cancelled() -> None:
    taken = claimed()
    act(Verb.CANCEL, taken.task_id)

    with pytest.raises(JobCancelled), attempt(taken), transaction() as session:
        session.execute(text("INSERT INTO operator_actions (actor, action, subject) VALUES ('job', 'effect', 'x')"))

    assert [action for _, action, *_ in operator_actions()] == ["jobs.cancel"]


def test_a_service_asks_how_its_job_stands_and_cancels_it() -> None:
    task_id = put()

    with transaction() as session:
        before = jobs.status(session, task_id)
        answered = jobs.cancel(session, task_id)
        after = jobs.status(session, task_id)

    assert (before.state, before.task, before.attempt, before.error) == (JobState.READY, "sample.count", 0, None)
    assert answered is after.state is JobState.CANCELLED
    assert after.finished_at is not None


def test_a_service_that_cancels_what_has_ended_learns_how() -> None:
    task_id = in_state("done")

    with transaction() as session:
        assert jobs.cancel(session, task_id) is JobState.DONE


@pytest.mark.parametrize("ask", [jobs.status, jobs.cancel])
def test_a_service_is_told_that_there_is_no_such_job(ask: Any) -> None:
    with transaction() as session, pytest.raises(JobNotFound):
        ask(session, uuid4())
