"""`harbor worker -- --include bench.jobs.harbor_app`: Harbor's worker, and a task that adds one, declared like any."""

from __future__ import annotations

from typing import Any, Final

from celery.signals import worker_ready
from sqlalchemy import text

from bench.jobs.effects import ADD_ONE
from db.session import transaction
from tasks.declare import task

TASK: Final = "bench.add_one"
READY: Final = "takes messages"

ADD_ONE_AS_SQL: Final = text(ADD_ONE.replace("%(id)s", ":id"))


@worker_ready.connect
def _say_ready(**_: Any) -> None:
    print(READY, flush=True)


@task(TASK)
def add_one(row_id: int) -> None:
    """Add one to a row, in the task's one transaction, which also writes that the job is done."""
    with transaction() as session:
        session.execute(ADD_ONE_AS_SQL, {"id": row_id})
