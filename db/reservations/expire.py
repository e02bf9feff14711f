"""A hold that nobody confirmed gives its units back: the sweep, one bounded batch per transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from db.checks import checked_limit
from db.reservations.hold import HoldState
from db.reservations.units import close, closing, give_back

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

MAX_BATCH: Final = 5_000

# How long a sweep waits for a variant, and lets buyers of others wait that it has locked already. Buyers keep a row for
# milliseconds; who keeps one longer is a session that was forgotten open, and must not stop everybody's holds.
_HURRY: Final = text("SET LOCAL lock_timeout = '500ms'")

# SKIP LOCKED lets several sweeps share the work, and leaves alone what a buyer is reclaiming at this moment.
_DUE: Final = """
SELECT id FROM stock_reservations r
 WHERE state = 'held' AND expires_at <= statement_timestamp(){but}
 ORDER BY expires_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED"""

_EXPIRE_DUE = closing(HoldState.EXPIRED, _DUE.format(but=""))

_EXPIRE_DUE_BUT_BUSY = closing(
    HoldState.EXPIRED,
    _DUE.format(
        but="""
   AND NOT EXISTS (SELECT FROM stock_reservation_lines l
                    WHERE l.reservation_id = r.id AND l.variant_id = ANY (CAST(:busy AS bigint[])))"""
    ),
)

_VARIANTS_OF_DUE = text("""
SELECT DISTINCT variant_id FROM stock_reservation_lines
 WHERE reservation_id = ANY (ARRAY(
   SELECT id FROM stock_reservations WHERE state = 'held' AND expires_at <= statement_timestamp()))
""")

_FREE = text("""
SELECT id FROM variants WHERE id = ANY (CAST(:variant_ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
""")


def expire_due(session: Session, limit: int = 500, *, pass_over_busy: bool = False) -> int:
    """Close up to `limit` holds whose time is over, oldest first, put their units back on sale and return how many.

    Several may run at once: each takes holds that no other has. Fewer than `limit` means that nothing else was due
    which nobody else had locked.

    Args:
        session: the caller's session; nothing is committed. From here on it waits half a second for a lock.
        limit: 1 to 5,000.
        pass_over_busy: leave holds alone whose variants somebody has locked at this moment.

    Raises:
        InvalidLimit: limit is not 1 to 5,000.
        OperationalError: a variant stayed locked for half a second; the transaction cannot go on.
    """
    told: dict[str, Any] = {"limit": checked_limit("limit", limit, most=MAX_BATCH)}
    if pass_over_busy:
        closed = close(session, _EXPIRE_DUE_BUT_BUSY, {**told, "busy": _busy(session)})
    else:
        closed = close(session, _EXPIRE_DUE, told)
    if closed.units:
        session.execute(_HURRY)
        give_back(session, closed.units)
    return closed.holds


def _busy(session: Session) -> list[int]:
    """Return which variants of due holds, however many are due, somebody else has locked."""
    wanted = set(session.execute(_VARIANTS_OF_DUE).scalars())
    with session.begin_nested() as savepoint:
        free = set(session.execute(_FREE, {"variant_ids": list(wanted)}).scalars())
        savepoint.rollback()
    return sorted(wanted - free)


@dataclass(slots=True)
class BatchSize:
    """How many holds the next batch takes: as many as fit the time a buyer may be kept waiting for a variant's lock.

    Doubling while a batch takes less than half of `target_seconds` and halving when it takes more finds that size
    within a few batches on any machine. Of 100 to 5,000 holds per batch, larger ones swept up to five times as many a
    second (measured); 250 ms keeps the worst batch under half a second.
    """

    limit: int = 500
    target_seconds: float = 0.25
    least: int = 50

    def took(self, seconds: float) -> None:
        """Learn from a full batch that took `seconds`."""
        if seconds > self.target_seconds:
            self.limit = max(self.least, self.limit // 2)
        elif seconds < self.target_seconds / 2:
            self.limit = min(MAX_BATCH, self.limit * 2)
