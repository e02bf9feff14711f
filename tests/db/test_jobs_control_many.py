"""What is done to many jobs: exactly to those that were counted, in batches that each leave a true record."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db import jobs
from db.errors import InvalidAge, InvalidInput, InvalidLimit, InvalidState
from db.jobs import JobFilter, JobState, Verb, control, many
from db.session import snapshot, transaction
from tests.db.sql import rows, value
from tests.ledger import before_commit, claimed, fill, lease, make_type, put, row, state

DEAD = JobFilter(states=(JobState.DEAD,))
WAITING = JobFilter(states=(JobState.READY, JobState.PUBLISHED))


@pytest.fixture(autouse=True)
def _types(database: None) -> None:
    make_type()
    make_type("sample.other", queue="bulk")


def selected(verb: Verb, wanted: JobFilter, **options: Any) -> many.Selected:
    with snapshot() as session:
        return many.selected(session, verb, wanted, **options)


def move(verb: Verb, ids: list[int], wanted: JobFilter = DEAD) -> int:
    """One batch, as the command does its first."""
    with transaction() as session:
        return many.move_batch(session, verb, ids, "ada", many.begin(session, verb, wanted, len(ids), "ada"))


def counts() -> dict[str, int]:
    return dict(rows("SELECT state, count(*) FROM jobs GROUP BY state"))


def test_a_filter_takes_what_it_says_and_no_more() -> None:
    fill(3, "dead")
    fill(2, "dead", task="sample.other")
    fill(1, "done")
    old = put(delay=60)
    with transaction() as session:
        session.execute(
            text("UPDATE jobs SET created_at = created_at - interval '1 hour' WHERE task_id = :i"), {"i": old}
        )
    hour = timedelta(minutes=59)

    def amount(verb: Verb, *states: JobState, **wanted: Any) -> int:
        return len(selected(verb, JobFilter(states=states, **wanted)).ids)

    assert amount(Verb.RETRY, JobState.DEAD) == 5
    assert amount(Verb.RETRY, JobState.DEAD, task="sample.other") == 2
    assert amount(Verb.RETRY, JobState.DEAD, queue="bulk") == 0  # `fill` puts all of them into the default queue.
    assert amount(Verb.RETRY, JobState.DEAD, task="nothing.like_it") == 0
    assert amount(Verb.CANCEL, JobState.READY, older_than=hour) == 1
    assert amount(Verb.CANCEL, JobState.READY, newer_than=hour) == 0
    assert selected(Verb.RETRY, DEAD).states == {JobState.DEAD: 5}


def test_more_than_the_most_are_told_of() -> None:
    fill(5, "dead")

    found = selected(Verb.RETRY, DEAD, most=3)

    assert (len(found.ids), found.more) == (3, True)
    assert found.ids == sorted(found.ids)
    assert not selected(Verb.RETRY, DEAD, most=5).more


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (JobFilter(), InvalidState),
        (JobFilter(states=(JobState.DONE,)), InvalidState),
        (JobFilter(states=(JobState.DEAD,), task=""), InvalidInput),
        (JobFilter(states=(JobState.DEAD,), queue="a\0b"), InvalidInput),
        (JobFilter(states=(JobState.DEAD,), older_than=timedelta(seconds=-1)), InvalidAge),
        (JobFilter(states=(JobState.DEAD,), newer_than=timedelta(days=40_000)), InvalidAge),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(wanted: JobFilter, error: type[Exception]) -> None:
    with pytest.raises(error):
        selected(Verb.RETRY, wanted)
    with pytest.raises(InvalidLimit, match="most"):
        selected(Verb.RETRY, DEAD, most=0)


def test_a_record_counts_on_with_each_batch() -> None:
    fill(5, "dead")
    ids = selected(Verb.RETRY, DEAD).ids
    with transaction() as session:
        action_id = many.begin(session, Verb.RETRY, DEAD, 5, "ada")
        many.move_batch(session, Verb.RETRY, ids[:2], "ada", action_id)
    first = value("SELECT details FROM operator_actions")
    with transaction() as session:
        many.move_batch(session, Verb.RETRY, ids[2:], "ada", action_id)

    assert first == {"filter": {"states": ["dead"]}, "asked": 5, "moved": 2}
    assert rows("SELECT actor, action, subject, details->'moved' FROM operator_actions") == [
        ("ada", "jobs.retry", "*", 5)
    ]
    assert counts() == {"ready": 5}


def test_a_batch_that_fails_leaves_neither_jobs_nor_its_count() -> None:
    fill(2, "dead")

    ids = selected(Verb.RETRY, DEAD).ids

    def fail(_session: object) -> None:
        raise RuntimeError

    with before_commit(fail), pytest.raises(RuntimeError):
        move(Verb.RETRY, ids)

    assert counts() == {"dead": 2}
    assert value("SELECT count(*) FROM operator_actions") == 0


def test_a_job_that_has_moved_on_since_it_was_counted_is_left_alone() -> None:
    put()
    started = claimed()
    with transaction() as session:
        jobs.give_back(session, started)
    ids = selected(Verb.BURY, WAITING).ids
    lease()
    with transaction() as session:
        assert jobs.claim(session.connection(), started.task_id, started.task, 30) is not None

    assert move(Verb.BURY, ids, WAITING) == 1
    assert state(started.task_id) == "running"


@pytest.mark.parametrize(("verb", "then"), [(Verb.BURY, "dead"), (Verb.CANCEL, "cancelled")])
def test_all_jobs_of_one_ordering_key_end_together(verb: Verb, then: str) -> None:
    keyed = [put(ordering_key="k") for _ in range(4)]
    lease()
    assert [row(task_id).blocked for task_id in keyed] == [False, True, True, True]

    assert move(verb, selected(verb, WAITING).ids, WAITING) == 4
    assert counts() == {then: 4}


def test_without_lifting_the_blocks_before_the_end_of_one_would_stand_in_the_way_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "_UNBLOCK", text("SELECT :ids"))
    for _ in range(4):
        put(ordering_key="k")
    lease()
    ids = selected(Verb.BURY, WAITING).ids

    with pytest.raises(OperationalError, match="already modified"):
        move(Verb.BURY, ids, WAITING)


def test_of_several_with_one_dedupe_key_one_is_retried() -> None:
    old = []
    for _ in range(2):
        taken = claimed(dedupe_key="k")
        with transaction() as session:
            jobs.bury(session, taken, "for good")
        old.append(taken.task_id)
    fill(1, "dead")

    assert move(Verb.RETRY, selected(Verb.RETRY, DEAD).ids) == 2
    assert [state(task_id) for task_id in old] == ["ready", "dead"]


def test_a_running_job_is_asked_to_stop_and_the_others_are_cancelled() -> None:
    live = JobFilter(states=control.FROM[Verb.CANCEL])
    running, ready = claimed(), put()

    assert move(Verb.CANCEL, selected(Verb.CANCEL, live).ids, live) == 2
    assert (state(running.task_id), row(running.task_id).cancel_requested) == ("running", True)
    assert state(ready) == "cancelled"
