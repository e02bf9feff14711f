"""A payment that was made becomes a sale or a refund, whatever has become of its hold, and always the same one."""

from __future__ import annotations

import pytest

from db import inventory, reservations
from db.errors import HarborError, PaymentRefInUse, ReservationNotFound
from db.reservations import Hold, HoldState
from db.session import transaction
from tests.db.holds import (
    MISSING,
    PAYMENT,
    broken,
    confirmed,
    hold_in,
    kept,
    lines_of,
    paid,
    paid_again,
    received,
    refunds,
    reserved,
    sales_of,
    state_of,
    swept,
)
from tests.db.sql import everything, make_due, rows, touched_nothing, value
from tests.factories import make_variant, make_variants, stock_of

pytestmark = pytest.mark.usefixtures("database")


def _revived_from(reservation_id: int) -> int | None:
    revived: int | None = value("SELECT revived_from FROM stock_reservations WHERE id = :id", id=reservation_id)
    return revived


def _archive(variant_id: int) -> None:
    with transaction() as session:
        inventory.archive(session, value("SELECT product_id FROM variants WHERE id = :id", id=variant_id))


# ---- a sale of the hold itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["held", "due", "confirmed"])
@pytest.mark.parametrize("archived", [False, True], ids=["for sale", "archived"])
def test_a_hold_that_has_its_units_is_sold(state: str, archived: bool) -> None:
    first, second = make_variants(2, stock=5)
    reservation_id = hold_in(state, "order-1", {first: 2, second: 1})
    if archived:
        _archive(first)

    answer = paid(reservation_id)

    assert isinstance(answer, Hold)
    assert (answer.id, answer.order_id, answer.state) == (reservation_id, "order-1", HoldState.CONFIRMED)
    assert answer.expires_at == value("SELECT expires_at FROM stock_reservations")
    assert rows("SELECT state, payment_ref, revived_from FROM stock_reservations") == [("confirmed", PAYMENT, None)]
    assert sales_of(reservation_id) == [(first, -2), (second, -1)]
    assert (stock_of(first), stock_of(second)) == (3, 4)
    assert broken() == []
    assert paid_again(reservation_id, answer)


def test_a_sale_can_be_asked_for_by_confirm_and_by_a_late_webhook() -> None:
    hold = reserved("order-1", {make_variant(stock=5): 2})

    answers = [confirmed(hold.id), paid(hold.id), confirmed(hold.id)]

    assert answers == [answers[0]] * 3
    assert refunds() == []


# ---- a sale of a new hold --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["released", "expired"])
def test_a_hold_that_has_ended_is_taken_again_and_sold(state: str) -> None:
    first, second = make_variants(2, stock=5)
    old = hold_in(state, "order-1", {first: 2, second: 1})

    answer = paid(old)

    assert isinstance(answer, Hold)
    assert answer.id != old
    assert (answer.order_id, answer.state, _revived_from(answer.id)) == ("order-1", "confirmed", old)
    assert (state_of(old), sales_of(old)) == (state, [])
    assert sales_of(answer.id) == [(first, -2), (second, -1)]
    assert (stock_of(first), stock_of(second)) == (3, 4)
    assert broken() == []
    assert paid_again(old, answer)


def test_of_a_hold_that_became_smaller_only_the_rest_is_taken_again() -> None:
    first, second = make_variants(2, stock=5)
    old = reserved("order-1", {first: 3, second: 2})
    kept(old.id, {first: 1})
    make_due(old.id)
    swept()

    answer = paid(old.id)

    assert isinstance(answer, Hold)
    assert lines_of(answer.id) == {first: 1}
    assert sales_of(answer.id) == [(first, -1)]
    assert (stock_of(first), stock_of(second)) == (4, 5)
    assert broken() == []
    assert paid_again(old.id, answer)


def test_units_that_only_due_holds_of_others_have_are_reclaimed() -> None:
    variant_id = make_variant(stock=2)
    old = hold_in("expired", "order-1", {variant_id: 2})
    others = reserved("order-2", {variant_id: 2})
    make_due(others.id)

    answer = paid(old)

    assert isinstance(answer, Hold)
    assert (state_of(others.id), _revived_from(answer.id)) == ("expired", old)
    assert stock_of(variant_id) == 0
    assert broken() == []
    assert paid_again(old, answer)


@pytest.mark.parametrize("due", [False, True], ids=["held", "due"])
def test_the_hold_that_the_order_has_made_meanwhile_is_sold_or_replaced(due: bool) -> None:
    variant_id = make_variant(stock=2)
    old = hold_in("expired", "order-1", {variant_id: 2})
    new = reserved("order-1", {variant_id: 2})
    if due:
        make_due(new.id)

    answer = paid(old)

    assert isinstance(answer, Hold)
    assert (answer.id == new.id, state_of(new.id)) == ((False, "expired") if due else (True, "confirmed"))
    assert _revived_from(answer.id) == old
    assert sales_of(answer.id) == [(variant_id, -2)]
    assert broken() == []
    assert paid_again(old, answer)
    assert paid_again(answer.id, answer)


def test_an_order_that_was_revived_can_be_asked_for_again() -> None:
    variant_id = make_variant(stock=5)
    answer = paid(hold_in("expired", "order-1", {variant_id: 2}))

    assert reserved("order-1", {variant_id: 2}) == answer


# ---- refused ---------------------------------------------------------------------------------------------------------


def _refused(reservation_id: int) -> HarborError:
    before = everything()
    with transaction() as session:
        with pytest.raises(HarborError) as refused:
            reservations.confirm_or_reacquire(session, reservation_id, PAYMENT)
        assert touched_nothing(session)
    assert everything() == before
    return refused.value


def test_a_hold_that_never_was_is_named() -> None:
    error = _refused(MISSING)

    assert type(error) is ReservationNotFound
    assert error.ids == {"reservation_id": MISSING}


@pytest.mark.parametrize("state", ["held", "due", "confirmed", "released", "expired"])
@pytest.mark.parametrize("refund", [False, True], ids=["sale", "refund"])
def test_a_payment_of_another_order_is_refused(state: str, refund: bool) -> None:
    variant_id = make_variant(stock=5)
    others = reserved("order-2", {variant_id: 1}).id
    if refund:
        confirmed(others, "payment-2")
    paid(others)
    reservation_id = hold_in("held" if state == "confirmed" else state, "order-3", {variant_id: 2})
    if state == "confirmed":
        confirmed(reservation_id, "payment-3")

    error = _refused(reservation_id)

    assert type(error) is PaymentRefInUse
    assert error.ids == {"reservation_id": reservation_id, "other_id": others}
    assert PAYMENT not in str(error)


def test_a_late_sale_is_the_callers_to_commit() -> None:
    variant_id = make_variant(stock=5)
    old = hold_in("expired", "order-1", {variant_id: 2})
    before = everything()

    with transaction() as session:
        reservations.confirm_or_reacquire(session, old, PAYMENT)
        session.rollback()

    assert everything() == before


def test_units_that_arrive_before_the_payment_does_are_sold() -> None:
    variant_id = make_variant(stock=1)
    old = hold_in("expired", "order-1", {variant_id: 1})
    reserved("order-2", {variant_id: 1})
    received(variant_id, 1)

    assert isinstance(paid(old), Hold)
    assert broken() == []
