"""Many orders in one transaction are answered as if they came one after the other, and cost one lock and one commit."""

from __future__ import annotations

from datetime import timedelta

import pytest

from db import reservations
from db.errors import (
    InsufficientStock,
    OrderAlreadyReserved,
    VariantArchived,
)
from db.reservations import Hold, HoldRequest
from db.session import transaction
from tests.db.holds import MISSING, broken, confirmed, kept, lines_of, many_due, reserved, reserved_many, state_of
from tests.db.sql import (
    everything,
    make_due,
    rows,
    touched_nothing,
    value,
)
from tests.factories import make_variant, make_variants, stock_of

pytestmark = pytest.mark.usefixtures("database")


def _said(answer: object) -> object:
    """An answer in a few words: the state of a hold, or the kind of an error."""
    return str(answer.state) if isinstance(answer, Hold) else type(answer).__name__


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_each_order_gets_a_hold_in_the_order_of_the_requests() -> None:
    first, second = make_variants(2, stock=9)
    requests = [
        HoldRequest("order-b", {first: 2}),
        HoldRequest("order-c", {second: 1, first: 1}, hold=timedelta(minutes=1), max_hold=timedelta(minutes=2)),
        HoldRequest("order-a", {second: 4}),
    ]

    answers = reserved_many(*requests)

    holds = [answer for answer in answers if isinstance(answer, Hold)]
    assert [hold.order_id for hold in holds] == ["order-b", "order-c", "order-a"]
    assert [lines_of(hold.id) for hold in holds] == [{first: 2}, {first: 1, second: 1}, {second: 4}]
    assert (stock_of(first), stock_of(second)) == (6, 4)
    assert [hold.expires_at for hold in holds] == [
        value("SELECT expires_at FROM stock_reservations WHERE id = :id", id=hold.id) for hold in holds
    ]
    lasts = "SELECT order_id, expires_at - created_at, max_expires_at - created_at, state FROM stock_reservations"
    assert sorted(rows(lasts)) == [
        ("order-a", timedelta(minutes=15), timedelta(hours=2), "held"),
        ("order-b", timedelta(minutes=15), timedelta(hours=2), "held"),
        ("order-c", timedelta(minutes=1), timedelta(minutes=2), "held"),
    ]
    assert broken() == []


def test_a_hold_of_a_batch_is_a_hold_like_any_other() -> None:
    variant_id = make_variant(stock=9)
    (answer,) = reserved_many(HoldRequest("order-1", {variant_id: 3}))
    assert isinstance(answer, Hold)

    again = reserved("order-1", {variant_id: 3})
    kept(answer.id, {variant_id: 2})
    sold = confirmed(answer.id)

    assert (again, sold.state) == (answer, "confirmed")
    assert stock_of(variant_id) == 7
    assert broken() == []


def test_those_who_cannot_be_served_take_nothing_from_those_behind_them() -> None:
    scarce, plenty = make_variants(2, stock=5)
    archived = make_variant(stock=5, archived=True)

    answers = reserved_many(
        HoldRequest("order-1", {scarce: 3}),
        HoldRequest("order-2", {scarce: 3, plenty: 5}),
        HoldRequest("order-3", {plenty: 5, archived: 1}),
        HoldRequest("order-4", {plenty: 5, MISSING: 1}),
        HoldRequest("order-5", {}),
        HoldRequest("order-6", {scarce: 2, plenty: 5}),
        HoldRequest("order-7", {scarce: 1}),
    )

    assert [_said(answer) for answer in answers] == [
        "held",
        "InsufficientStock",
        "VariantArchived",
        "VariantNotFound",
        "InvalidLines",
        "held",
        "InsufficientStock",
    ]
    refused = [answer.ids for answer in answers if isinstance(answer, (InsufficientStock, VariantArchived))]
    assert refused == [
        {"order_id": "order-2", "variant_ids": [scarce]},
        {"variant_ids": [archived]},
        {"order_id": "order-7", "variant_ids": [scarce]},
    ]
    assert (stock_of(scarce), stock_of(plenty)) == (0, 0)
    assert value("SELECT count(*) FROM stock_reservations") == 2
    assert broken() == []


def test_an_order_that_stands_in_a_batch_twice_is_answered_as_if_it_had_come_twice() -> None:
    variant_id = make_variant(stock=5)

    answers = reserved_many(
        HoldRequest("order-1", {variant_id: 6}),
        HoldRequest("order-1", {variant_id: 2}),
        HoldRequest("order-1", {variant_id: 2}, hold=timedelta(minutes=1)),
        HoldRequest("order-1", {variant_id: 6}),
        HoldRequest("order-1", {variant_id: 1}),
    )

    hold = answers[1]
    assert isinstance(hold, Hold)
    assert answers[2] == hold
    assert [_said(answer) for answer in answers] == [
        "InsufficientStock",
        "held",
        "held",
        "OrderAlreadyReserved",
        "OrderAlreadyReserved",
    ]
    taken = [answer.ids for answer in answers if isinstance(answer, OrderAlreadyReserved)]
    assert taken == [{"order_id": "order-1", "reservation_id": hold.id}] * 2
    assert stock_of(variant_id) == 3


def test_the_same_batch_again_gets_the_same_holds_and_touches_nothing() -> None:
    first, second = make_variants(2, stock=3)
    requests = [
        HoldRequest("order-1", {first: 2}),
        HoldRequest("order-2", {first: 2}),
        HoldRequest("order-3", {second: 3, first: 1}),
    ]
    answers = reserved_many(*requests)
    before = everything()

    with transaction() as session:
        again = reservations.reserve_many(session, requests)
        untouched = touched_nothing(session)

    assert [_said(answer) for answer in again] == ["held", "InsufficientStock", "held"]
    assert (again[0], again[2]) == (answers[0], answers[2])
    assert untouched
    assert everything() == before


@pytest.mark.parametrize("sold", [False, True], ids=["held", "confirmed"])
def test_an_order_that_has_its_hold_keeps_it(sold: bool) -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})
    if sold:
        hold = confirmed(hold.id)

    answers = reserved_many(HoldRequest("order-1", {variant_id: 2}), HoldRequest("order-1", {variant_id: 3}))

    assert answers[0] == hold
    assert isinstance(answers[1], OrderAlreadyReserved)
    assert answers[1].ids == {"order_id": "order-1", "reservation_id": hold.id}
    assert stock_of(variant_id) == 3


def test_a_batch_is_the_callers_to_commit() -> None:
    variant_id = make_variant(stock=5)
    many_due(1, {variant_id: 1})
    before = everything()

    with transaction() as session:
        reservations.reserve_many(session, [HoldRequest("order-1", {variant_id: 6})])
        session.rollback()

    assert everything() == before


# ---- due holds -------------------------------------------------------------------------------------------------------


def test_orders_whose_holds_are_due_get_new_ones() -> None:
    first, second = make_variants(2, stock=2)
    old = [reserved("order-1", {first: 2}), reserved("order-2", {second: 2})]
    make_due(*(hold.id for hold in old))

    answers = reserved_many(HoldRequest("order-1", {first: 2}), HoldRequest("order-2", {first: 1}))

    assert [_said(answer) for answer in answers] == ["held", "InsufficientStock"]
    assert [state_of(hold.id) for hold in old] == ["expired", "held"]
    assert (stock_of(first), stock_of(second)) == (0, 0)
    assert broken() == []


def test_an_order_whose_hold_is_due_gives_its_units_to_others_of_the_batch() -> None:
    first, second = make_variants(2, stock=2)
    make_due(reserved("order-1", {first: 2}).id)

    answers = reserved_many(HoldRequest("order-1", {second: 1}), HoldRequest("order-2", {first: 2}))

    assert [_said(answer) for answer in answers] == ["held", "held"]
    assert (stock_of(first), stock_of(second)) == (0, 1)
    assert broken() == []


def test_units_that_only_due_holds_of_others_have_are_reclaimed() -> None:
    first, second = make_variants(2, stock=1)
    many_due(300, {first: 1, second: 1})

    answers = reserved_many(*(HoldRequest(f"order-{number}", {first: 30, second: 1}) for number in range(11)))

    assert [_said(answer) for answer in answers] == ["held"] * 10 + ["InsufficientStock"]
    assert stock_of(first) == 1
    assert broken() == []


def test_a_batch_that_finds_stock_leaves_due_holds_to_the_sweep() -> None:
    variant_id = make_variant(stock=2)
    many_due(1, {variant_id: 1})

    reserved_many(HoldRequest("order-1", {variant_id: 1}), HoldRequest("order-2", {variant_id: 1}))

    assert value("SELECT count(*) FROM stock_reservations WHERE state = 'expired'") == 0
