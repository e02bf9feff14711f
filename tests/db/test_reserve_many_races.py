"""A batch costs what one order costs, and what others change after its look it looks at again."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from db import inventory, reservations
from db.errors import (
    OrderContended,
    VariantNotFound,
)
from db.reservations import Hold, HoldRequest
from db.session import transaction
from tests.db.holds import MISSING, broken, many_due, reserved, reserved_many, state_of
from tests.db.sql import (
    change,
    everything,
    locked,
    make_due,
    meanwhile,
    recorded,
    touched_nothing,
)
from tests.factories import make_variant, make_variants, stock_of

pytestmark = pytest.mark.usefixtures("database")

HOLDS = "INSERT INTO stock_reservations"


def _said(answer: object) -> object:
    """An answer in a few words: the state of a hold, or the kind of an error."""
    return str(answer.state) if isinstance(answer, Hold) else type(answer).__name__


# ---- cost ------------------------------------------------------------------------------------------------------------


def _statements(requests: list[HoldRequest]) -> int:
    with transaction() as session, recorded() as sent:
        reservations.reserve_many(session, requests)
    return len(sent)


def test_a_batch_asks_as_many_statements_whatever_its_size() -> None:
    variant_ids = make_variants(2, stock=10_000)

    asked = {
        (size, lines): _statements(
            [HoldRequest(f"order-{size}-{lines}-{one}", dict.fromkeys(variant_ids[:lines], 1)) for one in range(size)]
        )
        for size in (1, 100)
        for lines in (1, 2)
    }

    # Two to look, a savepoint and its end, the holds, the lock, their units and lines.
    assert asked == {(1, 1): 7, (1, 2): 7, (100, 1): 7, (100, 2): 7}


@pytest.mark.parametrize("due", [0, 3])
def test_a_sold_out_batch_neither_writes_nor_locks_nor_waits(due: int) -> None:
    variant_id = make_variant(stock=2)
    reserved("order-0", {variant_id: 2})
    if due:
        many_due(due, {variant_id: 1})

    with locked("SELECT FROM variants WHERE id = :id FOR UPDATE", id=variant_id), transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '1ms'"))
        answers = reservations.reserve_many(
            session, [HoldRequest(f"order-{number}", {variant_id: 4}) for number in range(1, 101)]
        )
        untouched = touched_nothing(session)

    assert {_said(answer) for answer in answers} == {"InsufficientStock"}
    assert untouched


# ---- others at the same moment ---------------------------------------------------------------------------------------


def test_units_that_somebody_takes_after_the_look_are_not_promised() -> None:
    first, second = make_variants(2, stock=3)
    requests = [HoldRequest(f"order-{number}", {first: 1, second: 1}) for number in range(3)]

    with meanwhile(HOLDS, lambda: reserved("order-faster", {second: 2})):
        answers = reserved_many(*requests)

    assert [_said(answer) for answer in answers] == ["held", "InsufficientStock", "InsufficientStock"]
    assert (stock_of(first), stock_of(second)) == (2, 0)
    assert broken() == []


def test_a_hold_that_an_order_makes_after_the_look_is_its_answer() -> None:
    first, second = make_variants(2, stock=3)

    with meanwhile(HOLDS, lambda: reserved("order-1", {first: 1})):
        answers = reserved_many(HoldRequest("order-1", {first: 1}), HoldRequest("order-2", {second: 1}))

    assert answers[0] == reserved("order-1", {first: 1})
    assert _said(answers[1]) == "held"
    assert (stock_of(first), stock_of(second)) == (2, 2)


def test_who_is_refused_after_the_look_takes_nothing_from_those_behind_him() -> None:
    scarce, other = make_variants(2, stock=1)

    with meanwhile(HOLDS, lambda: reserved("order-1", {other: 1})):
        answers = reserved_many(HoldRequest("order-1", {scarce: 1}), HoldRequest("order-2", {scarce: 1}))

    assert [_said(answer) for answer in answers] == ["OrderAlreadyReserved", "held"]
    assert stock_of(scarce) == 0


def test_who_is_beaten_to_his_units_takes_nothing_from_those_behind_him() -> None:
    scarce, other = make_variants(2, stock=1)

    with meanwhile(HOLDS, lambda: reserved("order-faster", {other: 1})):
        answers = reserved_many(HoldRequest("order-1", {scarce: 1, other: 1}), HoldRequest("order-2", {scarce: 1}))

    assert [_said(answer) for answer in answers] == ["InsufficientStock", "held"]
    assert (stock_of(scarce), stock_of(other)) == (0, 0)


def test_who_is_beaten_to_his_units_gets_those_of_due_holds() -> None:
    variant_id = make_variant(stock=2)
    due = reserved("order-0", {variant_id: 1})
    make_due(due.id)

    with meanwhile(HOLDS, lambda: reserved("order-faster", {variant_id: 1})):
        answers = reserved_many(HoldRequest("order-1", {variant_id: 1}))

    assert [_said(answer) for answer in answers] == ["held"]
    assert state_of(due.id) == "expired"


def test_around_the_sell_out_a_batch_is_answered_and_not_sent_away() -> None:
    variant_id = make_variant(stock=10)
    singles = iter(range(100))

    def faster() -> None:
        for _ in range(3):
            reserved(f"order-faster-{next(singles)}", {variant_id: 1})

    with meanwhile(HOLDS, faster):
        answers = reserved_many(*(HoldRequest(f"order-{number}", {variant_id: 1}) for number in range(10)))

    assert [_said(answer) for answer in answers] == ["held"] * 7 + ["InsufficientStock"] * 3
    assert stock_of(variant_id) == 0
    assert broken() == []


def test_due_holds_that_were_closed_in_vain_are_due_as_before() -> None:
    reclaimed, in_stock = make_variants(2, stock=1)
    due = reserved("order-0", {reclaimed: 1})
    make_due(due.id)

    with meanwhile("UPDATE stock_reservations", lambda: reserved("order-faster", {in_stock: 1})):
        answers = reserved_many(HoldRequest("order-1", {reclaimed: 1, in_stock: 1}))

    assert [_said(answer) for answer in answers] == ["InsufficientStock"]
    assert state_of(due.id) == "held"
    assert broken() == []


def test_orders_that_others_keep_making_and_ending_say_so_and_nothing_is_left_behind_or_locked() -> None:
    first, second = make_variants(2, stock=5)
    make_due(reserved("order-due", {first: 1}).id)
    before = everything()

    def make() -> None:
        change(
            "INSERT INTO stock_reservations (order_id, request_hash, expires_at, max_expires_at)"
            " VALUES ('order-1', 'other', now() + interval '1 hour', now() + interval '1 hour')"
        )

    def end() -> None:
        change("DELETE FROM stock_reservations WHERE order_id = 'order-1'")

    requests = [
        HoldRequest("order-0", {second: 6}),
        HoldRequest("order-1", {first: 1}),
        HoldRequest("order-due", {first: 2, second: 1}),
    ]
    with (
        transaction() as session,
        meanwhile(HOLDS, make),
        meanwhile("FROM stock_reservations WHERE order_id = ANY", end),
    ):
        answers = reservations.reserve_many(session, requests)
        with transaction() as other:
            other.execute(text("SET LOCAL lock_timeout = '1ms'"))
            other.execute(text("SELECT FROM variants FOR UPDATE"))
            other.execute(text("SELECT FROM stock_reservations FOR UPDATE"))
            inventory.receive(other, first, 1)
            other.rollback()
    end()

    assert [_said(answer) for answer in answers] == ["InsufficientStock", "OrderContended", "OrderContended"]
    assert [answer.ids for answer in answers if isinstance(answer, OrderContended)] == [
        {"order_id": "order-1"},
        {"order_id": "order-due"},
    ]
    assert everything() == before
    assert broken() == []


def test_a_variant_that_exists_for_nobody_is_named() -> None:
    (answer,) = reserved_many(HoldRequest("order-1", {MISSING: 1}))

    assert isinstance(answer, VariantNotFound)
    assert answer.ids == {"variant_ids": [MISSING]}
