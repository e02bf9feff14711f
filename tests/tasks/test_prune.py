"""Pruning goes on while there is something old and time left, each kind in its turn."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from db.errors import JobLeaseLost
from db.jobs import retention
from db.jobs.retention import Batch, Kept
from db.session import transaction
from tasks.jobs import PRUNE_BUDGET, prune_all
from tests.db.sql import value
from tests.ledger import attempt, claimed, fill, make_type, run_out, state

if TYPE_CHECKING:
    from celery import Celery
    from sqlalchemy.orm import Session

_PLENTY = timedelta(seconds=30)


@pytest.fixture(autouse=True)
def _small(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.jobs.BATCH", 10)
    make_type()


def prune_in_batches(budget: timedelta, monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    """Which kinds were pruned, batch after batch."""
    asked: list[Kept] = []
    prune = retention.prune

    def noted(session: Session, kept: Kept, after: Batch | None, *, limit: int) -> Batch:
        asked.append(kept)
        return prune(session, kept, after, limit=limit)

    monkeypatch.setattr(retention, "prune", noted)
    prune_all(budget)
    return asked


def test_everything_that_is_old_goes_in_as_many_batches_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(25, "done", ended_ago="2 d")
    fill(4, "dead", ended_ago="31 d")
    fill(3, "done")

    asked = prune_in_batches(_PLENTY, monkeypatch)

    assert [asked.count(kept) for kept in Kept] == [3, 1, 1, 1, 1]
    assert value("SELECT count(*) FROM jobs") == 3


def test_without_time_each_kind_gets_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(25, "done", ended_ago="2 d")
    fill(4, "dead", ended_ago="31 d")

    asked = prune_in_batches(timedelta(0), monkeypatch)

    assert asked == list(Kept)
    assert value("SELECT count(*) FROM jobs WHERE state = 'done'") == 15
    assert value("SELECT count(*) FROM jobs WHERE state = 'dead'") == 0


def test_it_says_whether_it_finished() -> None:
    assert prune_all(_PLENTY).finished
    fill(3, "done", ended_ago="2 d")
    pruned = prune_all(_PLENTY)
    assert (pruned.removed[Kept.DONE], pruned.finished) == (3, True)


def test_a_prune_that_has_lost_its_lease_removes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = claimed()
    fill(3, "done", ended_ago="2 d")
    run_out(taken)
    with transaction() as session:
        session.execute(text("UPDATE jobs SET state = 'ready' WHERE id = :id"), {"id": taken.job_id})

    with pytest.raises(JobLeaseLost), attempt(taken, repeatable=True):
        prune_all(_PLENTY)

    assert value("SELECT count(*) FROM jobs WHERE state = 'done'") == 3
    assert state(taken.task_id) == "ready"


def test_beat_starts_it_each_minute_and_it_is_over_before_the_next(app: Celery) -> None:
    (entry,) = [entry for entry in app.conf.beat_schedule.values() if entry["task"] == "jobs.prune"]

    assert PRUNE_BUDGET.total_seconds() < entry["schedule"] == 60
    assert app.tasks["jobs.prune"].repeatable  # type: ignore[attr-defined]
    assert app.amqp.router.route({}, "jobs.prune")["queue"].name != "expiry"
