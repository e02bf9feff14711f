"""`celery -A tests.worker.sample_tasks worker`: Harbor's app with tasks that misbehave, each in one way.

Their names begin with `sample`, which no route knows, so they go to the queue `default`.
"""

from __future__ import annotations

import os
import signal
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

# The 25 s of celeryconfig are too long for a test that waits for them.
app.conf.worker_soft_shutdown_timeout = float(os.environ["SAMPLE_SOFT_SHUTDOWN_SECONDS"])

_leaked: list[Connection] = []


@task("sample.read")
def read() -> None:
    with transaction() as session:
        name = session.execute(text("SELECT current_setting('application_name')")).scalar()
    log.info("sample.read", application_name=name)


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
def wait_for_lock(key: int) -> None:
    with transaction() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


@task("sample.leak")
def leak() -> None:
    _leaked.append(engine.engine().connect())


@task("sample.nap")
def nap(seconds: float) -> None:
    log.info("sample.naps")
    threading.Event().wait(seconds)


@task("sample.die", max_retries=1, default_retry_delay=1)
def die() -> None:
    log.info("sample.dies")
    os.kill(os.getpid(), signal.SIGKILL)


@task_postrun.connect
def _count_connections(task_id: str, **_: Any) -> None:
    # On its own line and not a field of the task's: a test that reads this has waited until the task was over.
    pool: Any = engine.engine().pool
    log.info("sample.over", over=task_id, pool_size=pool.size(), checked_out=pool.checkedout())
