"""What the database itself keeps of a job, whoever writes: which state follows which, and no row half of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from db import jobs
from db.jobs import ARROWS, JobState
from db.session import transaction
from tests.db.sql import change, value
from tests.ledger import claim, claimed, lease, make_type, put, row, state

if TYPE_CHECKING:
    from uuid import UUID

REFUSED = "HB011"

# What a row needs besides its state, so that only the arrow can be refused.
_NEEDS = {
    "running": ", lease_token = gen_random_uuid(), lease_until = statement_timestamp(), attempt = greatest(attempt, 1)",
    "done": ", attempt = greatest(attempt, 1), started_at = coalesce(started_at, statement_timestamp())",
}


@pytest.fixture(autouse=True)
def _count(database: None) -> None:
    make_type()


def job_in(wanted: str, **options: object) -> UUID:
    """A job that has come to a state as jobs do."""
    if wanted in {"running", "done", "dead", "cancelled"}:
        taken = claimed(**options)  # type: ignore[arg-type]
        with transaction() as session:
            if wanted == "done":
                taken.complete(session)
            elif wanted == "dead":
                jobs.bury(session, taken, "for good")
            elif wanted == "cancelled":
                jobs.cancel_claimed(session, taken, "not wanted")
        return taken.task_id
    task_id = put(**options)  # type: ignore[arg-type]
    if wanted == "published":
        lease()
    return task_id


def move(task_id: UUID, after: str) -> None:
    change(f"UPDATE jobs SET state = '{after}'{_NEEDS.get(after, '')} WHERE task_id = :id", id=task_id)


PAIRS = [(before, after) for before in JobState for after in JobState]


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if pair in ARROWS or pair[0] == pair[1]])
def test_an_arrow_leads_from_state_to_state(before: JobState, after: JobState) -> None:
    task_id = job_in(before)

    move(task_id, after)

    assert state(task_id) == after


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if pair not in ARROWS and pair[0] != pair[1]])
def test_every_other_change_of_state_is_refused(before: JobState, after: JobState) -> None:
    task_id = job_in(before)

    with pytest.raises(DBAPIError, match=f"cannot go from {before} to {after}") as refused:
        move(task_id, after)

    assert refused.value.orig is not None
    assert refused.value.orig.sqlstate == REFUSED  # type: ignore[attr-defined]
    assert state(task_id) == before


def test_without_the_trigger_a_job_that_is_done_would_run_again() -> None:
    task_id = job_in("done")

    with transaction() as session:
        session.execute(text("ALTER TABLE jobs DISABLE TRIGGER harbor_job_moves"))
        session.execute(
            text("UPDATE jobs SET state = 'ready', finished_at = NULL WHERE task_id = :id"), {"id": task_id}
        )
        session.execute(text("UPDATE jobs SET available_at = statement_timestamp()"))
        session.execute(text("ALTER TABLE jobs ENABLE TRIGGER harbor_job_moves"))
    [message] = lease()

    assert claim(message.task_id) is not None


# ---- no row is half of two states ------------------------------------------------------------------------------------

HALVES = [
    ("ready", "lease_token = gen_random_uuid()", "leased_when_running"),
    ("ready", "lease_until = statement_timestamp()", "leased_when_running"),
    ("ready", "lease_token = gen_random_uuid(), lease_until = statement_timestamp()", "leased_when_running"),
    ("running", "lease_token = NULL", "leased_when_running"),
    ("running", "lease_until = NULL", "leased_when_running"),
    ("done", "lease_token = gen_random_uuid(), lease_until = statement_timestamp()", "leased_when_running"),
    ("ready", "finished_at = statement_timestamp()", "finished_when_ended"),
    ("running", "finished_at = statement_timestamp()", "finished_when_ended"),
    ("done", "finished_at = NULL", "finished_when_ended"),
    ("dead", "finished_at = NULL", "finished_when_ended"),
    ("cancelled", "finished_at = NULL", "finished_when_ended"),
    ("published", "published_at = NULL", "published"),
    ("running", "started_at = NULL", "started"),
    ("running", "attempt = 0", "started"),
    ("done", "started_at = NULL", "started"),
    ("done", "attempt = 0", "started"),
    ("ready", "attempt = -1", "attempts"),
    ("ready", "attempt = max_attempts + 1", "attempts"),
    ("ready", "max_attempts = 0", "attempts"),
    ("ready", "blocked = true", "blocked_when_ready"),
    ("published", "blocked = true, ordering_key = 'k'", "blocked_when_ready"),
    ("done", "blocked = true, ordering_key = 'k'", "blocked_when_ready"),
    ("ready", "priority = 10", "priority"),
    ("ready", "priority = -1", "priority"),
    ("ready", "args = '{}'", "arguments"),
    ("ready", "kwargs = '[]'", "arguments"),
]


@pytest.mark.parametrize(("before", "half", "constraint"), HALVES)
def test_half_a_state_is_refused(before: str, half: str, constraint: str) -> None:
    task_id = job_in(before)

    with pytest.raises(IntegrityError) as refused:
        change(f"UPDATE jobs SET {half} WHERE task_id = :id", id=task_id)

    assert refused.value.orig is not None
    assert refused.value.orig.diag.constraint_name == f"ck_jobs_{constraint}"  # type: ignore[attr-defined]


def test_every_check_of_the_table_is_in_this_list() -> None:
    checks = value("SELECT array_agg(conname) FROM pg_constraint WHERE conrelid = 'jobs'::regclass AND contype = 'c'")

    assert {f"ck_jobs_{constraint}" for _, _, constraint in HALVES} | {"ck_jobs_state"} == set(checks)


_COPY = """
INSERT INTO jobs (task_id, task, queue, priority, args, kwargs, max_attempts, state, published_at, ordering_key,
                  dedupe_key)
SELECT {task_id}, task, queue, priority, args, kwargs, max_attempts, {state}, {published_at}, ordering_key, dedupe_key
  FROM jobs WHERE task_id = :id"""


@pytest.mark.parametrize(
    ("options", "copied", "constraint"),
    [
        ({}, {"task_id": "task_id"}, "uq_jobs_task_id"),
        ({}, {"state": "'asleep'"}, "ck_jobs_state"),
        ({"dedupe_key": "k"}, {}, "uq_jobs_dedupe_key"),
        (
            {"ordering_key": "k"},
            {"state": "'published'", "published_at": "statement_timestamp()"},
            "uq_jobs_ordering_key_in_flight",
        ),
    ],
)
def test_a_second_row_for_the_same_is_refused(
    options: dict[str, object], copied: dict[str, str], constraint: str
) -> None:
    task_id = job_in("published", **options)
    copy = _COPY.format(**{"task_id": "gen_random_uuid()", "state": "'ready'", "published_at": "NULL"} | copied)

    with pytest.raises(IntegrityError) as refused:
        change(copy, id=task_id)

    assert refused.value.orig is not None
    assert refused.value.orig.diag.constraint_name == constraint  # type: ignore[attr-defined]


# ---- what a move stamps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["ready", "done", "dead", "cancelled"])
def test_whoever_leaves_running_has_no_lease_any_more(after: str) -> None:
    task_id = job_in("running")

    change(f"UPDATE jobs SET state = '{after}' WHERE task_id = :id", id=task_id)

    assert (row(task_id).lease_token, row(task_id).lease_until) == (None, None)
    assert (row(task_id).finished_at is None) == (after == "ready")


def test_publishing_stamps_when_and_counts_how_often() -> None:
    task_id = job_in("published")
    first = row(task_id)
    change("UPDATE jobs SET state = 'ready', available_at = statement_timestamp() WHERE task_id = :id", id=task_id)

    lease()

    assert (first.publish_count, row(task_id).publish_count) == (1, 2)
    assert row(task_id).published_at > first.published_at > first.created_at


def test_an_operator_s_retry_takes_the_end_back() -> None:
    task_id = job_in("dead")

    change("UPDATE jobs SET state = 'ready' WHERE task_id = :id", id=task_id)

    assert row(task_id).finished_at is None


def test_a_new_claim_of_a_running_job_is_no_change_of_state() -> None:
    task_id = job_in("running")
    before = row(task_id)

    change("UPDATE jobs SET state = 'running', lease_token = gen_random_uuid() WHERE task_id = :id", id=task_id)

    assert row(task_id).started_at == before.started_at


# ---- one ordering key ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["done", "dead", "cancelled"])
def test_the_end_of_a_job_lets_the_next_of_its_ordering_key_go_and_no_other(end: str) -> None:
    first = claimed(ordering_key="k")
    second, third = put(ordering_key="k"), put(ordering_key="k")
    assert lease() == []
    assert (row(second).blocked, row(third).blocked) == (True, True)

    change(f"UPDATE jobs SET state = '{end}' WHERE task_id = :id", id=first.task_id)

    assert (row(second).blocked, row(third).blocked) == (False, True)


def test_a_job_that_is_tried_again_goes_before_the_others_of_its_key() -> None:
    first, second = claimed(ordering_key="k"), put(ordering_key="k")
    lease()

    with transaction() as session:
        jobs.give_back(session, first)

    assert [message.task_id for message in lease()] == [first.task_id]
    assert lease() == []
    assert state(second) == "ready"
