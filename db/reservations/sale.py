"""The one way in which a hold is sold, in time or late: it wins the conditional update, and each line is a movement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from db.errors import PaymentRefInUse, WrongIsolation
from db.reservations.state import hold_of

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import TextClause
    from sqlalchemy.orm import Session

    from db.reservations.hold import Hold

_PAYMENTS: Final = 0x4841_5242  # "HARB": whoever else in this database locks a hash of the same text gets another one.

# A payment must not be answered by a sale here and by a refund there. The lock is on the payment and not on the hold: a
# buyer who reclaims may wait for an ended hold while we wait for one that he has locked.
_ONE_AT_A_TIME = text("""
SELECT pg_advisory_xact_lock(hashtextextended(:payment_ref, :payments)),
       current_setting('transaction_isolation') AS level
""")

# A payment that has to be refunded sells nothing any more.
_SELL: Final = """
UPDATE stock_reservations
   SET state = 'confirmed', resolved_at = statement_timestamp(), payment_ref = :payment_ref,
       revived_from = CAST(:revived_from AS bigint)
 WHERE id = :reservation_id AND state = 'held'{in_time}
   AND NOT EXISTS (SELECT FROM required_refunds WHERE payment_ref = :payment_ref)
RETURNING id, order_id, state, expires_at
"""

# The deadline is the database's clock at the statement, and strict: a hold that is due has expired whether or not a
# sweep has come by, so the answer never depends on the sweep's timing.
IN_TIME = text(_SELL.format(in_time=" AND expires_at > statement_timestamp()"))
EVEN_LATE = text(_SELL.format(in_time=""))

# A statement of its own, because the one that locked the hold may have waited for a partial release, whose lines it
# does not see.
_SALES = text("""
INSERT INTO stock_movements (variant_id, kind, qty, reservation_id)
SELECT variant_id, 'sale', released_qty - qty, reservation_id
  FROM stock_reservation_lines WHERE reservation_id = :reservation_id AND qty > released_qty
""")

_PAYMENT_REF_INDEX: Final = "uq_stock_reservations_payment_ref"
_BY_PAYMENT = text("SELECT id, order_id, state, expires_at FROM stock_reservations WHERE payment_ref = :payment_ref")


def lock_payment(session: Session, payment_ref: str) -> None:
    """Let nobody else decide about this payment until the transaction ends. Comes before every other lock.

    Raises:
        WrongIsolation: the transaction would not see what was decided while it waited.
    """
    level = session.execute(_ONE_AT_A_TIME, {"payment_ref": payment_ref, "payments": _PAYMENTS}).one().level
    if level != "read committed":
        raise WrongIsolation(level=level)


def sell(
    session: Session, statement: TextClause, reservation_id: int, payment_ref: str, *, revived_from: int | None = None
) -> Hold | None:
    """Sell what a hold has, by `IN_TIME` or `EVEN_LATE`; keep no lock and return None when it cannot be sold.

    Raises:
        PaymentRefInUse: this payment confirmed another reservation.
    """
    told = {"reservation_id": reservation_id, "payment_ref": payment_ref, "revived_from": revived_from}
    try:
        with session.begin_nested() as savepoint:
            sold = session.execute(statement, told).one_or_none()
            if sold is None:
                # Who waited for a hold that then ended has it locked all the same.
                savepoint.rollback()
                return None
            session.execute(_SALES, told)
    except IntegrityError as error:
        raise _used_payment(session, error, told) from None
    return hold_of(sold)


def sold_by(session: Session, payment_ref: str) -> Hold | None:
    """Return the hold that a payment has confirmed."""
    row = session.execute(_BY_PAYMENT, {"payment_ref": payment_ref}).one_or_none()
    return None if row is None else hold_of(row)


def _used_payment(session: Session, error: IntegrityError, told: dict[str, Any]) -> Exception:
    """Return PaymentRefInUse when that is what the database refused; anything else goes on as it came."""
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is None or diagnosis.constraint_name != _PAYMENT_REF_INDEX:
        return error
    other = sold_by(session, told["payment_ref"])
    return PaymentRefInUse(reservation_id=told["reservation_id"], other_id=other and other.id)
