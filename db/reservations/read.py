"""What there is to know about holds and refunds, read without a lock: page 1,000 costs what page 1 does.

A filter by order, or by a state that is rare, reads past everything that it does not want: for an operator's question,
not for a request of the shop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, tuple_

from db.checks import checked_id, checked_limit, checked_text
from db.errors import InvalidState, InvalidText, ReservationNotFound, shown
from db.inventory import Variant
from db.reservations.hold import HoldState, StockReservation, StockReservationLine
from db.reservations.refund import RefundReason, RequiredRefund

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

MAX_PAGE: Final = 1_000

# The database's clock, as everywhere: a hold is due whether or not a sweep has come by.
_DUE = (StockReservation.state == HoldState.HELD) & (StockReservation.expires_at <= func.statement_timestamp())

_LEFT = StockReservationLine.qty - StockReservationLine.released_qty


@dataclass(frozen=True, slots=True)
class ListedHold:
    """A hold in a list, with the lines and units that it has, or had when it ended, and not those given back before.

    `due` says that its time is over and no sweep has met it.
    """

    id: int
    order_id: str
    state: HoldState
    due: bool
    created_at: datetime
    expires_at: datetime
    resolved_at: datetime | None
    lines: int
    units: int


@dataclass(frozen=True, slots=True)
class HoldLine:
    """Units of one variant in a hold; `released_qty` of them have already been given back."""

    variant_id: int
    sku: str
    qty: int
    released_qty: int


@dataclass(frozen=True, slots=True)
class HoldDetails:
    """One hold, whole; its lines by ascending variant id."""

    id: int
    order_id: str
    state: HoldState
    due: bool
    created_at: datetime
    expires_at: datetime
    max_expires_at: datetime
    extend_count: int
    payment_ref: str | None = field(repr=False)
    revived_from: int | None
    resolved_at: datetime | None
    lines: list[HoldLine]


def page(
    session: Session,
    *,
    state: HoldState | None = None,
    order_id: str | None = None,
    due: bool = False,
    limit: int = 50,
    after: int | None = None,
) -> list[ListedHold]:
    """Return holds, newest first: at most `limit`, and those with an id below `after`, the last id of a former page.

    Args:
        session: any session; nothing is locked.
        state: only holds in this state.
        order_id: only holds of this order.
        due: only holds whose time is over and that no sweep has met.
        limit: 1 to 1,000.
        after: where the page before ended.

    Raises:
        InvalidInput: state is none, or order_id, limit or after is out of range.
    """
    wanted: list[ColumnElement[bool]] = []
    if state is not None:
        wanted.append(StockReservation.state == _checked_state(state))
    if order_id is not None:
        wanted.append(StockReservation.order_id == checked_text("order_id", order_id))
    if due:
        wanted.append(_DUE)
    if after is not None:
        wanted.append(StockReservation.id < checked_id("after", after))
    ours = (StockReservationLine.reservation_id == StockReservation.id) & (_LEFT > 0)
    rows = session.execute(
        select(
            StockReservation.id,
            StockReservation.order_id,
            StockReservation.state,
            _DUE.label("due"),
            StockReservation.created_at,
            StockReservation.expires_at,
            StockReservation.resolved_at,
            select(func.count()).where(ours).scalar_subquery().label("lines"),
            select(func.coalesce(func.sum(_LEFT), 0)).where(ours).scalar_subquery().label("units"),
        )
        .where(*wanted)
        .order_by(StockReservation.id.desc())
        .limit(checked_limit("limit", limit, most=MAX_PAGE))
    )
    return [ListedHold(**{**row, "state": HoldState(row["state"])}) for row in rows.mappings()]


def _checked_state(state: object) -> HoldState:
    try:
        return HoldState(state)  # type: ignore[arg-type] # whatever it is, the enumeration says whether it is one
    except ValueError:
        raise InvalidState(field="state", states=", ".join(HoldState), value=shown(state)) from None


def show(session: Session, reservation_id: int) -> HoldDetails:
    """Return one hold with its lines.

    Raises:
        InvalidId: reservation_id is no id.
        ReservationNotFound: there is no such reservation.
    """
    found = session.execute(
        select(StockReservation, _DUE).where(StockReservation.id == checked_id("reservation_id", reservation_id))
    ).one_or_none()
    if found is None:
        raise ReservationNotFound(reservation_id=reservation_id)
    hold, due = found
    lines = session.execute(
        select(
            StockReservationLine.variant_id, Variant.sku, StockReservationLine.qty, StockReservationLine.released_qty
        )
        .join(Variant, Variant.id == StockReservationLine.variant_id)
        .where(StockReservationLine.reservation_id == reservation_id)
        .order_by(StockReservationLine.variant_id)
    )
    return HoldDetails(
        id=hold.id,
        order_id=hold.order_id,
        state=HoldState(hold.state),
        due=due,
        created_at=hold.created_at,
        expires_at=hold.expires_at,
        max_expires_at=hold.max_expires_at,
        extend_count=hold.extend_count,
        payment_ref=hold.payment_ref,
        revived_from=hold.revived_from,
        resolved_at=hold.resolved_at,
        lines=[HoldLine(*line) for line in lines],
    )


# ---- refunds ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListedRefund:
    """A payment that has to go back, or has gone: only who gives it back knows. `variant_ids` were missing, if any."""

    payment_ref: str = field(repr=False)
    order_id: str
    reservation_id: int
    reason: RefundReason
    variant_ids: list[int]
    created_at: datetime


def refunds(session: Session, *, limit: int = 50, after: str | None = None) -> list[ListedRefund]:
    """Return the payments that had to go back, newest first: at most `limit`, and those behind `after`.

    Args:
        session: any session; nothing is locked.
        limit: 1 to 1,000.
        after: the payment_ref with which the page before ended.

    Raises:
        InvalidInput: limit is out of range, or no such payment had to go back.
    """
    place = tuple_(RequiredRefund.created_at, RequiredRefund.payment_ref)
    wanted = select(RequiredRefund)
    if after is not None:
        before = session.get(RequiredRefund, checked_text("after", after, secret=True))
        if before is None:
            raise InvalidText(field="after", problem="must be the payment_ref of a refund", value="not shown")
        wanted = wanted.where(place < tuple_(before.created_at, before.payment_ref))
    newest = wanted.order_by(RequiredRefund.created_at.desc(), RequiredRefund.payment_ref.desc())
    found = session.scalars(newest.limit(checked_limit("limit", limit, most=MAX_PAGE)))
    return [
        ListedRefund(
            row.payment_ref, row.order_id, row.reservation_id, RefundReason(row.reason), row.variant_ids, row.created_at
        )
        for row in found
    ]
