"""The tasks of `jobs`. Written by `python -m worker.client_tasks`; do not edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harbor_client.statements import enqueue

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from harbor_client.statements import Enqueue


def prune(
    *,
    delay: timedelta | float | None = None,
    at: datetime | None = None,
    priority: int | None = None,
    dedupe_key: str | None = None,
    ordering_key: str | None = None,
    max_attempts: int | None = None,
    expires: timedelta | float | None = None,
) -> Enqueue:
    """Remove batch by batch what is old enough, until nothing is or the time budget is spent."""
    return enqueue(
        "jobs.prune",
        delay=delay,
        at=at,
        priority=priority,
        dedupe_key=dedupe_key,
        ordering_key=ordering_key,
        max_attempts=max_attempts,
        expires=expires,
    )
