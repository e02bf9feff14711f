"""`celery -A tests.concurrency.chaos_tasks worker`: tasks with an effect that shows when it is there twice.

The effect is a row of its own, without a key: nothing but the ledger keeps a second one away, and no lock of the
effect's keeps two copies apart by accident.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from sqlalchemy import text

from db.session import transaction
from db.statements import current
from tasks.declare import task
from worker.celery import app

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from db.jobs import Claim

__all__ = ["app"]

_LONG_SECONDS = 3.0  # Longer than a lease: only the heartbeat keeps it.


def _claim() -> Claim | None:
    """The claim that this is run under; None of a message that has no row."""
    scope = current.get()
    assert scope is not None
    return scope.claim


def _act(session: Session, key: str | None, pause_seconds: float = 0.0) -> None:
    """Have the effect of this job, and write down when it began, when it was over, and under which attempt."""
    claim = _claim()
    # The name tells whoever wants to meet a process in the middle of a transaction which one that is.
    begin = "SELECT clock_timestamp(), set_config('application_name', :name, true)"
    begun_at, _ = session.execute(text(begin), {"name": f"chaos {os.getpid()}"}).one()
    session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": pause_seconds})
    told = {
        "key": key,
        "task_id": None if claim is None else claim.task_id,
        "attempt": None if claim is None else claim.attempt,
        "begun_at": begun_at,
    }
    written = """
INSERT INTO chaos_effects (key, task_id, attempt, begun_at, ended_at)
VALUES (:key, :task_id, :attempt, :begun_at, clock_timestamp())"""
    session.execute(text(written), told)


@task("chaos.effect")
def effect(key: str, pause_seconds: float = 0.0) -> None:
    with transaction() as session:
        _act(session, key, pause_seconds)


@task("chaos.long")
def long(key: str) -> None:
    threading.Event().wait(_LONG_SECONDS)
    with transaction() as session:
        _act(session, key)


@task("chaos.flaky")
def flaky(key: str) -> None:
    """Fail once, after the effect and before its commit."""
    claim = _claim()
    assert claim is not None
    with transaction() as session:
        _act(session, key)
        if claim.attempt == 1:
            raise ConnectionError("the other side did not answer")


@task("chaos.steps", repeatable=True)
def steps(key: str) -> None:
    """Have the effect in the last of two transactions, unless an earlier attempt did.

    It looks without a lock: what keeps a worker that lost its lease from adding a second one is the ledger's fence.
    """
    claim = _claim()
    assert claim is not None
    with transaction() as session:
        session.execute(text("INSERT INTO chaos_steps (task_id) VALUES (:id)"), {"id": claim.task_id})
    with transaction() as session:
        there = "SELECT EXISTS (SELECT FROM chaos_effects WHERE task_id = :id)"
        if not session.execute(text(there), {"id": claim.task_id}).scalar_one():
            _act(session, key, pause_seconds=0.02)


@task("chaos.tick")
def tick() -> None:
    with transaction() as session:
        _act(session, None)
