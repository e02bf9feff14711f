"""Whoever ends a hold that is being made smaller at that moment uses the lines it has then: no unit comes twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from db import reservations
from db.errors import KeepsTooMuch, ReservationConfirmed, ReservationReleased
from db.reservations import sale
from db.reservations.units import Closed
from db.session import transaction
from tests.db.clock import at, closed_gate
from tests.db.holds import broken, confirmed, kept, lines_of, released, reserved, sales_of, state_of
from tests.db.sql import eventually, somebody_waits_for_a_lock
from tests.factories import make_variant, stock_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sqlalchemy import TextClause
    from sqlalchemy.orm import Session

    from db.reservations import Hold

pytestmark = pytest.mark.usefixtures("database")


# ---- who ends the hold -----------------------------------------------------------------------------------------------


def _confirm(hold: Hold, _variant_id: int) -> None:
    confirmed(hold.id)


def _release(hold: Hold, _variant_id: int) -> None:
    released(hold.id)


def _reclaim(hold: Hold, variant_id: int) -> None:
    """Buy 4 units when the time of the hold is over, of which 2 are free after the partial release."""
    with at(hold.expires_at) as session:
        reservations.reserve(session, "order-2", {variant_id: 4})


def _sweep(hold: Hold, _variant_id: int) -> None:
    """Sweep when the time of the hold is over. A sweep waits for nobody, so it waits at the gate before it locks."""
    with at(hold.expires_at, gate=True) as session:
        reservations.expire_due(session)


def _end_while_it_becomes_smaller(end: Callable[[Hold, int], None]) -> tuple[Hold, int]:
    """Give 2 of 5 units back while another, who has begun before the commit, ends the hold; 5 is all that there is."""
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 5})
    with ThreadPoolExecutor(1) as other:
        with closed_gate(), transaction() as session:
            if end is not _sweep:
                reservations.release(session, hold.id, keep={variant_id: 3})
            ending = other.submit(end, hold, variant_id)
            eventually(somebody_waits_for_a_lock)
            if end is _sweep:
                reservations.release(session, hold.id, keep={variant_id: 3})
        ending.result()
    return hold, stock_of(variant_id)


ENDS = [
    pytest.param(_confirm, "confirmed", 2, id="confirm"),
    pytest.param(_release, "released", 5, id="release"),
    pytest.param(_sweep, "expired", 5, id="sweep"),
    pytest.param(_reclaim, "expired", 1, id="reclaim"),
]


@pytest.mark.parametrize(("end", "state", "stock"), ENDS)
def test_who_ends_a_hold_that_became_smaller_meanwhile_uses_what_it_kept(
    end: Callable[[Hold, int], None], state: str, stock: int
) -> None:
    hold, left = _end_while_it_becomes_smaller(end)

    assert state_of(hold.id) == state
    assert left == stock
    assert [qty for _, qty in sales_of(hold.id)] == ([-3] if state == "confirmed" else [])
    assert broken() == []


# ---- as one statement ------------------------------------------------------------------------------------------------


def _closed_in_one_statement(session: Session, statement: TextClause, told: Mapping[str, Any]) -> Closed:
    """Close and sum as one statement would: with the lines as they were when it began."""
    rows = session.execute(
        text(f"""
        WITH closed AS ({statement.text})
        SELECT l.variant_id, sum(l.qty - l.released_qty)::bigint AS qty, count(*) AS holds
          FROM closed JOIN stock_reservation_lines l ON l.reservation_id = closed.id GROUP BY l.variant_id"""),
        told,
    ).all()
    return Closed(sum(row.holds for row in rows), {row.variant_id: row.qty for row in rows})


def _sold_in_one_statement() -> TextClause:
    return text(f"""
    WITH sold AS ({sale.IN_TIME.text}),
    sales AS (
      INSERT INTO stock_movements (variant_id, kind, qty, reservation_id)
      SELECT l.variant_id, 'sale', l.released_qty - l.qty, sold.id
        FROM sold JOIN stock_reservation_lines l ON l.reservation_id = sold.id)
    SELECT id, order_id, state, expires_at FROM sold""")


@pytest.mark.parametrize(("end", "state", "stock"), ENDS)
def test_as_one_statement_it_counts_the_units_twice(
    end: Callable[[Hold, int], None], state: str, stock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("expire", "resolve", "take"):
        monkeypatch.setattr(f"db.reservations.{module}.close", _closed_in_one_statement)
    monkeypatch.setattr(sale, "IN_TIME", _sold_in_one_statement())
    monkeypatch.setattr(sale, "_SALES", text("SELECT"))

    hold, left = _end_while_it_becomes_smaller(end)

    # A sale of 5 where 3 were held, or 2 units back on sale that were there already.
    assert left - sum(qty for _, qty in sales_of(hold.id)) == stock + (5 if state == "confirmed" else 2)
    assert state_of(hold.id) == state
    assert len(broken()) == 1


# ---- two who make it smaller -----------------------------------------------------------------------------------------


def test_two_who_make_a_hold_smaller_at_once_leave_the_smaller_one() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 5})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.release(session, hold.id, keep={variant_id: 3})
            smaller = other.submit(kept, hold.id, {variant_id: 1})
            eventually(somebody_waits_for_a_lock)
        smaller.result()

    assert lines_of(hold.id) == {variant_id: 1}
    assert stock_of(variant_id) == 4
    assert broken() == []


def test_the_larger_of_two_at_once_is_refused_when_it_comes_second() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 5})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.release(session, hold.id, keep={variant_id: 1})
            larger = other.submit(kept, hold.id, {variant_id: 3})
            eventually(somebody_waits_for_a_lock)
        refused = larger.exception()

    assert isinstance(refused, KeepsTooMuch)
    assert lines_of(hold.id) == {variant_id: 1}
    assert broken() == []


@pytest.mark.parametrize(
    ("end", "error"), [(reservations.confirm, ReservationConfirmed), (reservations.release, ReservationReleased)]
)
def test_who_would_make_a_hold_smaller_that_another_is_ending_is_told_so(
    end: Callable[..., Hold], error: type[Exception]
) -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 5})
    told = {"payment_ref": "payment-1"} if end is reservations.confirm else {}

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            end(session, hold.id, **told)
            smaller = other.submit(kept, hold.id, {variant_id: 1})
            eventually(somebody_waits_for_a_lock)
        refused = smaller.exception()

    assert type(refused) is error
    assert broken() == []
