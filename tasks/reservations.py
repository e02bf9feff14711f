"""Holds end on time: the sweep that Beat starts, and the two endings that other services ask for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError

from db import reservations
from db.session import transaction
from tasks.declare import task

log = structlog.get_logger()

# Below the five seconds between two ticks, so that sweeps do not pile up behind a long one.
SWEEP_BUDGET: Final = timedelta(seconds=4)


@task("reservations.release")
def release(reservation_id: int) -> None:
    """Give the units of one hold back."""
    with transaction() as session:
        reservations.release(session, reservation_id)


@task("reservations.confirm")
def confirm(reservation_id: int, payment_ref: str) -> None:
    """Sell the units of one hold, also when its payment came late. One that has to go back is kept, and told of."""
    with transaction() as session:
        answer = reservations.confirm_or_reacquire(session, reservation_id, payment_ref)
    if isinstance(answer, reservations.RefundRequired):
        told = {"reservation_id": reservation_id, "order_id": answer.order_id, "reason": answer.reason.value}
        log.warning("payment.to_refund", **told)


@task("reservations.expire", repeatable=True)
def expire() -> None:
    """Close due holds batch by batch until none is due or the time budget is spent."""
    swept = sweep(SWEEP_BUDGET)
    if swept.holds:
        log.info("reservations.expired", holds=swept.holds, batches=swept.batches, finished=swept.finished)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did; `finished` says that nothing else was due which nobody else had locked."""

    holds: int
    batches: int
    finished: bool
    worst_batch_seconds: float


def sweep(budget: timedelta) -> Swept:
    """Close due holds, one bounded batch per transaction, until none is due or `budget` has passed.

    When a variant stays locked, the holds that want it are passed over: one session that somebody forgot open must not
    keep everybody's holds from ending.
    """
    size = reservations.BatchSize()
    ends = time.monotonic() + budget.total_seconds()
    holds = batches = 0
    worst_seconds = 0.0
    busy = False
    while True:
        limit, started = size.limit, time.monotonic()
        try:
            with transaction() as session:
                closed = reservations.expire_due(session, limit, pass_over_busy=busy)
        except OperationalError as error:
            if busy or not isinstance(error.orig, LockNotAvailable):
                raise
            busy = True
            continue
        took_seconds = time.monotonic() - started
        holds, batches, worst_seconds = holds + closed, batches + 1, max(worst_seconds, took_seconds)
        if closed < limit or time.monotonic() >= ends:
            return Swept(holds, batches, closed < limit and not busy, worst_seconds)
        size.took(took_seconds)
