from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.db.sql import change, rows, value
from tests.factories import make_variant, make_variants, stock_of

if TYPE_CHECKING:
    from tests.cli.conftest import Harbor

pytestmark = pytest.mark.usefixtures("database")


def sku_of(variant_id: int) -> str:
    return str(value("SELECT sku FROM variants WHERE id = :id", id=variant_id))


def movements(variant_id: int) -> list[tuple[object, ...]]:
    ledger = "SELECT kind, qty, reason FROM stock_movements WHERE variant_id = :id ORDER BY id"
    return rows(ledger, id=variant_id)


def test_a_delivery_is_on_sale_and_in_the_ledger(harbor: Harbor) -> None:
    variant_id = make_variant()

    answer = harbor("inventory", "receive", variant_id, 50, "--reason", "delivery 815", "--json")

    assert answer.json() == {"variant_id": variant_id, "stock_qty": 50}
    assert movements(variant_id) == [("receive", 50, "delivery 815")]


def test_a_variant_can_be_named_by_its_sku(harbor: Harbor) -> None:
    variant_id = make_variant(stock=1)

    answer = harbor("inventory", "receive", sku_of(variant_id), 2)

    assert answer.out == f"Variant {variant_id} has 3 units free to sell.\n"


def test_a_sku_that_is_a_number_is_said_to_be_one(harbor: Harbor) -> None:
    first, second = make_variants(2)
    change("UPDATE variants SET sku = :sku WHERE id = :id", sku=str(first), id=second)

    harbor("inventory", "receive", first, 1)
    harbor("inventory", "receive", first, 2, "--sku")

    assert [stock_of(first), stock_of(second)] == [1, 2]


@pytest.mark.parametrize(("change", "left"), [(["-3"], 7), (["--", "-3"], 7), (["-10"], 0), (["5"], 15)])
def test_a_correction_goes_up_and_down(harbor: Harbor, change: list[str], left: int) -> None:
    variant_id = make_variant(stock=10)

    answer = harbor("inventory", "adjust", "--reason", "counted", sku_of(variant_id), *change)

    assert answer.code == 0
    assert stock_of(variant_id) == left
    assert movements(variant_id)[1][2] == "counted"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("adjust {sku} -11 --reason counted", "never goes below zero"),
        ("adjust {sku} 0 --reason counted", "qty of variant"),
        ("receive {sku} 0", "qty of variant"),
        ("receive {sku} -5", "qty of variant"),
        ("receive HBR-NONE 1", "Variant HBR-NONE does not exist."),
        ("receive 999999 1", "Variant 999999 does not exist."),
        ("receive 0 1", "variant_id must be an integer from 1"),
    ],
)
def test_what_cannot_be_done_changes_nothing(harbor: Harbor, command: str, says: str) -> None:
    variant_id = make_variant(stock=10)

    answer = harbor("inventory", *command.format(sku=sku_of(variant_id)).split())

    assert answer.code == 1
    assert says in answer.err
    assert stock_of(variant_id) == 10


def test_the_sku_of_a_product_leads_to_those_of_its_variants(harbor: Harbor) -> None:
    first, second = make_variants(2)
    product = value("SELECT sku FROM products WHERE id = (SELECT product_id FROM variants WHERE id = :id)", id=first)

    answer = harbor("inventory", "receive", product, 1)

    assert answer.code == 1
    assert f"{product} is a product." in answer.err
    assert sku_of(first) in answer.err
    assert sku_of(second) in answer.err


def test_a_correction_needs_a_reason(harbor: Harbor) -> None:
    variant_id = make_variant(stock=10)

    answer = harbor("inventory", "adjust", variant_id, "-3")

    assert answer.code == 2
    assert "--reason" in answer.err
    assert stock_of(variant_id) == 10


def test_books_that_add_up_are_exit_code_0(harbor: Harbor) -> None:
    make_variants(3, stock=2)

    answer = harbor("inventory", "reconcile", "--json")

    assert answer.code == 0
    assert answer.json() == {"checked": 3, "broken": [], "next_after": None, "finished": True}
    assert harbor("inventory", "reconcile").out == "3 variants checked, 0 broken.\n"


def test_every_variant_that_is_broken_is_listed(harbor: Harbor) -> None:
    sound, lost, found = make_variants(3, stock=5)
    change("UPDATE variants SET stock_qty = 4 WHERE id = :id", id=lost)
    change("UPDATE variants SET stock_qty = 7 WHERE id = :id", id=found)

    answer = harbor("inventory", "reconcile", "--json")
    table = harbor("inventory", "reconcile")

    assert answer.code == table.code == 1
    assert [(broken["variant_id"], broken["stock_qty"]) for broken in answer.json()["broken"]] == [
        (lost, 4),
        (found, 7),
    ]
    assert sku_of(lost) in table.out
    assert sku_of(sound) not in table.out


def test_a_spent_budget_says_where_to_go_on(harbor: Harbor) -> None:
    variant_ids = make_variants(1_001)

    stopped = harbor("inventory", "reconcile", "--budget-seconds", "0")
    hint = stopped.out.splitlines()[-1]
    rest = harbor("inventory", "reconcile", *hint.split()[-2:], "--json").json()

    assert hint.endswith(f"--after {variant_ids[999]}")
    assert rest == {"checked": 1, "broken": [], "next_after": None, "finished": True}
