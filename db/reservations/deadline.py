"""A hold's time can be made longer while it lasts: never shorter, never once it is over, never beyond its maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from db.checks import checked_id
from db.errors import InvalidExtension
from db.reservations.hold import DEFAULT_HOLD, Hold
from db.reservations.request import LONGEST_MAX_HOLD, duration_problem
from db.reservations.state import ended, hold_of, lives, read

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy.orm import Session

# A hold that lives longer already, or has reached its maximum, is left alone: no row is written. The count stops where
# its column does, and not the hold: a client that extends every second would get there in nine hours.
_EXTEND = text("""
UPDATE stock_reservations
   SET expires_at = least(statement_timestamp() + :hold, max_expires_at),
       extend_count = least(extend_count + 1, 32767)
 WHERE id = :reservation_id AND state = 'held' AND expires_at > statement_timestamp()
   AND expires_at < least(statement_timestamp() + :hold, max_expires_at)
RETURNING id, order_id, state, expires_at
""")


def extend(session: Session, reservation_id: int, *, hold: timedelta = DEFAULT_HOLD) -> Hold:
    """Let a live hold last for `hold` from now, if that is longer than it does already and as far as its maximum goes.

    Before a customer is sent to pay, extend the hold over the time that paying may take. The answer's `expires_at` is
    what counts: it is earlier than asked for when `max_hold`, which `reserve` was given, is reached.

    Args:
        session: the caller's session; nothing is committed.
        reservation_id: the hold.
        hold: how long from now; at most 30 days.

    Raises:
        InvalidInput: reservation_id is no id, or hold is no timedelta or out of range.
        ReservationConfirmed, ReservationExpired, ReservationReleased: it has ended; what is over stays over.
        ReservationNotFound: there is no such reservation.
    """
    told = {"reservation_id": checked_id("reservation_id", reservation_id), "hold": hold}
    if problem := duration_problem(hold, LONGEST_MAX_HOLD):
        raise InvalidExtension(field="hold", reservation_id=reservation_id, **problem)
    longer = session.execute(_EXTEND, told).one_or_none()
    if longer is not None:
        return hold_of(longer)
    row = read(session, reservation_id)
    if not lives(row):
        raise ended(row)
    return hold_of(row)
