"""`celery -A tests.bench.losing worker`: Harbor's worker, and a task that comes to nothing for every other message."""

from __future__ import annotations

from typing import Any

from tasks.declare import task
from worker.celery import app

__all__ = ["app"]


@task("bench.rest", bind=True)
def rest(self: Any) -> None:
    if int(self.request.id[-1], 16) % 2:
        raise LookupError("nobody expected this")
