"""One order has one hold: the same call again gets it back, other lines are refused, an ended hold is replaced."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from db import inventory, reservations
from db.errors import InsufficientStock, OrderAlreadyReserved, OrderContended
from db.session import transaction
from tests.db.holds import broken, confirmed, released, reserved, state_of, swept
from tests.db.sql import (
    change,
    eventually,
    everything,
    make_due,
    meanwhile,
    somebody_waits_for_a_lock,
    touched_nothing,
    value,
)
from tests.factories import make_variant, make_variants, stock_of

pytestmark = pytest.mark.usefixtures("database")


def test_the_same_order_again_gets_its_hold_and_takes_no_more_units() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 2, second: 1})

    again = reserved("order-1", {second: 1, first: 2})

    assert again == hold
    assert (stock_of(first), stock_of(second)) == (3, 4)


def test_the_same_order_again_does_not_last_longer() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    with transaction() as session:
        again = reservations.reserve(session, "order-1", {variant_id: 2}, hold=timedelta(hours=1))

    assert again.expires_at == hold.expires_at


def test_a_confirmed_order_again_gets_its_confirmed_hold() -> None:
    variant_id = make_variant(stock=5)
    hold = confirmed(reserved("order-1", {variant_id: 2}).id)

    again = reserved("order-1", {variant_id: 2})

    assert (again, again.state) == (hold, "confirmed")
    assert stock_of(variant_id) == 3


def test_a_confirmed_order_whose_time_is_over_gets_its_confirmed_hold() -> None:
    variant_id = make_variant(stock=5)
    hold = confirmed(reserved("order-1", {variant_id: 2}).id)
    make_due(hold.id)

    again = reserved("order-1", {variant_id: 2})

    assert (again.id, again.state) == (hold.id, "confirmed")


def test_the_same_order_again_gets_its_hold_of_what_is_no_longer_for_sale() -> None:
    variant_id = make_variant(stock=2)
    hold = reserved("order-1", {variant_id: 2})
    with transaction() as session:
        inventory.archive(session, value("SELECT product_id FROM variants"))

    again = reserved("order-1", {variant_id: 2})

    assert again == hold


def test_the_same_order_again_touches_nothing() -> None:
    variant_id = make_variant(stock=5)
    reserved("order-1", {variant_id: 2})
    # The second call draws a number in vain; once in 33, PostgreSQL then logs which numbers are next, which is a write.
    if not value("SELECT log_cnt FROM stock_reservations_id_seq"):
        value("SELECT nextval('stock_reservations_id_seq')")

    with transaction() as session:
        reservations.reserve(session, "order-1", {variant_id: 2})
        untouched = touched_nothing(session)

    assert untouched


@pytest.mark.parametrize("sold", [False, True], ids=["held", "confirmed"])
@pytest.mark.parametrize("other", ["more units", "other variant", "one line more", "one line less"])
def test_the_same_order_with_other_lines_is_refused(other: str, sold: bool) -> None:
    first, second, third = make_variants(3, stock=5)
    hold = reserved("order-1", {first: 2, second: 1})
    if sold:
        confirmed(hold.id)
    before = everything()
    lines = {
        "more units": {first: 3, second: 1},
        "other variant": {first: 2, third: 1},
        "one line more": {first: 2, second: 1, third: 1},
        "one line less": {first: 2},
    }[other]

    with pytest.raises(OrderAlreadyReserved) as refused:
        reserved("order-1", lines)

    assert refused.value.ids == {"order_id": "order-1", "reservation_id": hold.id}
    assert everything() == before


@pytest.mark.parametrize("ended", ["released", "expired", "due"])
@pytest.mark.parametrize("qty", [2, 5], ids=["same lines", "other lines"])
def test_an_order_whose_hold_has_ended_gets_a_new_one(ended: str, qty: int) -> None:
    variant_id = make_variant(stock=5)
    old = reserved("order-1", {variant_id: 2})
    if ended == "released":
        released(old.id)
    else:
        make_due(old.id)
    if ended == "expired":
        swept()

    new = reserved("order-1", {variant_id: qty})

    assert new.id != old.id
    assert new.state == "held"
    assert state_of(old.id) == ("released" if ended == "released" else "expired")
    assert stock_of(variant_id) == 5 - qty
    assert broken() == []


def test_an_order_whose_hold_is_due_gives_back_what_it_no_longer_asks_for() -> None:
    first, second = make_variants(2, stock=5)
    make_due(reserved("order-1", {first: 2, second: 2}).id)

    reserved("order-1", {second: 1})

    assert (stock_of(first), stock_of(second)) == (5, 4)


def test_an_order_whose_hold_is_due_keeps_it_as_it_was_when_a_new_one_is_refused() -> None:
    variant_id = make_variant(stock=5)
    make_due(reserved("order-1", {variant_id: 2}).id)
    before = everything()

    with pytest.raises(InsufficientStock):
        reserved("order-1", {variant_id: 6})

    assert everything() == before


# ---- at the same moment ----------------------------------------------------------------------------------------------


def test_two_calls_for_one_order_make_one_hold() -> None:
    variant_id = make_variant(stock=5)

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            hold = reservations.reserve(session, "order-1", {variant_id: 2})
            waiting = other.submit(reserved, "order-1", {variant_id: 2})
            eventually(somebody_waits_for_a_lock)

        assert waiting.result() == hold
    assert stock_of(variant_id) == 3


def test_a_call_that_waited_for_one_that_failed_makes_the_hold_itself() -> None:
    variant_id = make_variant(stock=5)

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.reserve(session, "order-1", {variant_id: 2})
            waiting = other.submit(reserved, "order-1", {variant_id: 2})
            eventually(somebody_waits_for_a_lock)
            session.rollback()

        assert waiting.result().state == "held"
    assert stock_of(variant_id) == 3


def test_an_order_that_others_keep_making_and_ending_says_so() -> None:
    variant_id = make_variant(stock=5)

    def make() -> None:
        change(
            "INSERT INTO stock_reservations (order_id, request_hash, expires_at, max_expires_at)"
            " VALUES ('order-1', 'other', now() + interval '1 hour', now() + interval '1 hour')"
        )

    def end() -> None:
        change("UPDATE stock_reservations SET state = 'released', resolved_at = now() WHERE state = 'held'")

    with (
        meanwhile("harbor_reserve", make),
        meanwhile("harbor_look", end),
        pytest.raises(OrderContended) as refused,
    ):
        reserved("order-1", {variant_id: 2})

    assert refused.value.ids == {"order_id": "order-1"}
    assert stock_of(variant_id) == 5
