"""`celery -A tests.bench.repeating worker`: bare Celery that runs every other message twice."""

from __future__ import annotations

from typing import Any

from celery.signals import task_success

from bench.worker.bare import app

__all__ = ["app"]


@task_success.connect
def _again(sender: Any, **_: Any) -> None:
    if int(sender.request.id[-1], 16) % 2 and not sender.request.retries:
        sender.apply_async(task_id=sender.request.id, retries=1)
