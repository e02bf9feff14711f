from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.db.holds import hold_in, lines_of, reserved, state_of
from tests.db.sql import change, everything, rows, value
from tests.factories import make_variant, make_variants, stock_of

if TYPE_CHECKING:
    from tests.cli.conftest import Harbor

pytestmark = pytest.mark.usefixtures("database")


# ---- extend ----------------------------------------------------------------------------------------------------------


def test_a_hold_is_extended_from_now(harbor: Harbor) -> None:
    hold = reserved("order-1", {make_variant(stock=1): 1})

    answer = harbor("reservations", "extend", hold.id, "--minutes", 30)
    again = harbor("reservations", "extend", hold.id, "--json").json()

    said = re.fullmatch(
        rf"Reservation {hold.id} of order order-1 is held until (\S+ \S+)Z, at the most until (\S+ \S+)Z\.\n",
        answer.out,
    )
    assert said is not None
    assert again["expires_at"].replace("T", " ").startswith(said[1])
    assert again["max_expires_at"].replace("T", " ").startswith(said[2])
    assert datetime.fromisoformat(again["expires_at"]) > hold.expires_at
    assert again["extend_count"] == 1


def test_a_hold_that_cannot_last_longer_says_so(harbor: Harbor) -> None:
    hold = reserved("order-1", {make_variant(stock=1): 1})

    answer = harbor("reservations", "extend", hold.id, "--minutes", 43_200)

    assert answer.out.endswith("Z, and cannot last longer.\n")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("due", "has expired"),
        ("expired", "has expired"),
        ("released", "has been released"),
        ("confirmed", "has been confirmed"),
        ("missing", "does not exist"),
    ],
)
def test_what_is_over_is_not_extended(harbor: Harbor, state: str, says: str) -> None:
    reservation_id = hold_in(state, "order-1", {make_variant(stock=1): 1})
    before = everything()

    answer = harbor("reservations", "extend", reservation_id)

    assert answer.code == 1
    assert f"harbor: Reservation {reservation_id} {says}" in answer.err
    assert everything() == before


@pytest.mark.parametrize("minutes", ["0", "-5", "43201", "9" * 30, "1.5", "long"])
def test_an_extension_of_nonsense_is_an_error_of_usage(harbor: Harbor, minutes: str) -> None:
    hold = reserved("order-1", {make_variant(stock=1): 1})
    before = everything()

    answer = harbor("reservations", "extend", hold.id, "--minutes", minutes)

    assert answer.code == 2
    assert "'--minutes': must be" in answer.err
    assert everything() == before


# ---- release ---------------------------------------------------------------------------------------------------------


def test_units_of_released_holds_are_back_on_sale(harbor: Harbor) -> None:
    variant_id = make_variant(stock=5)
    first, second = (reserved(order_id, {variant_id: 2}).id for order_id in ("order-1", "order-2"))

    answer = harbor("reservations", "release", first, second, "--json")

    assert answer.code == 0
    assert [(hold["id"], hold["state"]) for hold in answer.json()] == [(first, "released"), (second, "released")]
    assert stock_of(variant_id) == 5


def test_a_hold_that_cannot_be_released_does_not_keep_the_others(harbor: Harbor) -> None:
    variant_id = make_variant(stock=5)
    sold = hold_in("confirmed", "order-1", {variant_id: 2})
    held = reserved("order-2", {variant_id: 2}).id

    answer = harbor("reservations", "release", 999_999, sold, held)

    assert answer.code == 1
    assert answer.err.splitlines() == [
        "harbor: Reservation 999999 does not exist.",
        f"harbor: Reservation {sold} has been confirmed; its units are sold. A return is `inventory.take_back`.",
    ]
    assert answer.out == f"Reservation {held} of order order-2 is released.\n"
    assert state_of(held) == "released"


@pytest.mark.parametrize("by_sku", [False, True])
def test_a_part_of_a_hold_can_be_kept(harbor: Harbor, by_sku: bool) -> None:
    first, second, third = make_variants(3, stock=10)
    hold = reserved("order-1", {first: 5, second: 3, third: 1})
    skus = dict(rows("SELECT id, sku FROM variants"))
    keep = [f"--keep={skus[one] if by_sku else one}={units}" for one, units in ((first, 2), (second, 3))]

    answer = harbor("reservations", "release", hold.id, *keep)
    again = harbor("reservations", "release", hold.id, *keep, "--json")

    assert answer.out == f"Reservation {hold.id} of order order-1 keeps 5 units.\n"
    assert [(one["id"], one["state"]) for one in again.json()] == [(hold.id, "held")]
    assert lines_of(hold.id) == {first: 2, second: 3}
    assert [stock_of(one) for one in (first, second, third)] == [8, 7, 10]


def test_a_sku_that_is_a_number_or_has_an_equals_sign_can_be_kept(harbor: Harbor) -> None:
    first, second = make_variants(2, stock=10)
    hold = reserved("order-1", {first: 5, second: 5})
    change("UPDATE variants SET sku = '77' WHERE id = :id", id=first)
    change("UPDATE variants SET sku = 'a=b' WHERE id = :id", id=second)

    answer = harbor("reservations", "release", hold.id, "--sku", "--keep", "77=1", "--keep", "a=b=2")

    assert answer.code == 0
    assert lines_of(hold.id) == {first: 1, second: 2}


@pytest.mark.parametrize(
    ("keep", "code", "says"),
    [
        ("{id}=6", 1, "cannot keep that much: it has fewer units of variant {id}."),
        ("{id}=0", 1, "qty of variant {id} must be an integer from 1 to 2147483647, and was 0."),
        ("{id}=-1", 1, "qty of variant {id} must be an integer from 1 to 2147483647, and was -1."),
        ("HBR-NONE=1", 1, "Variant HBR-NONE does not exist."),
        ("999999=1", 1, "it has fewer units of variant 999999."),
        ("{id}=1 --keep {sku}=1", 1, "Variant {id} is named twice by --keep."),
        ("{id}", 2, "'--keep': must be like HBR-MUG-01-BLUE=2, and was '{id}'."),
        ("=1", 2, "and was '=1'."),
        ("{id}=", 2, "and was '{id}='."),
        ("{id}=some", 2, "and was '{id}=some'."),
        ("{id}=1 43", 2, "'--keep': is for one hold, and was given 2."),
    ],
)
def test_what_cannot_be_kept_changes_nothing(harbor: Harbor, keep: str, code: int, says: str) -> None:
    variant_id = make_variant(stock=10)
    told = {"id": variant_id, "sku": value("SELECT sku FROM variants")}
    hold = reserved("order-1", {variant_id: 5})
    before = everything()

    answer = harbor("reservations", "release", hold.id, "--keep", *keep.format(**told).split())

    assert answer.code == code
    assert says.format(**told) in answer.err
    assert answer.out == ""
    assert everything() == before
