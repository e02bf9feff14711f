"""The books: every variant whose units do not add up is reported with exact numbers, and nothing is repaired."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from threading import Event

import pytest

from db import inventory
from db.inventory import BrokenVariant
from tests.db.holds import broken, confirmed, hold_in, released, reserved
from tests.db.sql import change, everything, meanwhile, recorded, value
from tests.factories import make_variant, make_variants

pytestmark = pytest.mark.usefixtures("database")


def sku_of(variant_id: int) -> str:
    return str(value("SELECT sku FROM variants WHERE id = :id", id=variant_id))


# ---- what it finds ---------------------------------------------------------------------------------------------------


def test_an_empty_catalogue_has_nothing_to_report() -> None:
    seen = inventory.reconcile()

    assert (seen.checked, seen.broken, seen.next_after) == (0, [], None)


def test_books_that_balance_have_nothing_to_report() -> None:
    variants = make_variants(3, stock=9)
    for state in ("held", "due", "confirmed", "released", "expired"):
        hold_in(state, f"order-{state}", dict.fromkeys(variants, 1))

    seen = inventory.reconcile()

    assert (seen.checked, seen.broken, seen.next_after) == (3, [], None)


@pytest.mark.parametrize(
    ("corruption", "stock_qty", "held_qty", "moved_qty"),
    [
        ("UPDATE variants SET stock_qty = stock_qty + 2 WHERE id = :id", 7, 3, 8),
        ("UPDATE variants SET stock_qty = stock_qty - 1 WHERE id = :id", 4, 3, 8),
        ("DELETE FROM stock_movements WHERE variant_id = :id AND kind = 'receive'", 5, 3, -2),
        ("DELETE FROM stock_movements WHERE variant_id = :id AND kind = 'sale'", 5, 3, 10),
        ("DELETE FROM stock_movements WHERE variant_id = :id", 5, 3, 0),
        ("INSERT INTO stock_movements (variant_id, kind, qty) VALUES (:id, 'receive', 4)", 5, 3, 12),
        ("UPDATE stock_reservation_lines SET qty = qty + 4 WHERE variant_id = :id", 5, 7, 8),
        ("UPDATE stock_reservation_lines SET released_qty = 1 WHERE variant_id = :id", 5, 2, 8),
        ("DELETE FROM stock_reservation_lines WHERE variant_id = :id", 5, 0, 8),
        (
            """UPDATE stock_reservations SET state = 'released', resolved_at = now()
                WHERE state = 'held' AND id IN (SELECT reservation_id FROM stock_reservation_lines
                                                 WHERE variant_id = :id)""",
            5,
            0,
            8,
        ),
    ],
)
def test_a_variant_whose_units_do_not_add_up_is_reported_with_its_numbers(
    corruption: str, stock_qty: int, held_qty: int, moved_qty: int
) -> None:
    _, wrong, _ = make_variants(3, stock=10)
    confirmed(reserved("order-1", {wrong: 2}).id)
    reserved("order-2", {wrong: 3})
    change(corruption, id=wrong)

    seen = inventory.reconcile()

    assert seen.checked == 3
    assert seen.broken == [BrokenVariant(wrong, sku_of(wrong), stock_qty, held_qty, moved_qty)]


def test_every_broken_variant_is_reported_in_the_order_of_its_id() -> None:
    variants = make_variants(4, stock=5)
    change("UPDATE variants SET stock_qty = 6 WHERE id <> :id", id=variants[1])

    assert [found.variant_id for found in broken()] == [variants[0], variants[2], variants[3]]


def test_nothing_is_repaired_or_written() -> None:
    variant_id = make_variant(stock=5)
    change("UPDATE variants SET stock_qty = 6 WHERE id = :id", id=variant_id)
    before = everything()

    first, second = inventory.reconcile(), inventory.reconcile()

    assert first == second
    assert everything() == before


# ---- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 2, 3, 5, 6, 7, 100_000])
def test_pages_of_any_size_see_every_variant_once(page: int) -> None:
    variants = [make_variants(2, stock=5), make_variants(4, stock=5)]
    reserved("order-1", dict.fromkeys(variants[1], 2))
    change("DELETE FROM stock_movements")

    seen = inventory.reconcile(page=page)

    assert seen.checked == 6
    assert [found.variant_id for found in seen.broken] == variants[0] + variants[1]
    assert [found.held_qty for found in seen.broken] == [0, 0, 2, 2, 2, 2]
    assert seen.next_after is None


def test_without_time_it_stops_after_a_page_and_says_where_to_go_on() -> None:
    variants = make_variants(5, stock=5)
    change("DELETE FROM stock_movements")

    seen = inventory.reconcile(budget=timedelta(0), page=2)

    assert (seen.checked, seen.next_after) == (2, variants[1])
    assert [found.variant_id for found in seen.broken] == variants[:2]


@pytest.mark.parametrize("page", [1, 2, 3])
def test_runs_that_go_on_where_the_last_stopped_see_every_variant_once(page: int) -> None:
    variants = make_variants(5, stock=5)
    change("DELETE FROM stock_movements")
    found, after = [], 0

    for _ in range(6):
        seen = inventory.reconcile(budget=timedelta(0), page=page, after=after)
        found += [wrong.variant_id for wrong in seen.broken]
        if seen.next_after is None:
            break
        after = seen.next_after

    assert seen.next_after is None
    assert found == variants


@pytest.mark.parametrize("budget", [None, timedelta(hours=1), timedelta.max])
def test_with_time_enough_it_sees_everything(budget: timedelta | None) -> None:
    make_variants(5, stock=5)

    seen = inventory.reconcile(budget=budget, page=2)

    assert (seen.checked, seen.next_after) == (5, None)


def test_a_run_behind_the_last_variant_sees_none() -> None:
    make_variants(2, stock=5)

    seen = inventory.reconcile(after=2**63 - 1)

    assert (seen.checked, seen.next_after) == (0, None)


# ---- while the shop is open ------------------------------------------------------------------------------------------


def test_each_page_is_one_statement_and_so_one_moment() -> None:
    make_variants(5, stock=5)

    with recorded() as sent:
        inventory.reconcile(page=2)

    assert len(sent) == 3
    assert all("WITH page" in statement for statement in sent)


def test_what_is_sold_between_two_pages_is_not_called_broken() -> None:
    variants = make_variants(5, stock=5)
    orders = count()

    with meanwhile("WITH page", lambda: reserved(f"order-{next(orders)}", dict.fromkeys(variants, 1))):
        seen = inventory.reconcile(page=2)

    assert next(orders) == 3
    assert (seen.checked, seen.broken) == (5, [])


def test_a_variant_that_is_being_sold_is_not_called_broken() -> None:
    variants = make_variants(3, stock=50)
    closing_time = Event()

    def sell() -> int:
        orders = 0
        while not closing_time.is_set():
            orders += 1
            hold = reserved(f"order-{orders}", dict.fromkeys(variants, 1))
            if orders % 40 == 0:
                confirmed(hold.id, f"payment-{orders}")
            else:
                released(hold.id)
        return orders

    with ThreadPoolExecutor(1) as shop:
        selling = shop.submit(sell)
        found = [wrong for _ in range(100) for wrong in inventory.reconcile(page=2).broken]
        closing_time.set()
        orders = selling.result()

    assert orders > 0
    assert found == []
