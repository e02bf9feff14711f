"""How a hold ends by somebody's wish: confirmed or released, once, and the same call again is answered the same way."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import text

from db.checks import checked_id, checked_text
from db.errors import InvalidKeep, KeepsTooMuch, PaymentMismatch, PaymentToRefund
from db.reservations import sale
from db.reservations.hold import Hold, HoldState
from db.reservations.refund import refund_of
from db.reservations.request import checked_lines, hash_of
from db.reservations.state import ended, hold_of, lives, read
from db.reservations.units import close, closing, give_back

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def confirm(session: Session, reservation_id: int, payment_ref: str) -> Hold:
    """Sell what a hold has: it is closed as confirmed and a sale is written for each line. Touches no variant row.

    The same confirmation again returns the same hold.

    Raises:
        InvalidInput: reservation_id is no id, or payment_ref is empty, over 200 characters or not storable.
        PaymentMismatch: it is confirmed already, with another payment.
        PaymentRefInUse: this payment confirmed another reservation.
        PaymentToRefund: `confirm_or_reacquire` has said that this payment has to be refunded.
        ReservationExpired, ReservationReleased: its units are back on sale.
        ReservationNotFound: there is no such reservation.
        WrongIsolation: the transaction is not READ COMMITTED.
    """
    checked_id("reservation_id", reservation_id)
    checked_text("payment_ref", payment_ref, secret=True)
    sale.lock_payment(session, payment_ref)
    while True:
        sold = sale.sell(session, sale.IN_TIME, reservation_id, payment_ref)
        if sold is not None:
            return sold
        row = read(session, reservation_id)
        if row.payment_ref == payment_ref:
            return hold_of(row)
        if row.state == HoldState.CONFIRMED:
            raise PaymentMismatch(reservation_id=reservation_id)
        if refund_of(session, payment_ref) is not None:
            raise PaymentToRefund(reservation_id=reservation_id)
        if not lives(row):
            raise ended(row)


_RELEASE = closing(
    HoldState.RELEASED,
    """SELECT id FROM stock_reservations
        WHERE id = :reservation_id AND state = 'held' AND expires_at > statement_timestamp()
          FOR NO KEY UPDATE""",
)


def release(session: Session, reservation_id: int, keep: Mapping[int, int] | None = None) -> Hold:
    """Give a hold's units back before its time is over, all or all but some. The same release again changes nothing.

    Args:
        session: the caller's session; nothing is committed.
        reservation_id: the hold.
        keep: variant id to the units that stay held; the hold lives on, for these lines only. Nothing to keep ends it.

    Raises:
        InvalidInput: reservation_id is no id, or keep does not map variant ids to units.
        KeepsTooMuch: the hold has fewer units of some variant than are to be kept; nothing was given back.
        ReservationConfirmed, ReservationExpired: it ended in another way.
        ReservationNotFound: there is no such reservation.
        ReservationReleased: there is nothing left to keep.
    """
    checked_id("reservation_id", reservation_id)
    if keep is not None and (keep or not isinstance(keep, Mapping)):
        return _release_but(session, reservation_id, _checked_keep(reservation_id, keep))
    while True:
        give_back(session, close(session, _RELEASE, {"reservation_id": reservation_id}).units)
        row = read(session, reservation_id)
        if row.state == HoldState.RELEASED:
            return hold_of(row)
        if not lives(row):
            raise ended(row)


# ---- partial release -------------------------------------------------------------------------------------------------

_LOCK = text("""
SELECT id, order_id, state, expires_at FROM stock_reservations
 WHERE id = :reservation_id AND state = 'held' AND expires_at > statement_timestamp()
   FOR NO KEY UPDATE
""")

_LEFT = text("""
SELECT variant_id, qty - released_qty AS qty FROM stock_reservation_lines
 WHERE reservation_id = :reservation_id AND qty > released_qty ORDER BY variant_id
""")

# From here on the hold is one for the lines that it kept: the order's first wish, sent again, must not be answered
# with a hold that has fewer units.
_KEEP = text("""
WITH kept AS (UPDATE stock_reservations SET request_hash = :request_hash WHERE id = :reservation_id)
UPDATE stock_reservation_lines l SET released_qty = l.released_qty + w.qty
  FROM unnest(CAST(:variant_ids AS bigint[]), CAST(:qtys AS int[])) AS w(variant_id, qty)
 WHERE l.reservation_id = :reservation_id AND l.variant_id = w.variant_id
""")


def _checked_keep(reservation_id: int, keep: object) -> dict[int, int]:
    return checked_lines(keep, partial(InvalidKeep, reservation_id=reservation_id))


def _release_but(session: Session, reservation_id: int, keep: Mapping[int, int]) -> Hold:
    """Give back what is beyond `keep`. It says what is left, not what goes, so that a retry finds nothing to do."""
    told = {"reservation_id": reservation_id}
    while (live := session.execute(_LOCK, told).one_or_none()) is None:
        if not lives(row := read(session, reservation_id)):
            raise ended(row)
    left = {row.variant_id: row.qty for row in session.execute(_LEFT, told)}
    if short := [variant_id for variant_id, qty in keep.items() if left.get(variant_id, 0) < qty]:
        raise KeepsTooMuch(reservation_id=reservation_id, variant_ids=short)
    freed = {variant_id: qty - keep.get(variant_id, 0) for variant_id, qty in left.items()}
    freed = {variant_id: qty for variant_id, qty in freed.items() if qty}
    if freed:
        gone = {"variant_ids": list(freed), "qtys": list(freed.values())}
        session.execute(_KEEP, {**told, **gone, "request_hash": hash_of(keep)})
        give_back(session, freed)
    return hold_of(live)
