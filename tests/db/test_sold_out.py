"""A sale that is over costs its buyers, and those who still sell, almost nothing: no lock, no write."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from db import reservations
from db.errors import InsufficientStock
from db.session import transaction
from tests.db.holds import reserved
from tests.db.sql import eventually, locked, recorded, somebody_waits_for_a_lock, touched_nothing
from tests.factories import make_variant, make_variants

pytestmark = pytest.mark.usefixtures("database")


def test_a_sold_out_order_is_refused_without_waiting_for_the_variant() -> None:
    variant_id = make_variant(stock=2)
    reserved("order-1", {variant_id: 2})

    with locked("SELECT FROM variants WHERE id = :id FOR UPDATE", id=variant_id), transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '1ms'"))
        with pytest.raises(InsufficientStock) as refused:
            reservations.reserve(session, "order-2", {variant_id: 1})

    assert refused.value.ids == {"order_id": "order-2", "variant_ids": [variant_id]}


def test_an_order_that_can_be_held_does_wait_for_the_variant() -> None:
    variant_id = make_variant(stock=2)

    with ThreadPoolExecutor(1) as other:
        with locked("SELECT FROM variants WHERE id = :id FOR UPDATE", id=variant_id):
            buyer = other.submit(reserved, "order-1", {variant_id: 1})
            eventually(somebody_waits_for_a_lock)

        assert buyer.result().state == "held"


@pytest.mark.parametrize("lines", [1, 20])
def test_a_sold_out_order_neither_writes_nor_locks(lines: int) -> None:
    variant_ids = make_variants(lines, stock=2)
    reserved("order-1", {variant_ids[-1]: 2})

    with transaction() as session, recorded() as sent:
        with pytest.raises(InsufficientStock):
            reservations.reserve(session, "order-2", dict.fromkeys(variant_ids, 1))
        asked = len(sent)
        untouched = touched_nothing(session)

    assert untouched
    assert asked <= 2


def test_an_order_that_is_held_does_write() -> None:
    variant_id = make_variant(stock=2)

    with transaction() as session:
        reservations.reserve(session, "order-1", {variant_id: 1})
        untouched = touched_nothing(session)

    assert not untouched
