"""`celery -A bench.jobs.rivals.celery_app worker`: bare Celery, as its guide has it, with a task that adds one.

Measured here with two children: 655 jobs/s with SQLAlchemy in the task and 703 with psycopg alone, so psycopg it is.
Prefetching 1, 16 or 64 messages per child, or none (`worker_disable_prefetch`), was slower than the default of 4 or the
same: 603, 640, 622 and 624 jobs/s against 655.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Final

import psycopg
from celery import Celery
from celery.signals import worker_ready

from bench.jobs.effects import ADD_ONE

TASK: Final = "add_one"
READY: Final = "takes messages"
QUEUE: Final = "celery"  # Its default.

# Not the current app: other processes import this, too, and have one of their own.
app = Celery("bare", broker=os.environ.get("BENCH_JOBS_BROKER"), set_as_current=False)
app.conf.update(
    # At least once: acknowledged before it runs, a task would be lost with its worker.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
)


@worker_ready.connect
def _say_ready(**_: Any) -> None:
    print(READY, flush=True)


@cache
def _connection() -> psycopg.Connection[Any]:
    """Return the child's connection; the main process never asks for one, so none is inherited."""
    return psycopg.connect(os.environ["BENCH_JOBS_DATABASE"], autocommit=True)


@app.task(name=TASK, shared=False)
def add_one(row_id: int) -> None:
    """Add one to a row, in a transaction."""
    with _connection().transaction():
        _connection().execute(ADD_ONE.encode(), {"id": row_id})
