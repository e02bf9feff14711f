"""The tasks of `inventory`. Written by `python -m worker.client_tasks`; do not edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harbor_client.statements import UNSET, enqueue

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from harbor_client.statements import Enqueue


def reconcile(
    after: int = UNSET,
    *,
    delay: timedelta | float | None = None,
    at: datetime | None = None,
    priority: int | None = None,
    dedupe_key: str | None = None,
    ordering_key: str | None = None,
    max_attempts: int | None = None,
    expires: timedelta | float | None = None,
) -> Enqueue:
    """Report every variant whose units do not add up. Repairs nothing: that is for the one who finds out why."""
    return enqueue(
        "inventory.reconcile",
        after=after,
        delay=delay,
        at=at,
        priority=priority,
        dedupe_key=dedupe_key,
        ordering_key=ordering_key,
        max_attempts=max_attempts,
        expires=expires,
    )
