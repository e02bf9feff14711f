"""What is left of a hold after a part of it was given back is sold, given back and asked for as what it is."""

from __future__ import annotations

import pytest

from db.errors import (
    OrderAlreadyReserved,
)
from tests.db.holds import (
    broken,
    confirmed,
    kept,
    released,
    reserved,
    sales_of,
    state_of,
    swept,
)
from tests.db.sql import everything, make_due
from tests.factories import make_variants, stock_of

pytestmark = pytest.mark.usefixtures("database")


def test_confirming_sells_only_what_was_kept() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 3, second: 2})
    kept(hold.id, {first: 2})

    confirmed(hold.id)

    assert sales_of(hold.id) == [(first, -2)]
    assert (stock_of(first), stock_of(second)) == (3, 5)
    assert broken() == []


@pytest.mark.parametrize("end", ["released", "expired", "reclaimed"])
def test_whoever_ends_the_hold_gives_back_only_what_was_kept(end: str) -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 5, second: 2})
    kept(hold.id, {first: 4})
    bought = 0
    if end == "released":
        released(hold.id)
    else:
        make_due(hold.id)
        bought = 5 if end == "reclaimed" else 0
    if end == "expired":
        swept()
    if bought:
        reserved("order-2", {first: bought})

    assert state_of(hold.id) == ("released" if end == "released" else "expired")
    assert (stock_of(first), stock_of(second)) == (5 - bought, 5)
    assert broken() == []


def test_the_order_that_asks_for_what_it_kept_gets_the_same_hold() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 3, second: 2})
    kept(hold.id, {second: 2, first: 1})
    before = everything()

    again = reserved("order-1", {second: 2, first: 1})

    assert again == hold
    assert everything() == before


def test_the_order_that_asks_for_its_first_wish_is_not_given_a_hold_that_has_less() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 3, second: 2})
    kept(hold.id, {first: 1, second: 2})
    before = everything()

    with pytest.raises(OrderAlreadyReserved) as refused:
        reserved("order-1", {first: 3, second: 2})

    assert refused.value.ids == {"order_id": "order-1", "reservation_id": hold.id}
    assert everything() == before
