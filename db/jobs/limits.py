"""What operators say about a queue: paused or not, how many jobs at once, how many a second. All its workers obey.

It is the relay that obeys: it publishes nothing from a paused queue, and no more than the limits allow. Jobs that were
published before are not called back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from db.checks import MAX_QTY, checked_limit, checked_text
from db.errors import InvalidRate, QueueNotFound, shown
from db.jobs.operators import record
from db.jobs.publish import READY, queues_of
from db.settings import POOLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

LEAST_RATE: Final = 0.001
MOST_RATE: Final = 1_000_000.0

_TOLD: Final = text("SELECT queue FROM job_types UNION SELECT queue FROM queue_control")
_LIVE: Final = tuple(
    text(f"WITH {queues_of(state)} SELECT queue FROM found WHERE queue IS NOT NULL")
    for state in (READY, "state = 'published'", "state = 'running'")
)
_CONTROL: Final = text("SELECT paused, max_in_flight, rate_per_second FROM queue_control WHERE queue = :queue")
_PAUSE: Final = text("""
INSERT INTO queue_control (queue, paused) VALUES (:queue, :paused)
ON CONFLICT (queue) DO UPDATE SET paused = excluded.paused WHERE queue_control.paused <> excluded.paused
RETURNING paused""")
# What is left of the second's worth that the bucket holds must not be more than the new rate gives.
_LIMIT: Final = text("""
INSERT INTO queue_control AS c (queue, max_in_flight, rate_per_second) VALUES (:queue, :max_in_flight, :rate_per_second)
ON CONFLICT (queue) DO UPDATE
   SET max_in_flight = CASE WHEN :sets_in_flight THEN excluded.max_in_flight ELSE c.max_in_flight END,
       rate_per_second = CASE WHEN :sets_rate THEN excluded.rate_per_second ELSE c.rate_per_second END,
       tokens = CASE WHEN :sets_rate THEN least(c.tokens, greatest(1, excluded.rate_per_second)) ELSE c.tokens END,
       refilled_at = CASE WHEN :sets_rate THEN statement_timestamp() ELSE c.refilled_at END""")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What a queue is told; None is no limit."""

    paused: bool = False
    max_in_flight: int | None = None
    rate_per_second: float | None = None


def queues(session: Session) -> list[str]:
    """Return every queue: those of the worker pools, of tasks, of what operators said, and of jobs that have not ended.

    A queue of jobs that has no pool is one that nobody reads.
    """
    found = {*POOLS, *session.scalars(_TOLD)}
    for statement in _LIVE:
        found.update(session.scalars(statement))
    return sorted(found)


def limits_of(session: Session, queue: str) -> QueueLimits:
    """Return what a queue is told now."""
    row = session.execute(_CONTROL, {"queue": queue}).one_or_none()
    return QueueLimits() if row is None else QueueLimits(*row)


def pause(session: Session, queue: str, actor: str) -> bool:
    """Publish nothing more from a queue, and write down who said so; False when it was paused already.

    Raises:
        InvalidText: actor is no name.
        QueueNotFound: there is no such queue.
    """
    return _set_paused(session, queue, actor, paused=True)


def resume(session: Session, queue: str, actor: str) -> bool:
    """Let a paused queue go on; False when it was not paused. Raises as `pause` does."""
    return _set_paused(session, queue, actor, paused=False)


def limit(session: Session, queue: str, changes: Mapping[str, Any], actor: str) -> QueueLimits:
    """Change the limits of a queue for all its workers together, write down who did, and return what they are now.

    Args:
        session: the caller's; nothing is committed.
        queue: which one.
        changes: `max_in_flight`, how many jobs may be published or running at once; `rate_per_second`, how many may be
            published a second. None lifts a limit; one that is not named stays as it is.
        actor: who does it.

    Raises:
        InvalidInput: a limit is out of range, or actor is no name.
        QueueNotFound: there is no such queue.
    """
    _check_queue(session, queue)
    told = {
        "max_in_flight": changes.get("max_in_flight"),
        "rate_per_second": changes.get("rate_per_second"),
    }
    if told["max_in_flight"] is not None:
        checked_limit("max_in_flight", told["max_in_flight"], most=MAX_QTY)
    if told["rate_per_second"] is not None:
        _check_rate(told["rate_per_second"])
    sets = {"sets_in_flight": "max_in_flight" in changes, "sets_rate": "rate_per_second" in changes}
    session.execute(_LIMIT, {"queue": queue, **told, **sets})
    now = limits_of(session, queue)
    record(session, actor, "queues.limit", queue, max_in_flight=now.max_in_flight, rate_per_second=now.rate_per_second)
    return now


def _set_paused(session: Session, queue: str, actor: str, *, paused: bool) -> bool:
    _check_queue(session, queue)
    before = limits_of(session, queue).paused
    if before == paused or session.execute(_PAUSE, {"queue": queue, "paused": paused}).first() is None:
        return False
    record(session, actor, "queues.pause" if paused else "queues.resume", queue)
    return True


def _check_queue(session: Session, queue: str) -> None:
    known = queues(session)
    if checked_text("queue", queue) not in known:
        raise QueueNotFound(queue=queue, queues=known)


def _check_rate(rate: object) -> None:
    # A comparison with NaN is false, whichever it is.
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not LEAST_RATE <= rate <= MOST_RATE:
        raise InvalidRate(field="rate_per_second", least=LEAST_RATE, most=f"{MOST_RATE:.0f}", value=shown(rate))
