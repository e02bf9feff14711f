"""`celery -A bench.worker.harbor worker`: Harbor's app, with a task that does nothing, declared as every task is."""

from __future__ import annotations

from tasks.declare import task
from worker.celery import app

__all__ = ["app"]


@task("bench.rest")
def rest() -> None:
    """Do nothing."""
