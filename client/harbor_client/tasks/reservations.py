"""The tasks of `reservations`. Written by `python -m worker.client_tasks`; do not edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harbor_client.statements import enqueue

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from harbor_client.statements import Enqueue


def confirm(
    reservation_id: int,
    payment_ref: str,
    *,
    delay: timedelta | float | None = None,
    at: datetime | None = None,
    priority: int | None = None,
    dedupe_key: str | None = None,
    ordering_key: str | None = None,
    max_attempts: int | None = None,
    expires: timedelta | float | None = None,
) -> Enqueue:
    """Sell the units of one hold, also when its payment came late. One that has to go back is kept, and told of."""
    return enqueue(
        "reservations.confirm",
        reservation_id=reservation_id,
        payment_ref=payment_ref,
        delay=delay,
        at=at,
        priority=priority,
        dedupe_key=dedupe_key,
        ordering_key=ordering_key,
        max_attempts=max_attempts,
        expires=expires,
    )


def expire(
    *,
    delay: timedelta | float | None = None,
    at: datetime | None = None,
    priority: int | None = None,
    dedupe_key: str | None = None,
    ordering_key: str | None = None,
    max_attempts: int | None = None,
    expires: timedelta | float | None = None,
) -> Enqueue:
    """Close due holds batch by batch until none is due or the time budget is spent."""
    return enqueue(
        "reservations.expire",
        delay=delay,
        at=at,
        priority=priority,
        dedupe_key=dedupe_key,
        ordering_key=ordering_key,
        max_attempts=max_attempts,
        expires=expires,
    )


def release(
    reservation_id: int,
    *,
    delay: timedelta | float | None = None,
    at: datetime | None = None,
    priority: int | None = None,
    dedupe_key: str | None = None,
    ordering_key: str | None = None,
    max_attempts: int | None = None,
    expires: timedelta | float | None = None,
) -> Enqueue:
    """Give the units of one hold back."""
    return enqueue(
        "reservations.release",
        reservation_id=reservation_id,
        delay=delay,
        at=at,
        priority=priority,
        dedupe_key=dedupe_key,
        ordering_key=ordering_key,
        max_attempts=max_attempts,
        expires=expires,
    )
