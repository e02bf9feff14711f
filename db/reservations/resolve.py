"""How a hold ends by somebody's wish: confirmed or released, once, and the same call again is answered the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError

from db.checks import checked_id, checked_text
from db.errors import (
    HarborError,
    PaymentMismatch,
    PaymentRefInUse,
    ReservationConfirmed,
    ReservationExpired,
    ReservationNotFound,
    ReservationReleased,
)
from db.reservations.hold import Hold, HoldState
from db.reservations.units import close, closing, give_back

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy.orm import Session

# The deadline is the database's clock at the statement, and strict: a hold that is due has expired whether or not a
# sweep has come by, so the answer never depends on the sweep's timing.
_CONFIRM = text("""
WITH sold AS (
  UPDATE stock_reservations
     SET state = 'confirmed', resolved_at = statement_timestamp(), payment_ref = :payment_ref
   WHERE id = :reservation_id AND state = 'held' AND expires_at > statement_timestamp()
  RETURNING id, order_id, state, expires_at),
sales AS (
  INSERT INTO stock_movements (variant_id, kind, qty, reservation_id)
  SELECT l.variant_id, 'sale', l.released_qty - l.qty, sold.id
    FROM sold JOIN stock_reservation_lines l ON l.reservation_id = sold.id
   WHERE l.qty > l.released_qty)
SELECT id, order_id, state, expires_at FROM sold
""")

_RELEASE = closing(
    HoldState.RELEASED,
    """SELECT id FROM stock_reservations
        WHERE id = :reservation_id AND state = 'held' AND expires_at > statement_timestamp()
          FOR NO KEY UPDATE""",
)

_READ = text("""
SELECT id, order_id, state, expires_at, payment_ref
  FROM stock_reservations WHERE id = :reservation_id
""")

_PAYMENT_REF_INDEX: Final = "uq_stock_reservations_payment_ref"


def confirm(session: Session, reservation_id: int, payment_ref: str) -> Hold:
    """Sell what a hold has: it is closed as confirmed and a sale is written for each line. Touches no variant row.

    The same confirmation again returns the same hold.

    Raises:
        InvalidInput: reservation_id is no id, or payment_ref is empty, over 200 characters or not storable.
        PaymentMismatch: it is confirmed already, with another payment.
        PaymentRefInUse: this payment confirmed another reservation.
        ReservationExpired, ReservationReleased: its units are back on sale.
        ReservationNotFound: there is no such reservation.
    """
    told = {"reservation_id": checked_id("reservation_id", reservation_id), "payment_ref": payment_ref}
    checked_text("payment_ref", payment_ref, secret=True)
    try:
        with session.begin_nested():
            sold = session.execute(_CONFIRM, told).one_or_none()
    except IntegrityError as error:
        raise _used_payment(session, error, told) from None
    if sold is not None:
        return _hold(sold)
    row = _read(session, reservation_id)
    if row.state == HoldState.CONFIRMED:
        if row.payment_ref == payment_ref:
            return _hold(row)
        raise PaymentMismatch(reservation_id=reservation_id)
    raise _ended(row)


def release(session: Session, reservation_id: int) -> Hold:
    """Give a hold's units back before its time is over. The same release again returns the same hold.

    Raises:
        InvalidId: reservation_id is no id.
        ReservationConfirmed, ReservationExpired: it ended in another way.
        ReservationNotFound: there is no such reservation.
    """
    told = {"reservation_id": checked_id("reservation_id", reservation_id)}
    closed = close(session, _RELEASE, told)
    give_back(session, closed.units)
    row = _read(session, reservation_id)
    if row.state == HoldState.RELEASED:
        return _hold(row)
    if row.state == HoldState.CONFIRMED:
        raise ReservationConfirmed(reservation_id=reservation_id)
    raise _ended(row)


def _read(session: Session, reservation_id: int) -> Row[Any]:
    row = session.execute(_READ, {"reservation_id": reservation_id}).one_or_none()
    if row is None:
        raise ReservationNotFound(reservation_id=reservation_id)
    return row


def _hold(row: Row[Any]) -> Hold:
    return Hold(row.id, row.order_id, HoldState(row.state), row.expires_at)


def _ended(row: Row[Any]) -> HarborError:
    """Return the error for a hold that is over: released, expired, or past its time and only waiting for the sweep."""
    kind = ReservationReleased if row.state == HoldState.RELEASED else ReservationExpired
    return kind(reservation_id=row.id)


def _used_payment(session: Session, error: IntegrityError, told: dict[str, Any]) -> Exception:
    """Return PaymentRefInUse when that is what the database refused; anything else goes on as it came."""
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is None or diagnosis.constraint_name != _PAYMENT_REF_INDEX:
        return error
    other = text("SELECT id FROM stock_reservations WHERE payment_ref = :payment_ref")
    other_id = session.execute(other, {"payment_ref": told["payment_ref"]}).scalar()
    return PaymentRefInUse(reservation_id=told["reservation_id"], other_id=other_id)
