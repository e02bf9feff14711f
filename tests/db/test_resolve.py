"""How a hold ends: once, by whoever is first, and every later call is answered by what its row says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from db import inventory, reservations
from db.errors import (
    HarborError,
    PaymentMismatch,
    PaymentRefInUse,
    ReservationConfirmed,
    ReservationExpired,
    ReservationNotFound,
    ReservationReleased,
)
from db.session import transaction
from tests.db.holds import (
    PAYMENT,
    broken,
    confirmed,
    hold_in,
    many_due,
    released,
    reserved,
    sales_of,
    state_of,
    swept,
)
from tests.db.sql import change, everything, locked, make_due, rows, touched_nothing, value
from tests.factories import make_variant, make_variants, stock_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from db.reservations import Hold

pytestmark = pytest.mark.usefixtures("database")


def _confirm(session: Session, reservation_id: int) -> Hold:
    return reservations.confirm(session, reservation_id, PAYMENT)


def _confirm_with_another(session: Session, reservation_id: int) -> Hold:
    return reservations.confirm(session, reservation_id, "payment-2")


# ---- every call in every state ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "state", "then", "stock", "sales"),
    [
        (_confirm, "held", "confirmed", 3, 1),
        (_confirm_with_another, "held", "confirmed", 3, 1),
        (_confirm, "confirmed", "confirmed", 3, 1),
        (reservations.release, "held", "released", 5, 0),
        (reservations.release, "released", "released", 5, 0),
    ],
)
def test_a_call_that_is_allowed_ends_the_hold_once(
    call: Callable[[Session, int], Hold], state: str, then: str, stock: int, sales: int
) -> None:
    variant_id = make_variant(stock=5)
    reservation_id = hold_in(state, "order-1", {variant_id: 2})

    with transaction() as session:
        hold = call(session, reservation_id)

    assert (hold.id, hold.order_id, hold.state) == (reservation_id, "order-1", then)
    assert hold.expires_at == value("SELECT expires_at FROM stock_reservations")
    assert state_of(reservation_id) == then
    assert stock_of(variant_id) == stock
    assert sales_of(reservation_id) == [(variant_id, -2)] * sales
    assert broken() == []


@pytest.mark.parametrize(
    ("call", "state", "error"),
    [
        (_confirm, "due", ReservationExpired),
        (_confirm, "released", ReservationReleased),
        (_confirm, "expired", ReservationExpired),
        (_confirm, "missing", ReservationNotFound),
        (_confirm_with_another, "due", ReservationExpired),
        (_confirm_with_another, "confirmed", PaymentMismatch),
        (_confirm_with_another, "released", ReservationReleased),
        (_confirm_with_another, "expired", ReservationExpired),
        (_confirm_with_another, "missing", ReservationNotFound),
        (reservations.release, "due", ReservationExpired),
        (reservations.release, "confirmed", ReservationConfirmed),
        (reservations.release, "expired", ReservationExpired),
        (reservations.release, "missing", ReservationNotFound),
    ],
)
def test_a_call_that_comes_too_late_says_why_and_writes_nothing(
    call: Callable[[Session, int], Hold], state: str, error: type[HarborError]
) -> None:
    reservation_id = hold_in(state, "order-1", {make_variant(stock=5): 2})

    with transaction() as session:
        with pytest.raises(HarborError) as refused:
            call(session, reservation_id)
        untouched = touched_nothing(session)

    assert type(refused.value) is error
    assert refused.value.ids == {"reservation_id": reservation_id}
    assert str(reservation_id) in str(refused.value)
    assert untouched


@pytest.mark.parametrize(
    ("state", "expired", "then", "stock"),
    [
        ("held", 0, "held", 3),
        ("due", 1, "expired", 5),
        ("confirmed", 0, "confirmed", 3),
        ("released", 0, "released", 5),
        ("expired", 0, "expired", 5),
    ],
)
def test_a_sweep_ends_what_is_due_and_nothing_else(state: str, expired: int, then: str, stock: int) -> None:
    variant_id = make_variant(stock=5)
    reservation_id = hold_in(state, "order-1", {variant_id: 2})
    if state != "held":
        make_due(reservation_id)

    assert swept() == expired

    assert state_of(reservation_id) == then
    assert stock_of(variant_id) == stock
    assert broken() == []


# ---- confirm ---------------------------------------------------------------------------------------------------------


def test_confirming_writes_one_sale_for_each_line() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {second: 5, first: 2})

    confirmed(hold.id)

    assert sales_of(hold.id) == [(first, -2), (second, -5)]
    assert (stock_of(first), stock_of(second)) == (3, 0)
    assert broken() == []


def test_confirming_sells_only_what_was_not_given_back_before() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 3, second: 2})
    change("UPDATE stock_reservation_lines SET released_qty = 2")
    change("UPDATE variants SET stock_qty = stock_qty + 2")

    confirmed(hold.id)

    assert sales_of(hold.id) == [(first, -1)]
    assert broken() == []


def test_confirming_stores_the_payment_and_the_time() -> None:
    hold = reserved("order-1", {make_variant(stock=5): 2})

    confirmed(hold.id, "stripe:pi_1")

    stored = rows("SELECT payment_ref, resolved_at BETWEEN created_at AND now() FROM stock_reservations")
    assert stored == [("stripe:pi_1", True)]


def test_confirming_waits_for_nobody_who_has_the_variant() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    with locked("SELECT FROM variants WHERE id = :id FOR UPDATE", id=variant_id), transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '1ms'"))
        sold = reservations.confirm(session, hold.id, PAYMENT)

    assert sold.state == "confirmed"


def test_a_payment_confirms_one_reservation_only() -> None:
    variant_id = make_variant(stock=5)
    first, second = (reserved(order_id, {variant_id: 1}).id for order_id in ("order-1", "order-2"))
    confirmed(first)
    before = everything()

    with pytest.raises(PaymentRefInUse) as refused:
        confirmed(second, PAYMENT)

    assert refused.value.ids == {"reservation_id": second, "other_id": first}
    assert PAYMENT not in str(refused.value)
    assert everything() == before


def test_the_callers_transaction_is_usable_after_a_payment_was_refused() -> None:
    variant_id = make_variant(stock=5)
    first, second = (reserved(order_id, {variant_id: 1}).id for order_id in ("order-1", "order-2"))
    confirmed(first)

    with transaction() as session:
        inventory.receive(session, variant_id, 10)
        with pytest.raises(PaymentRefInUse):
            reservations.confirm(session, second, PAYMENT)
        reservations.confirm(session, second, "payment-2")

    assert (state_of(second), stock_of(variant_id)) == ("confirmed", 13)
    assert broken() == []


def test_a_payment_that_was_refused_for_one_hold_can_confirm_another() -> None:
    variant_id = make_variant(stock=5)
    ended = hold_in("released", "order-1", {variant_id: 1})
    living = reserved("order-2", {variant_id: 1})
    with pytest.raises(ReservationReleased):
        confirmed(ended)

    hold = confirmed(living.id)

    assert hold.state == "confirmed"


# ---- release ---------------------------------------------------------------------------------------------------------


def test_releasing_gives_back_the_units_of_all_lines() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 2, second: 5})

    released(hold.id)

    assert (stock_of(first), stock_of(second)) == (5, 5)
    assert value("SELECT resolved_at BETWEEN created_at AND now() FROM stock_reservations")
    assert broken() == []


@pytest.mark.parametrize("end", ["released", "expired"])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_ending_a_hold_gives_back_only_what_was_not_given_back_before(end: str, before: int) -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 3})
    change("UPDATE stock_reservation_lines SET released_qty = :qty", qty=before)
    change("UPDATE variants SET stock_qty = stock_qty + :qty", qty=before)
    if end == "released":
        released(hold.id)
    else:
        make_due(hold.id)
        swept()

    assert state_of(hold.id) == end
    assert stock_of(variant_id) == 5
    assert broken() == []


def test_ending_a_hold_is_the_callers_to_commit() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})
    many_due(1, {variant_id: 1})
    before = everything()

    with transaction() as session:
        reservations.release(session, hold.id)
        reservations.expire_due(session)
        session.rollback()

    assert everything() == before
