"""The rival: the flow that every tutorial on stock and orders shows, on the same tables, engine and connections.

Read the row with SELECT … FOR UPDATE, check it in Python, change it, add the new rows, commit; and a sweep that takes
one hold at a time. It is right, and as fast as this shape allows: variants are locked in ascending order, so it does
not deadlock, and its sweep skips what others have locked. It is not idempotent and reclaims nothing on its own.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from db import engine
from db.inventory import Variant
from db.reservations import DEFAULT_HOLD, DEFAULT_MAX_HOLD, HoldState, StockReservation, StockReservationLine

if TYPE_CHECKING:
    from collections.abc import Mapping


class _SoldOutError(Exception):
    """A variant has too few units."""


def reserve(order_id: str, lines: Mapping[int, int]) -> bool:
    """Hold units of each variant of `lines` for an order, all or nothing; return whether there were enough."""
    try:
        with Session(engine.engine()) as session, session.begin():
            _reserve(session, order_id, lines)
    except _SoldOutError:
        return False
    return True


def _reserve(session: Session, order_id: str, lines: Mapping[int, int]) -> None:
    now = datetime.now(UTC)
    hold = StockReservation(
        order_id=order_id,
        state=HoldState.HELD,
        expires_at=now + DEFAULT_HOLD,
        max_expires_at=now + DEFAULT_MAX_HOLD,
        request_hash=b"",
    )
    session.add(hold)
    session.flush()  # The lines need its id; and written before the first lock, it keeps no other buyer waiting.
    for variant_id in sorted(lines):
        variant = session.scalars(select(Variant).where(Variant.id == variant_id).with_for_update()).one()
        if variant.stock_qty < lines[variant_id]:
            raise _SoldOutError
        variant.stock_qty -= lines[variant_id]
        session.add(StockReservationLine(reservation_id=hold.id, variant_id=variant_id, qty=lines[variant_id]))


def sweep(most: int) -> int:
    """Expire up to `most` due holds, a transaction for each, and return how many there were."""
    for swept in range(most):
        with Session(engine.engine()) as session, session.begin():
            if not _expire_one(session):
                return swept
    return most


def _expire_one(session: Session) -> bool:
    due = (
        select(StockReservation)
        .where(StockReservation.state == HoldState.HELD, StockReservation.expires_at <= func.statement_timestamp())
        .order_by(StockReservation.expires_at)
        .limit(1)
        .options(selectinload(StockReservation.lines))
        .with_for_update(skip_locked=True)
    )
    hold = session.scalars(due).first()
    if hold is None:
        return False
    for line in sorted(hold.lines, key=lambda line: line.variant_id):
        variant = session.scalars(select(Variant).where(Variant.id == line.variant_id).with_for_update()).one()
        variant.stock_qty += line.qty - line.released_qty
    hold.state = HoldState.EXPIRED
    hold.resolved_at = datetime.now(UTC)
    return True
