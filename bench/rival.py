"""The rival: the flow that every tutorial on stock and orders shows, on the same tables, engine and connections.

Read the row with SELECT … FOR UPDATE, check it in Python, change it, add the new rows, commit; and a sweep that takes
one hold at a time. It is written to be right and as fast as that shape allows: variants are locked in ascending order,
so it does not deadlock, and the sweep skips what others have locked. It is not idempotent and reclaims nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

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
