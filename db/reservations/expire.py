"""A hold that nobody confirmed gives its units back: the sweep, one bounded batch per transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from db.checks import checked_limit
from db.reservations.hold import HoldState
from db.reservations.units import close, closing, give_back, lock_variants

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

MAX_BATCH: Final = 5_000

# SKIP LOCKED lets several sweeps share the work, and leaves alone what a buyer is reclaiming at this moment.
_EXPIRE_DUE = closing(
    HoldState.EXPIRED,
    """SELECT id FROM stock_reservations
        WHERE state = 'held' AND expires_at <= statement_timestamp()
        ORDER BY expires_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED""",
)


def expire_due(session: Session, limit: int = 500) -> int:
    """Close up to `limit` holds whose time is over, oldest first, put their units back on sale and return how many.

    Several may run at once: each takes holds that no other has. Fewer than `limit` means that nothing else was due.

    Raises:
        InvalidLimit: limit is not 1 to 5,000.
    """
    closed = close(session, _EXPIRE_DUE, {"limit": checked_limit("limit", limit, most=MAX_BATCH)})
    if closed.units:
        lock_variants(session, list(closed.units))
        give_back(session, closed.units)
    return closed.holds


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
