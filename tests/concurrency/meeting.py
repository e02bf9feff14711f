"""What two processes do that meet over one hold after the other, each at the moment at which its time is over.

The first of them lets the hold end shortly after the meeting: a little later when it came too late the last time, a
little sooner when it came in time. So the end is soon where it can go either way, on a fast machine and on a slow one.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from db import reservations
from db.errors import ReservationExpired
from db.session import transaction
from tests.db.sql import change

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from tests.concurrency.crowd import Member

TOO_LATE = "too late"

_STEP = timedelta(microseconds=250)
_SWEEPS = 3  # The first may come before the end.


def act_at_the_end(member: Member, reservation_ids: list[int], name: str) -> list[str]:
    """Do one of `ACTS` or `CARELESS` to each hold, and return its name, or TOO_LATE, for each."""
    act = {**ACTS, **CARELESS}[name]
    told: list[str] = []
    lasts = 4 * _STEP
    for reservation_id in reservation_ids:
        change(
            "UPDATE stock_reservations SET expires_at = clock_timestamp() + :lasts WHERE id = :id",
            id=reservation_id,
            lasts=lasts,
        )
        member.meet()
        try:
            with transaction() as session:
                act(session, reservation_id)
        except ReservationExpired:
            told.append(TOO_LATE)
            lasts += _STEP
        else:
            told.append(name)
            lasts -= _STEP
    return told


def sweep_at_the_end(member: Member, rounds: int) -> int:
    """Sweep as often as there are holds to meet over, and return how many were closed."""
    closed = 0
    for _ in range(rounds):
        member.meet()
        for _ in range(_SWEEPS):
            with transaction() as session:
                closed += reservations.expire_due(session)
    return closed


def _confirm(session: Session, reservation_id: int) -> None:
    reservations.confirm(session, reservation_id, f"payment-{reservation_id}")


def _extend(session: Session, reservation_id: int) -> None:
    reservations.extend(session, reservation_id)


def _release(session: Session, reservation_id: int) -> None:
    reservations.release(session, reservation_id)


def _keep_one(session: Session, reservation_id: int) -> None:
    (line,) = reservations.show(session, reservation_id).lines
    reservations.release(session, reservation_id, keep={line.variant_id: 1})


ACTS: dict[str, Callable[[Session, int], None]] = {
    "confirmed": _confirm,
    "extended": _extend,
    "released": _release,
    "kept one": _keep_one,
}


# ---- the same by those who look first and write then -----------------------------------------------------------------


def _lives(session: Session, reservation_id: int) -> None:
    seen = reservations.show(session, reservation_id)
    if seen.state != "held" or seen.due:
        raise ReservationExpired(reservation_id=reservation_id)


def _write(session: Session, reservation_id: int, *statements: str) -> None:
    for statement in statements:
        session.execute(text(statement), {"id": reservation_id})


def _confirm_carelessly(session: Session, reservation_id: int) -> None:
    _lives(session, reservation_id)
    _write(
        session,
        reservation_id,
        """UPDATE stock_reservations
              SET state = 'confirmed', payment_ref = 'payment-' || id, resolved_at = statement_timestamp()
            WHERE id = :id""",
        """INSERT INTO stock_movements (variant_id, kind, qty, reservation_id)
           SELECT variant_id, 'sale', -qty, reservation_id FROM stock_reservation_lines WHERE reservation_id = :id""",
    )


def _extend_carelessly(session: Session, reservation_id: int) -> None:
    _lives(session, reservation_id)
    _write(
        session,
        reservation_id,
        "UPDATE stock_reservations SET expires_at = statement_timestamp() + interval '15 minutes' WHERE id = :id",
    )


def _give_back_carelessly(session: Session, reservation_id: int, qty: str) -> None:
    _write(
        session,
        reservation_id,
        f"""UPDATE variants v SET stock_qty = v.stock_qty + {qty}
              FROM stock_reservation_lines l WHERE l.reservation_id = :id AND v.id = l.variant_id""",
    )


def _release_carelessly(session: Session, reservation_id: int) -> None:
    _lives(session, reservation_id)
    _write(
        session,
        reservation_id,
        "UPDATE stock_reservations SET state = 'released', resolved_at = statement_timestamp() WHERE id = :id",
    )
    _give_back_carelessly(session, reservation_id, "l.qty")


def _keep_one_carelessly(session: Session, reservation_id: int) -> None:
    _lives(session, reservation_id)
    _write(
        session,
        reservation_id,
        "UPDATE stock_reservation_lines SET released_qty = qty - 1 WHERE reservation_id = :id",
    )
    _give_back_carelessly(session, reservation_id, "(l.qty - 1)")


CARELESS: dict[str, Callable[[Session, int], None]] = {
    "confirmed, carelessly": _confirm_carelessly,
    "extended, carelessly": _extend_carelessly,
    "released, carelessly": _release_carelessly,
    "kept one, carelessly": _keep_one_carelessly,
}
