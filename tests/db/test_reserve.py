"""Reserving: all or nothing, once per order, never more than there is."""

from __future__ import annotations

import pytest

from db import reservations
from db.errors import InsufficientStock
from db.session import transaction
from tests.factories import make_variant, make_variants, stock_of

pytestmark = pytest.mark.usefixtures("environ")


def test_reserve_takes_the_units() -> None:
    variant_id = make_variant(stock=5)

    with transaction() as session:
        hold = reservations.reserve(session, "order-1", {variant_id: 2})

    assert hold.state == "held"
    assert stock_of(variant_id) == 3


def test_an_order_with_one_short_line_takes_nothing() -> None:
    first, second = make_variants(2, stock=5)

    with pytest.raises(InsufficientStock) as refused, transaction() as session:
        reservations.reserve(session, "order-1", {first: 5, second: 6})

    assert refused.value.ids["variant_ids"] == [second]
    assert (stock_of(first), stock_of(second)) == (5, 5)
