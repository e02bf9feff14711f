"""A payment that cannot be a sale any more is a refund, for ever, whatever comes back on sale afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from db import inventory, reservations
from db.errors import PaymentToRefund
from db.reservations import Hold, RefundReason, RefundRequired
from db.session import transaction
from tests.db.holds import (
    PAYMENT,
    broken,
    confirmed,
    hold_in,
    kept,
    many_due,
    paid,
    paid_again,
    refunds,
    released,
    reserved,
    state_of,
)
from tests.db.sql import change, everything, touched_nothing, value
from tests.factories import make_variant, make_variants

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("database")


def _archive(variant_id: int) -> None:
    with transaction() as session:
        inventory.archive(session, value("SELECT product_id FROM variants WHERE id = :id", id=variant_id))


def _sold_out(first: int, _second: int) -> tuple[int, list[int]]:
    old = hold_in("expired", "order-1", {first: 2})
    reserved("order-2", {first: 4})
    return old, [first]


def _one_of_two_sold_out(first: int, second: int) -> tuple[int, list[int]]:
    old = hold_in("expired", "order-1", {first: 2, second: 2})
    many_due(1, {first: 1})
    reserved("order-2", {second: 4})
    return old, [second]


def _archived(first: int, second: int) -> tuple[int, list[int]]:
    old = hold_in("expired", "order-1", {first: 2})
    _archive(first)
    return old, [first]


def _paid_with_another(first: int, _second: int) -> tuple[int, list[int]]:
    hold = reserved("order-1", {first: 2})
    confirmed(hold.id, "payment-other")
    return hold.id, []


def _made_and_paid_anew(first: int, _second: int) -> tuple[int, list[int]]:
    old = hold_in("expired", "order-1", {first: 2})
    confirmed(reserved("order-1", {first: 2}).id, "payment-other")
    return old, []


def _changed_and_paid_anew(first: int, second: int) -> tuple[int, list[int]]:
    old = hold_in("expired", "order-1", {first: 2})
    confirmed(reserved("order-1", {second: 1}).id, "payment-other")
    return old, []


def _changed(first: int, _second: int) -> tuple[int, list[int]]:
    old = hold_in("expired", "order-1", {first: 2})
    reserved("order-1", {first: 1})
    return old, []


def _made_smaller_anew(first: int, _second: int) -> tuple[int, list[int]]:
    old = hold_in("expired", "order-1", {first: 2})
    kept(reserved("order-1", {first: 2}).id, {first: 1})
    return old, []


def _released_and_sold_out(first: int, _second: int) -> tuple[int, list[int]]:
    old = hold_in("released", "order-1", {first: 5})
    reserved("order-2", {first: 1})
    return old, [first]


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (_sold_out, RefundReason.SOLD_OUT),
        (_one_of_two_sold_out, RefundReason.SOLD_OUT),
        (_released_and_sold_out, RefundReason.SOLD_OUT),
        (_archived, RefundReason.NOT_FOR_SALE),
        (_paid_with_another, RefundReason.PAID_TWICE),
        (_made_and_paid_anew, RefundReason.PAID_TWICE),
        (_changed_and_paid_anew, RefundReason.PAID_TWICE),
        (_changed, RefundReason.ORDER_CHANGED),
        (_made_smaller_anew, RefundReason.ORDER_CHANGED),
    ],
)
def test_a_payment_that_cannot_be_a_sale_is_a_refund_for_ever(
    arrange: Callable[[int, int], tuple[int, list[int]]], reason: RefundReason
) -> None:
    variant_ids = make_variants(2, stock=5)
    old, missing = arrange(*variant_ids)
    before = everything() | {"required_refunds": []}

    answer = paid(old)

    assert answer == RefundRequired(old, "order-1", reason, missing, PAYMENT)
    assert refunds() == [(PAYMENT, old, "order-1", reason.value, missing)]
    assert value("SELECT created_at BETWEEN now() - interval '1 minute' AND now() FROM required_refunds")
    assert everything() | {"required_refunds": []} == before
    assert broken() == []
    assert paid_again(old, answer)


def _come_back() -> tuple[int, Hold | RefundRequired]:
    """Require a refund because a variant is sold out, and then let units of it come back."""
    variant_id = make_variant(stock=2)
    old = hold_in("expired", "order-1", {variant_id: 2})
    others = reserved("order-2", {variant_id: 2})
    answer = paid(old)
    released(others.id)
    return old, answer


def test_a_refund_stays_one_when_units_come_back() -> None:
    old, answer = _come_back()

    assert isinstance(answer, RefundRequired)
    assert paid_again(old, answer)


def test_a_refund_stays_one_when_the_row_of_its_hold_is_gone() -> None:
    old, answer = _come_back()
    change("DELETE FROM stock_reservations WHERE id = :id", id=old)

    assert isinstance(answer, RefundRequired)
    assert paid_again(old, answer)


def test_without_its_row_a_refund_becomes_a_sale_as_well_when_units_come_back() -> None:
    old, answer = _come_back()
    change("DELETE FROM required_refunds")

    again = paid(old)

    assert isinstance(answer, RefundRequired)
    assert isinstance(again, Hold)


def test_a_payment_to_refund_buys_the_order_nothing_else() -> None:
    variant_id = make_variant(stock=5)
    old = hold_in("expired", "order-1", {variant_id: 2})
    new = reserved("order-1", {variant_id: 1})
    answer = paid(old)

    assert paid(new.id) == answer
    assert state_of(new.id) == "held"
    assert paid(new.id, "payment-2") == confirmed(new.id, "payment-2")


@pytest.mark.parametrize("state", ["held", "due", "released", "expired"])
def test_a_payment_to_refund_confirms_no_hold(state: str) -> None:
    old, _ = _come_back()
    others = hold_in(state, "order-3", {make_variant(stock=2): 2})

    for reservation_id in (old, others):
        before = everything()
        with transaction() as session:
            with pytest.raises(PaymentToRefund) as refused:
                reservations.confirm(session, reservation_id, PAYMENT)
            untouched = touched_nothing(session)

        assert refused.value.ids == {"reservation_id": reservation_id}
        assert untouched
        assert everything() == before
