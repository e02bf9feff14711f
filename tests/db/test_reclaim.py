"""Units of holds whose time is over are on sale again, with every worker dead."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from db import inventory, reservations
from db.errors import InsufficientStock
from db.session import transaction
from tests.db.holds import broken, many_due, released, reserved, state_of, swept
from tests.db.sql import (
    change,
    eventually,
    everything,
    make_due,
    meanwhile,
    rows,
    somebody_waits_for_a_lock,
    value,
)
from tests.factories import make_variant, make_variants, stock_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

pytestmark = pytest.mark.usefixtures("database")


def _refused_and_still_open(session: Session, lines: dict[int, int]) -> None:
    with pytest.raises(InsufficientStock):
        reservations.reserve(session, "order-2", lines)


# ---- what is reclaimed -----------------------------------------------------------------------------------------------


def test_a_buyer_who_finds_no_stock_gets_the_units_of_a_due_hold() -> None:
    variant_id = make_variant(stock=2)
    old = reserved("order-1", {variant_id: 2})
    make_due(old.id)

    hold = reserved("order-2", {variant_id: 1})

    assert hold.state == "held"
    assert state_of(old.id) == "expired"
    assert value("SELECT resolved_at <= statement_timestamp() FROM stock_reservations WHERE id = :id", id=old.id)
    assert stock_of(variant_id) == 1
    assert broken() == []


def test_a_due_hold_of_another_variant_is_left_to_the_sweep() -> None:
    wanted, other = make_variants(2, stock=2)
    make_due(reserved("order-1", {wanted: 2}).id)
    others = reserved("order-2", {other: 2})
    make_due(others.id)

    reserved("order-3", {wanted: 2})

    assert state_of(others.id) == "held"
    assert stock_of(other) == 0


def test_a_hold_whose_time_is_not_over_is_left_alone() -> None:
    variant_id = make_variant(stock=3)
    living = reserved("order-1", {variant_id: 1})
    make_due(reserved("order-2", {variant_id: 2}).id)

    reserved("order-3", {variant_id: 2})

    assert state_of(living.id) == "held"
    assert stock_of(variant_id) == 0


def test_a_due_hold_is_left_to_the_sweep_while_there_is_stock() -> None:
    variant_id = make_variant(stock=3)
    due = reserved("order-1", {variant_id: 2})
    make_due(due.id)

    reserved("order-2", {variant_id: 1})

    assert state_of(due.id) == "held"
    assert stock_of(variant_id) == 0


def test_a_reclaimed_hold_gives_back_the_units_of_all_its_lines() -> None:
    wanted, along, beyond = make_variants(3, stock=5)
    make_due(reserved("order-1", {wanted: 5, along: 4}).id)
    make_due(reserved("order-2", {along: 1, beyond: 2}).id)

    reserved("order-3", {wanted: 3})

    assert (stock_of(wanted), stock_of(along), stock_of(beyond)) == (2, 4, 3)
    assert broken() == []


def test_a_reclaim_gives_back_only_what_was_not_given_back_before() -> None:
    variant_id = make_variant(stock=5)
    due = reserved("order-1", {variant_id: 5})
    change("UPDATE stock_reservation_lines SET released_qty = 2")
    change("UPDATE variants SET stock_qty = 2")
    make_due(due.id)

    reserved("order-2", {variant_id: 4})

    assert stock_of(variant_id) == 1
    assert broken() == []


def test_an_order_gets_what_is_left_together_with_what_is_due() -> None:
    first, second = make_variants(2, stock=5)
    make_due(reserved("order-1", {first: 3}).id, reserved("order-2", {second: 4, first: 1}).id)

    reserved("order-3", {first: 5, second: 5})

    assert (stock_of(first), stock_of(second)) == (0, 0)


def test_a_reclaim_that_is_not_enough_changes_nothing() -> None:
    first, second = make_variants(2, stock=5)
    make_due(reserved("order-1", {first: 5}).id)
    reserved("order-2", {second: 5})
    before = everything()

    with pytest.raises(InsufficientStock) as refused:
        reserved("order-3", {first: 5, second: 1})

    assert refused.value.ids == {"order_id": "order-3", "variant_ids": [second]}
    assert everything() == before


@pytest.mark.parametrize("wanted", ["more units than 1000 holds have", "another variant behind 1000 holds"])
def test_no_number_of_due_holds_keeps_a_buyer_from_units_that_are_due(wanted: str) -> None:
    first, second = make_variants(2)
    many_due(1_001, {first: 1})
    many_due(1, {second: 1})

    hold = reserved("order-new", {first: 1_001} if wanted.startswith("more") else {first: 1, second: 1})

    assert hold.state == "held"
    assert broken() == []


def test_a_released_hold_is_not_reclaimed_a_second_time() -> None:
    variant_id = make_variant(stock=2)
    ended = released(reserved("order-1", {variant_id: 2}).id)
    make_due(ended.id)
    reserved("order-2", {variant_id: 2})

    with pytest.raises(InsufficientStock):
        reserved("order-3", {variant_id: 1})

    assert state_of(ended.id) == "released"
    assert stock_of(variant_id) == 0


# ---- others at the same moment ---------------------------------------------------------------------------------------


def test_a_buyer_waits_for_a_sweep_that_is_closing_the_hold_he_needs() -> None:
    variant_id = make_variant(stock=2)
    make_due(reserved("order-1", {variant_id: 2}).id)

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.expire_due(session)
            buyer = other.submit(reserved, "order-2", {variant_id: 2})
            eventually(somebody_waits_for_a_lock)

        assert buyer.result().state == "held"
    assert stock_of(variant_id) == 0
    assert broken() == []


def test_a_buyer_whose_chosen_holds_another_takes_gets_the_units_of_the_next() -> None:
    variant_id = make_variant()
    many_due(301, {variant_id: 1})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.reserve(session, "order-1", {variant_id: 300})
            buyer = other.submit(reserved, "order-2", {variant_id: 1})
            eventually(somebody_waits_for_a_lock)

        assert buyer.result().state == "held"
    assert broken() == []


def test_buyers_who_wait_for_the_same_due_holds_all_get_one() -> None:
    variant_id = make_variant()
    buyers = 7
    many_due(buyers, {variant_id: 1})

    with ThreadPoolExecutor(buyers - 1) as others:
        with transaction() as session:
            reservations.reserve(session, "order-0", {variant_id: 1})
            waiting = [others.submit(reserved, f"order-{number}", {variant_id: 1}) for number in range(1, buyers)]
            eventually(lambda: somebody_waits_for_a_lock(buyers - 1))
        holds = [buyer.result() for buyer in waiting]

    assert [hold.state for hold in holds] == ["held"] * (buyers - 1)
    assert stock_of(variant_id) == 0
    assert broken() == []


def test_holds_that_were_closed_in_vain_are_due_as_before() -> None:
    reclaimed, in_stock = make_variants(2, stock=1)
    due = reserved("order-1", {reclaimed: 1})
    make_due(due.id)

    with (
        meanwhile("UPDATE stock_reservations", lambda: reserved("order-faster", {in_stock: 1})),
        transaction() as session,
    ):
        with pytest.raises(InsufficientStock) as refused:
            reservations.reserve(session, "order-2", {reclaimed: 1, in_stock: 1})
        inventory.receive(session, in_stock, 1)

    assert refused.value.ids["variant_ids"] == [in_stock]
    assert state_of(due.id) == "held"
    assert broken() == []


def test_a_sweep_passes_over_the_hold_that_a_buyer_is_reclaiming() -> None:
    variant_id, elsewhere = make_variants(2, stock=2)
    reclaimed = reserved("order-1", {variant_id: 2})
    make_due(reclaimed.id, reserved("order-2", {elsewhere: 1}).id)

    with transaction() as session:
        reservations.reserve(session, "order-3", {variant_id: 1})
        expired = swept()

    assert expired == 1
    assert state_of(reclaimed.id) == "expired"
    assert (stock_of(variant_id), stock_of(elsewhere)) == (1, 2)


def test_a_buyer_who_loses_the_last_unit_while_he_waits_is_refused() -> None:
    variant_id = make_variant(stock=1)

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.reserve(session, "order-1", {variant_id: 1})
            slower = other.submit(reserved, "order-2", {variant_id: 1})
            eventually(somebody_waits_for_a_lock)
        refused = slower.exception()

    assert isinstance(refused, InsufficientStock)
    assert rows("SELECT order_id FROM stock_reservations") == [("order-1",)]
    assert stock_of(variant_id) == 0


def test_a_buyer_who_loses_the_last_unit_while_he_waits_gets_one_that_is_due() -> None:
    variant_id = make_variant(stock=1)
    many_due(1, {variant_id: 1})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.reserve(session, "order-1", {variant_id: 1})
            slower = other.submit(reserved, "order-2", {variant_id: 1})
            eventually(somebody_waits_for_a_lock)
        hold = slower.result()

    assert hold.state == "held"
    assert stock_of(variant_id) == 0
    assert broken() == []


def test_a_buyer_of_many_lines_who_comes_up_short_keeps_none_of_them_locked() -> None:
    first, second = make_variants(2, stock=1)

    with ThreadPoolExecutor(1) as other, transaction() as outer:
        with transaction() as session:
            reservations.reserve(session, "order-1", {second: 1})
            slower = other.submit(_refused_and_still_open, outer, {first: 1, second: 1})
            eventually(somebody_waits_for_a_lock)
        slower.result()
        bought = reserved("order-3", {first: 1})

    assert bought.state == "held"


def test_an_order_of_many_short_lines_closes_no_more_holds_for_others_than_one_of_one_line() -> None:
    ids = make_variants(50)
    for variant_id in ids:
        many_due(20, {variant_id: 1})

    with transaction() as session:
        reservations.reserve(session, "order-1", dict.fromkeys(ids, 1))

    # Four of each: a fiftieth of the 200 for others.
    assert value("SELECT count(*) FROM stock_reservations WHERE state = 'expired'") == 200
