"""Reserving: all or nothing, once per order, never more than there is."""

from __future__ import annotations

from datetime import timedelta

import pytest

from db import inventory, reservations
from db.errors import (
    HarborError,
    InsufficientStock,
    TooManyVariants,
    VariantArchived,
    VariantNotFound,
)
from db.inventory import Product
from db.session import transaction
from tests.db.holds import MISSING, broken, reserved, swept
from tests.db.sql import (
    change,
    everything,
    make_due,
    rows,
    value,
)
from tests.factories import make_variant, make_variants, stock_of

pytestmark = pytest.mark.usefixtures("database")


# ---- what a hold takes -----------------------------------------------------------------------------------------------


def test_reserve_takes_the_units_and_writes_the_lines() -> None:
    first, second = make_variants(2, stock=5)

    hold = reserved("order-1", {first: 2, second: 5})

    lines = rows("SELECT * FROM stock_reservation_lines WHERE reservation_id = :id ORDER BY 2", id=hold.id)
    assert (hold.order_id, hold.state) == ("order-1", "held")
    assert lines == [(hold.id, first, 2, 0), (hold.id, second, 5, 0)]
    assert (stock_of(first), stock_of(second)) == (3, 0)


def test_reserve_writes_no_movement() -> None:
    variant_id = make_variant(stock=5)

    reserved("order-1", {variant_id: 2})

    assert rows("SELECT kind FROM stock_movements") == [("receive",)]
    assert broken() == []


@pytest.mark.parametrize(
    ("told", "hold_seconds", "max_seconds"),
    [
        ({}, 900, 7_200),
        ({"hold": timedelta(seconds=3)}, 3, 7_200),
        ({"hold": timedelta(days=30), "max_hold": timedelta(days=30)}, 2_592_000, 2_592_000),
    ],
)
def test_a_hold_lasts_as_long_as_was_asked_by_the_clock_of_the_database(
    told: dict[str, timedelta], hold_seconds: int, max_seconds: int
) -> None:
    variant_id = make_variant(stock=5)

    with transaction() as session:
        hold = reservations.reserve(session, "order-1", {variant_id: 2}, **told)

    created, expires, most = rows("SELECT created_at, expires_at, max_expires_at FROM stock_reservations")[0]
    assert hold.expires_at == expires == created + timedelta(seconds=hold_seconds)
    assert most == created + timedelta(seconds=max_seconds)


def test_an_order_of_1000_variants_is_held() -> None:
    variant_ids = make_variants(1_000)
    change("UPDATE variants SET stock_qty = 1")

    hold = reserved("order-1", dict.fromkeys(variant_ids, 1))

    assert value("SELECT count(*) FROM stock_reservation_lines WHERE reservation_id = :id", id=hold.id) == 1_000
    assert value("SELECT sum(stock_qty) FROM variants") == 0


def test_an_order_of_1001_variants_is_refused() -> None:
    with pytest.raises(TooManyVariants) as refused:
        reserved("order-1", dict.fromkeys(range(1, 1_002), 1))

    assert refused.value.ids == {"order_id": "order-1", "count": 1_001, "limit": 1_000}


def test_units_beyond_32_bits_are_held_and_come_back() -> None:
    variant_id = make_variant()
    most = 2**31 - 1
    for order_id in ("order-1", "order-2"):
        with transaction() as session:
            inventory.receive(session, variant_id, most)
        make_due(reserved(order_id, {variant_id: most}).id)

    expired = swept()

    assert expired == 2
    assert stock_of(variant_id) == 2 * most


# ---- all or nothing --------------------------------------------------------------------------------------------------


def test_an_order_with_one_short_line_takes_nothing() -> None:
    first, second = make_variants(2, stock=5)
    before = everything()

    with pytest.raises(InsufficientStock) as refused:
        reserved("order-1", {first: 5, second: 6})

    assert refused.value.ids == {"order_id": "order-1", "variant_ids": [second]}
    assert everything() == before


def test_every_short_line_is_named() -> None:
    first, second, third = make_variants(3, stock=5)

    with pytest.raises(InsufficientStock) as refused:
        reserved("order-1", {third: 6, second: 5, first: 6})

    assert refused.value.ids["variant_ids"] == [first, third]


def test_the_last_unit_is_sold_once() -> None:
    variant_id = make_variant(stock=1)
    reserved("order-1", {variant_id: 1})

    with pytest.raises(InsufficientStock):
        reserved("order-2", {variant_id: 1})

    assert stock_of(variant_id) == 0


def test_an_unknown_variant_is_refused_by_its_id() -> None:
    variant_id = make_variant(stock=5)
    before = everything()

    with pytest.raises(VariantNotFound) as refused:
        reserved("order-1", {variant_id: 1, MISSING: 1, MISSING + 1: 1})

    assert refused.value.ids == {"variant_ids": [MISSING, MISSING + 1]}
    assert everything() == before


def test_an_archived_variant_is_refused_by_its_id() -> None:
    variant_id = make_variant(stock=5)
    archived = make_variants(2, stock=5, archived=True)
    before = everything()

    with pytest.raises(VariantArchived) as refused:
        reserved("order-1", {variant_id: 1, archived[0]: 1, archived[1]: 9})

    assert refused.value.ids == {"variant_ids": archived}
    assert everything() == before


# ---- the caller's transaction ----------------------------------------------------------------------------------------


def test_a_hold_is_the_callers_to_commit() -> None:
    variant_id = make_variant(stock=5)
    before = everything()

    with transaction() as session:
        reservations.reserve(session, "order-1", {variant_id: 2})
        session.rollback()

    assert everything() == before


@pytest.mark.parametrize("reason", ["short", "short after a reclaim", "unknown", "archived", "other lines"])
def test_a_refused_order_writes_nothing_and_leaves_the_callers_transaction_usable(reason: str) -> None:
    variant_id, lost = make_variants(2, stock=5)
    archived = make_variant(stock=5, archived=True)
    reserved("order-1", {variant_id: 1})
    make_due(reserved("order-2", {lost: 5}).id)
    order_id, lines = {
        "short": ("order-3", {variant_id: 5}),
        "short after a reclaim": ("order-3", {lost: 6}),
        "unknown": ("order-3", {MISSING: 1}),
        "archived": ("order-3", {archived: 1}),
        "other lines": ("order-1", {variant_id: 2}),
    }[reason]
    before = everything()

    with transaction() as session:
        session.add(Product(sku="HBR-BEFORE", name="Before", price_cents=900))
        with pytest.raises(HarborError):
            reservations.reserve(session, order_id, lines)
        session.add(Product(sku="HBR-AFTER", name="After", price_cents=900))

    after = everything()
    assert {row[1] for row in after.pop("products")} >= {"HBR-BEFORE", "HBR-AFTER"}
    before.pop("products")
    assert after == before
