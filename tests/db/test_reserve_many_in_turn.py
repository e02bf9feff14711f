"""Whatever stands in a batch, it is answered as `reserve` would answer it in turn, and leaves the same holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from db import reservations
from db.errors import HarborError, InvalidRequest, shown
from db.reservations import Hold, HoldRequest
from tests.db.clock import at
from tests.db.holds import MISSING
from tests.db.sql import everything, value
from tests.factories import make_variant, make_variants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

    Answers = Callable[[Session, list[Any]], list[Hold | HarborError]]

ORDERS = ["order-1", "order-2", "order-3", "order-4"]
ON_SALE, ARCHIVED, UNKNOWN = range(3), 3, 4
LINES = st.dictionaries(
    st.sampled_from([*ON_SALE, *ON_SALE, *ON_SALE, ARCHIVED, UNKNOWN]), st.integers(1, 4), min_size=1
)
SOLD, DUE, HELD = "sold", "due", "held"


@pytest.fixture
def variant_ids(database: None) -> Iterator[list[int]]:
    """Three variants on sale without stock, one that is archived and one that does not exist."""
    ids = [*make_variants(3), make_variant(stock=5, archived=True), MISSING]
    before = everything()
    yield ids
    assert everything() == before


def _in_turn(session: Session, requests: list[Any]) -> list[Hold | HarborError]:
    answers: list[Hold | HarborError] = []
    for place, one in enumerate(requests):
        if not isinstance(one, HoldRequest):
            answers.append(InvalidRequest(place=place, value=shown(one)))
            continue
        try:
            answers.append(reservations.reserve(session, one.order_id, one.lines, hold=one.hold))
        except HarborError as error:
            answers.append(error)
    return answers


_LIVE = text("""
SELECT r.id, r.order_id, r.state, r.created_at IS NOT NULL, r.expires_at, r.max_expires_at, r.request_hash,
       array_agg(l.variant_id || ' ' || l.qty - l.released_qty ORDER BY l.variant_id)
  FROM stock_reservations r JOIN stock_reservation_lines l ON l.reservation_id = r.id
 WHERE r.state = 'confirmed' OR r.state = 'held' AND r.expires_at > statement_timestamp()
 GROUP BY r.id ORDER BY r.order_id
""")

# A batch may close more due holds than orders that come in turn, so what is free and what is due count together.
_TO_SELL = text("""
SELECT v.id, v.stock_qty + coalesce((
         SELECT sum(l.qty - l.released_qty) FROM stock_reservation_lines l
           JOIN stock_reservations r ON r.id = l.reservation_id
          WHERE l.variant_id = v.id AND r.state = 'held' AND r.expires_at <= statement_timestamp()), 0)
  FROM variants v ORDER BY v.id
""")


def _outcome(session: Session, answer: Answers, requests: list[Any]) -> object:
    """What is answered and what stands in the tables then, with new ids replaced by their orders; it is undone."""
    newest = session.execute(text("SELECT coalesce(max(id), 0) FROM stock_reservations")).scalar_one()
    savepoint = session.begin_nested()
    answers = answer(session, requests)
    live = [tuple(row) for row in session.execute(_LIVE)]
    to_sell = [tuple(row) for row in session.execute(_TO_SELL)]
    savepoint.rollback()
    name = {row[0]: row[1] if row[0] > newest else row[0] for row in live}
    return (
        [
            (name[one.id], one.order_id, one.state, one.expires_at)
            if isinstance(one, Hold)
            else (
                type(one),
                {key: name.get(told, told) if key == "reservation_id" else told for key, told in one.ids.items()},
            )
            for one in answers
        ],
        [(name[row[0]], *row[1:]) for row in live],
        to_sell,
    )


def _lines(variant_ids: list[int], lines: dict[int, int]) -> dict[int, int]:
    return {variant_ids[place]: qty for place, qty in lines.items()}


def _arrange(
    session: Session, variant_ids: list[int], stock: list[int], holds: list[tuple[str, dict[int, int], str]]
) -> None:
    """Let holds be there that orders have already, and then this much stock."""
    session.execute(text("UPDATE variants SET stock_qty = 100 WHERE id = ANY (:ids)"), {"ids": variant_ids[:3]})
    for number, (order_id, lines, state) in enumerate(holds):
        hold = reservations.reserve(session, order_id, _lines(variant_ids, lines))
        if state == SOLD:
            reservations.confirm(session, hold.id, f"payment-{number}")
        elif state == DUE:
            due = "UPDATE stock_reservations SET expires_at = expires_at - interval '1 hour' WHERE id = :id"
            session.execute(text(due), {"id": hold.id})
    for variant_id, qty in zip(variant_ids, stock, strict=False):
        session.execute(text("UPDATE variants SET stock_qty = :qty WHERE id = :id"), {"qty": qty, "id": variant_id})


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    stock=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    holds=st.lists(
        st.tuples(
            st.sampled_from(ORDERS),
            st.dictionaries(st.sampled_from(ON_SALE), st.integers(1, 3), min_size=1),
            st.sampled_from([HELD, DUE, DUE, DUE, SOLD]),
        ),
        max_size=3,
        unique_by=lambda hold: hold[0],
    ),
    wishes=st.lists(
        st.tuples(st.sampled_from([*ORDERS, "order-5", "order-6", "order-7"]), LINES | st.just({}) | st.just({0: 0}))
        | st.none(),
        max_size=8,
    ),
)
@example(stock=[1, 0, 0], holds=[], wishes=[("order-1", {0: 2}), ("order-1", {0: 1}), ("order-1", {0: 2})])
@example(stock=[0, 2, 0], holds=[("order-1", {0: 2}, DUE)], wishes=[("order-1", {1: 1}), ("order-2", {0: 2})])
def test_a_batch_is_answered_as_its_orders_would_be_in_turn(
    variant_ids: list[int],
    stock: list[int],
    holds: list[tuple[str, dict[int, int], str]],
    wishes: list[tuple[str, dict[int, int]] | None],
) -> None:
    requests = [wish and HoldRequest(wish[0], _lines(variant_ids, wish[1])) for wish in wishes]

    with at(value("SELECT statement_timestamp()")) as session:
        _arrange(session, variant_ids, stock, holds)
        in_turn = _outcome(session, _in_turn, requests)
        as_a_batch = _outcome(session, reservations.reserve_many, requests)
        session.rollback()

    assert as_a_batch == in_turn
