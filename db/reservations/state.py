"""What a hold says of itself when a conditional update did not meet it: its row is read, and that is the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from db.errors import HarborError, ReservationConfirmed, ReservationExpired, ReservationNotFound, ReservationReleased
from db.reservations.hold import Hold, HoldState

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

_READ = text("""
SELECT id, order_id, state, expires_at, payment_ref, expires_at <= statement_timestamp() AS over
  FROM stock_reservations WHERE id = :reservation_id
""")


def read(session: Session, reservation_id: int) -> Row[Any]:
    """Return the row of a hold without locking it; `over` says that its time is. Raises ReservationNotFound."""
    row = session.execute(_READ, {"reservation_id": reservation_id}).one_or_none()
    if row is None:
        raise ReservationNotFound(reservation_id=reservation_id)
    return row


def hold_of(row: Row[Any]) -> Hold:
    """Return the hold that a row with id, order_id, state and expires_at stands for."""
    return Hold(row.id, row.order_id, HoldState(row.state), row.expires_at)


def ended(row: Row[Any]) -> HarborError:
    """Return the error for a hold that has ended, or is past its time and only waiting for the sweep."""
    kinds: dict[str, type[HarborError]] = {
        HoldState.CONFIRMED: ReservationConfirmed,
        HoldState.RELEASED: ReservationReleased,
    }
    return kinds.get(row.state, ReservationExpired)(reservation_id=row.id)


def lives(row: Row[Any]) -> bool:
    """Return whether a hold that a conditional update did not meet is held nevertheless, and its time is not over.

    Then an `extend` that began in time was committed between the two statements, and the update is worth another try.
    """
    return row.state == HoldState.HELD and not row.over
