"""Stock changes only together with the movement that says why, and never below zero."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db import inventory, reservations
from db.errors import (
    HarborError,
    InvalidQuantity,
    ProductHasHolds,
    ProductNotFound,
    StockTooLow,
    VariantArchived,
    VariantNotFound,
)
from db.session import transaction
from tests.db.holds import MISSING, broken, confirmed, hold_in, reserved
from tests.db.sql import change, eventually, everything, rows, somebody_waits_for_a_lock, touched_nothing, value
from tests.factories import make_variant, make_variants, stock_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

pytestmark = pytest.mark.usefixtures("database")

LEDGER = "SELECT variant_id, kind, qty, reservation_id, reason FROM stock_movements ORDER BY id"


def product_of(variant_id: int) -> int:
    return int(value("SELECT product_id FROM variants WHERE id = :id", id=variant_id))


def delete(product_id: int) -> None:
    with transaction() as session:
        inventory.delete_product(session, product_id)


# ---- receive, adjust, take_back --------------------------------------------------------------------------------------


def test_receiving_puts_units_on_sale_and_says_how_many_there_are() -> None:
    variant_id, other = make_variants(2)

    with transaction() as session:
        first = inventory.receive(session, variant_id, 5)
        second = inventory.receive(session, variant_id, 2**31 - 1, reason="delivery 7")

    assert (first, second) == (5, 2**31 + 4)
    assert (stock_of(variant_id), stock_of(other)) == (2**31 + 4, 0)
    assert rows(LEDGER) == [
        (variant_id, "receive", 5, None, None),
        (variant_id, "receive", 2**31 - 1, None, "delivery 7"),
    ]


@pytest.mark.parametrize("by", [3, -3, -5])
def test_adjusting_corrects_the_count_and_stores_the_reason(by: int) -> None:
    variant_id = make_variant(stock=5)

    with transaction() as session:
        left = inventory.adjust(session, variant_id, by, reason="counted")

    assert left == stock_of(variant_id) == 5 + by
    assert rows(LEDGER)[1:] == [(variant_id, "adjust", by, None, "counted")]


def test_a_count_never_goes_below_zero() -> None:
    variant_id = make_variant(stock=5)
    before = everything()

    with transaction() as session:
        with pytest.raises(StockTooLow) as refused:
            inventory.adjust(session, variant_id, -6, reason="counted")
        untouched = touched_nothing(session)

    assert refused.value.ids == {"variant_id": variant_id, "change": -6, "stock_qty": 5}
    assert untouched
    assert everything() == before


def test_units_in_a_hold_cannot_be_adjusted_away() -> None:
    variant_id = make_variant(stock=5)
    reserved("order-1", {variant_id: 3})

    with pytest.raises(StockTooLow), transaction() as session:
        inventory.adjust(session, variant_id, -3, reason="broken")

    assert stock_of(variant_id) == 2


@pytest.mark.parametrize("known", [True, False])
def test_taking_back_puts_sold_units_on_sale_again(known: bool) -> None:
    variant_id = make_variant(stock=5)
    hold = confirmed(reserved("order-1", {variant_id: 3}).id)
    reservation_id = hold.id if known else None

    with transaction() as session:
        left = inventory.take_back(session, variant_id, 2, reservation_id=reservation_id, reason="too small")

    assert left == stock_of(variant_id) == 4
    assert rows(LEDGER)[2:] == [(variant_id, "take_back", 2, reservation_id, "too small")]


@pytest.mark.parametrize(
    "move",
    [
        lambda session: inventory.receive(session, MISSING, 1),
        lambda session: inventory.adjust(session, MISSING, 1, reason="counted"),
        lambda session: inventory.adjust(session, MISSING, -1, reason="counted"),
        lambda session: inventory.take_back(session, MISSING, 1),
    ],
)
def test_a_movement_of_an_unknown_variant_is_refused_by_its_id(move: Callable[[Session], int]) -> None:
    with transaction() as session:
        with pytest.raises(VariantNotFound) as refused:
            move(session)
        untouched = touched_nothing(session)

    assert refused.value.ids == {"variant_ids": [MISSING]}
    assert untouched


def test_the_books_balance_after_every_kind_of_movement() -> None:
    variant_id = make_variant(stock=9)
    hold_in("held", "order-1", {variant_id: 1})
    hold_in("expired", "order-2", {variant_id: 2})
    hold_in("released", "order-3", {variant_id: 3})
    sold = hold_in("confirmed", "order-4", {variant_id: 4})

    with transaction() as session:
        inventory.adjust(session, variant_id, -2, reason="broken")
        inventory.take_back(session, variant_id, 1, reservation_id=sold)

    assert stock_of(variant_id) == 9 - 1 - 4 - 2 + 1
    assert broken() == []


def test_a_movement_is_the_callers_to_commit() -> None:
    variant_id = make_variant(stock=5)
    before = everything()

    with transaction() as session:
        inventory.receive(session, variant_id, 1)
        inventory.adjust(session, variant_id, -1, reason="counted")
        session.rollback()

    assert everything() == before


def test_a_refused_movement_leaves_the_callers_transaction_usable() -> None:
    variant_id = make_variant(stock=5)

    with transaction() as session:
        for move in (-6, 2**31):
            with pytest.raises((StockTooLow, InvalidQuantity)):
                inventory.adjust(session, variant_id, move, reason="counted")
        inventory.receive(session, variant_id, 1)

    assert stock_of(variant_id) == 6


# ---- archive ---------------------------------------------------------------------------------------------------------


def test_an_archived_product_is_off_sale_and_its_holds_live_on() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    with transaction() as session:
        inventory.archive(session, product_of(variant_id))

    with pytest.raises(VariantArchived):
        reserved("order-2", {variant_id: 1})
    assert confirmed(hold.id).state == "confirmed"
    assert broken() == []


def test_archiving_again_keeps_the_time_of_the_first() -> None:
    product_id = product_of(make_variant())
    with transaction() as session:
        inventory.archive(session, product_id)
    archived_at = value("SELECT archived_at FROM products")

    with transaction() as session:
        inventory.archive(session, product_id)

    assert rows("SELECT archived_at, updated_at >= archived_at FROM products") == [(archived_at, True)]


def test_archiving_leaves_other_products_on_sale() -> None:
    archived, other = make_variant(stock=1), make_variant(stock=1)

    with transaction() as session:
        inventory.archive(session, product_of(archived))

    assert reserved("order-1", {other: 1}).state == "held"


@pytest.mark.parametrize("call", [inventory.archive, inventory.delete_product])
def test_an_unknown_product_is_refused_by_its_id(call: Callable[[Session, int], None]) -> None:
    with transaction() as session:
        with pytest.raises(ProductNotFound) as refused:
            call(session, MISSING)
        untouched = touched_nothing(session)

    assert refused.value.ids == {"product_id": MISSING}
    assert untouched


# ---- delete ----------------------------------------------------------------------------------------------------------


def test_deleting_a_product_deletes_its_variants_and_keeps_the_ledger() -> None:
    first, second = make_variants(2, stock=5)
    other = make_variant(stock=5)

    delete(product_of(first))

    assert rows("SELECT id FROM variants") == [(other,)]
    assert value("SELECT count(*) FROM products") == 1
    assert [row[0] for row in rows(LEDGER)] == [first, second, other]
    assert broken() == []


@pytest.mark.parametrize("state", ["held", "due", "confirmed", "released", "expired"])
def test_a_product_with_a_hold_in_any_state_cannot_be_deleted(state: str) -> None:
    first, second = make_variants(2, stock=5)
    reservation_id = hold_in(state, "order-1", {second: 1})
    product_id = product_of(first)
    before = everything()

    with pytest.raises(ProductHasHolds) as refused:
        delete(product_id)

    assert refused.value.ids == {"product_id": product_id, "reservation_ids": [reservation_id]}
    assert everything() == before


def test_a_product_can_be_deleted_when_its_holds_have_been_pruned() -> None:
    variant_id = make_variant(stock=5)
    hold_in("released", "order-1", {variant_id: 1})
    change("DELETE FROM stock_reservations")

    delete(product_of(variant_id))

    assert rows("SELECT id FROM variants") == []


def test_a_product_that_is_being_reserved_cannot_be_deleted() -> None:
    variant_id = make_variant(stock=5)

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.reserve(session, "order-1", {variant_id: 1})
            deleting = other.submit(delete, product_of(variant_id))
            eventually(somebody_waits_for_a_lock)
        refused = deleting.exception()

    assert isinstance(refused, ProductHasHolds)
    assert stock_of(variant_id) == 4


def test_a_product_that_is_being_deleted_cannot_be_reserved() -> None:
    variant_id = make_variant(stock=5)

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            inventory.delete_product(session, product_of(variant_id))
            reserving = other.submit(reserved, "order-1", {variant_id: 1})
            eventually(somebody_waits_for_a_lock)
        refused = reserving.exception()

    assert isinstance(refused, HarborError)
    assert rows("SELECT id FROM stock_reservations") == []


def test_deleting_a_product_keeps_new_variants_out_until_it_is_done() -> None:
    variant_id = make_variant()
    product_id = value("SELECT product_id FROM variants WHERE id = :id", id=variant_id)

    with transaction() as session:
        inventory.delete_product(session, product_id)
        with transaction() as other:
            other.execute(text("SET LOCAL lock_timeout = '100ms'"))
            late = text("INSERT INTO variants (product_id, sku) VALUES (:id, 'late')")
            with pytest.raises(DBAPIError, match="lock timeout"):
                other.execute(late, {"id": product_id})

    assert value("SELECT count(*) FROM variants") == 0


def test_archiving_again_changes_nothing() -> None:
    product_id = value("SELECT product_id FROM variants WHERE id = :id", id=make_variant(archived=True))
    before = everything()

    with transaction() as session:
        inventory.archive(session, product_id)
        untouched = touched_nothing(session)

    assert untouched
    assert everything() == before
