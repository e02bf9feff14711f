"""Ticks against the real database: each with its job or its reason, in the order of time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from db import schedule
from db.errors import InvalidJob
from db.schedule import Declaration, Ticked
from db.session import transaction
from tests import ledger
from tests.db.sql import change, locked, rows
from tests.schedules import at, jobs_of, make, since_start, tick, ticks

if TYPE_CHECKING:
    from uuid import UUID

pytestmark = pytest.mark.usefixtures("database")


def end(task_id: UUID) -> None:
    change("UPDATE jobs SET state = 'cancelled' WHERE task_id = :id", id=task_id)


def test_a_tick_and_its_job_are_written_together_and_nothing_before_it_is_due() -> None:
    make()

    assert tick(9.999) == Ticked()
    ticked = tick(10)

    assert ticked is not None
    assert [*ticked.task_ids] == jobs_of()
    assert rows("SELECT task_id FROM schedule_ticks") == [(jobs_of()[0],)]
    assert ticks() == [(10, "job")]
    assert tick(10.001) == Ticked()


def test_without_its_job_there_is_no_tick() -> None:
    make()
    change("DELETE FROM job_types WHERE task = 'sample.count'")

    with pytest.raises(InvalidJob, match=r"sample\.count: (jobs\[0\]\.)?task is unknown"):
        tick(10)

    assert ticks() == []
    ledger.make_type()
    tick(15)
    assert ticks() == [(10, "job")]


def test_an_interval_counts_from_the_unix_epoch_and_not_from_when_it_was_made() -> None:
    make(every=7.0)

    tick(30)

    (due, *_), last = [due for due, _ in ticks()], ticks()[-1][1]
    assert at(due).timestamp() % 7 == 0
    assert last == "job"


def test_the_job_gets_what_the_schedule_says() -> None:
    ledger.make_type("sample.note", text=["string"])
    options = {"priority": 2, "max_attempts": 3, "expires": timedelta(minutes=1), "ordering_key": "one at a time"}
    with transaction() as session:
        schedule.add(
            session, Declaration("notes", "sample.note", every_seconds=10, kwargs={"text": "on time"}, options=options)
        )
    since_start("notes")

    ticked = tick(10, "notes")

    assert ticked is not None
    job = ledger.row(ticked.task_ids[0])
    assert (job.kwargs, job.priority, job.max_attempts, job.ordering_key) == (
        {"text": "on time"},
        2,
        3,
        "one at a time",
    )
    assert job.expires_at - job.created_at == timedelta(minutes=1)


def test_a_tick_is_left_out_while_the_job_before_has_not_ended() -> None:
    make(overlap="skip")

    tick(10)
    (first,) = jobs_of()
    tick(20)
    end(first)
    tick(30)

    assert ticks() == [(10, "job"), (20, "overlap"), (30, "job")]


def test_a_running_job_keeps_the_next_tick_out_but_one_that_has_expired_unstarted_does_not() -> None:
    make(overlap="skip", options={"expires": 3_600})
    tick(10)
    (first,) = jobs_of()
    ledger.lease()
    ledger.claim(first)

    ledger.pass_time(first, timedelta(hours=2))
    tick(20)
    end(first)
    tick(30)
    second = jobs_of()[-1]
    tick(40)
    ledger.pass_time(second, timedelta(hours=2))
    tick(50)

    assert ticks() == [(10, "job"), (20, "overlap"), (30, "job"), (40, "overlap"), (50, "job")]


def test_overlapping_is_allowed_unless_the_schedule_says_otherwise() -> None:
    make()

    tick(10)
    tick(20)

    assert ticks() == [(10, "job"), (20, "job")]


def test_ticks_that_are_known_already_are_not_decided_again() -> None:
    make(catch_up="all")
    tick(20)

    change("UPDATE schedules SET last_due_at = NULL")
    ticked = tick(30)

    assert ticked is not None
    assert ticked.decided == 1
    assert ticks() == [(10, "job"), (20, "job"), (30, "job")]
    assert len(jobs_of()) == 3


def test_a_schedule_that_another_beat_is_at_is_passed_over() -> None:
    make()

    with locked("SELECT FROM schedules WHERE name = 'counts' FOR UPDATE"):
        assert tick(10) is None

    assert tick(10) != Ticked()
    assert tick(10, "nothing of this name") is None
