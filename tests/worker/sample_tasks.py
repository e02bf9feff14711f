"""`celery -A tests.worker.sample_tasks worker`: Harbor's app with tasks that misbehave, each in one way.

Their names begin with `sample`, which no route knows, so they go to the queue `default`.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import structlog
from celery.signals import task_postrun
from sqlalchemy import text

from db import engine
from db.errors import VariantNotFound
from db.session import transaction
from tasks.declare import task
from worker.celery import app

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["app"]

log = structlog.get_logger()

SOFT_SHUTDOWN_SECONDS = 2
ADVISORY_LOCK = 42
"""What `sample.wait_for_lock` waits for. Any number that no other test locks."""

app.conf.worker_soft_shutdown_timeout = SOFT_SHUTDOWN_SECONDS

_leaked: list[Connection] = []


@task("sample.read")
def read() -> None:
    with transaction() as session:
        session.execute(text("SELECT 1"))


@task("sample.add")
def add(first: int, second: int) -> None:
    log.info("sample.added", total=first + second)


@task("sample.twice")
def twice() -> None:
    for _ in range(2):
        with transaction() as session:
            session.execute(text("SELECT 1"))


@task("sample.repeat", repeatable=True)
def repeat() -> None:
    for _ in range(2):
        with transaction() as session:
            session.execute(text("SELECT 1"))


@task("sample.refuse")
def refuse() -> None:
    with transaction():
        raise VariantNotFound(variant_ids=[7])


@task("sample.break_down")
def break_down() -> None:
    with transaction() as session:
        session.execute(text("SELECT 1"))
        raise LookupError("nobody expected this")


@task("sample.wait_for_lock")
def wait_for_lock() -> None:
    with transaction() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})


@task("sample.leak")
def leak() -> None:
    _leaked.append(engine.engine().connect())


@task("sample.hang")
def hang() -> None:
    log.info("sample.hangs", pid=os.getpid())
    threading.Event().wait(120)


@task_postrun.connect
def _count_connections(task_id: str, **_: Any) -> None:
    log.info("sample.pool", task_id=task_id, checked_out=engine.engine().pool.checkedout())  # type: ignore[attr-defined]
