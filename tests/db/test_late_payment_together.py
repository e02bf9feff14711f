"""Two who decide about the same payment at once give one answer: a sale or a refund, and never both."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from db import reservations
from db.errors import PaymentToRefund
from db.reservations import Hold, RefundReason, RefundRequired, sale
from db.session import transaction
from tests.db.holds import (
    PAYMENT,
    broken,
    confirmed,
    hold_in,
    paid,
    received,
    refunds,
    reserved,
    sales_of,
    sold_out,
    state_of,
    swept,
)
from tests.db.sql import eventually, make_due, rows, somebody_waits_for_a_lock
from tests.factories import make_variant, stock_of

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets several decide about one payment at once."""
    monkeypatch.setattr(sale, "_ONE_AT_A_TIME", text("SELECT 'read committed' AS level"))


# ---- two deliveries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["held", "due", "released", "expired"])
def test_two_deliveries_of_a_payment_at_once_make_one_sale(state: str) -> None:
    variant_id = make_variant(stock=4)
    old = hold_in(state, "order-1", {variant_id: 2})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            answer = reservations.confirm_or_reacquire(session, old, PAYMENT)
            second = other.submit(paid, old)
            eventually(somebody_waits_for_a_lock)

        assert second.result() == answer
    assert isinstance(answer, Hold)
    assert sales_of(answer.id) == [(variant_id, -2)]
    assert (stock_of(variant_id), refunds()) == (2, [])
    assert broken() == []


def test_two_deliveries_of_a_payment_at_once_make_one_refund_though_units_arrive_between_them() -> None:
    old, variant_id = sold_out()

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            answer = reservations.confirm_or_reacquire(session, old, PAYMENT)
            received(variant_id, 2)
            second = other.submit(paid, old)
            eventually(somebody_waits_for_a_lock)

        assert second.result() == answer
    assert isinstance(answer, RefundRequired)
    assert (stock_of(variant_id), len(refunds())) == (2, 1)


def test_without_the_lock_two_deliveries_make_a_refund_and_a_sale(no_lock: None) -> None:
    old, variant_id = sold_out()

    with transaction() as session:
        answer = reservations.confirm_or_reacquire(session, old, PAYMENT)
        received(variant_id, 2)
        second = paid(old)

    assert isinstance(answer, RefundRequired)
    assert isinstance(second, Hold)
    assert len(refunds()) == 1


def test_a_delivery_that_waited_for_one_that_failed_makes_the_sale_itself() -> None:
    variant_id = make_variant(stock=2)
    old = hold_in("expired", "order-1", {variant_id: 2})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.confirm_or_reacquire(session, old, PAYMENT)
            second = other.submit(paid, old)
            eventually(somebody_waits_for_a_lock)
            session.rollback()

        assert isinstance(second.result(), Hold)
    assert (stock_of(variant_id), refunds()) == (0, [])
    assert broken() == []


def test_payments_of_different_orders_do_not_wait_for_each_other() -> None:
    first, second = (hold_in("expired", order_id, {make_variant(stock=1): 1}) for order_id in ("order-1", "order-2"))

    with transaction() as session:
        reservations.confirm_or_reacquire(session, first, PAYMENT)

        assert isinstance(paid(second, "payment-2"), Hold)


@pytest.mark.parametrize("state", ["held", "due", "released", "expired"])
def test_of_two_payments_of_one_hold_at_once_one_is_a_sale_and_the_other_a_refund(state: str) -> None:
    variant_id = make_variant(stock=4)
    old = hold_in(state, "order-1", {variant_id: 2})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            sold = reservations.confirm_or_reacquire(session, old, PAYMENT)
            second = other.submit(paid, old, "payment-2")
            eventually(somebody_waits_for_a_lock)

        assert second.result() == RefundRequired(old, "order-1", RefundReason.PAID_TWICE, [], "payment-2")
    assert isinstance(sold, Hold)
    assert stock_of(variant_id) == 2
    assert broken() == []


# ---- beside confirm, release and the sweep ---------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["the same hold", "its successor", "its successor for other lines"])
def test_a_payment_that_confirm_is_selling_at_this_moment_is_no_refund(of: str) -> None:
    variant_id = make_variant(stock=5)
    old = hold_in("held" if of == "the same hold" else "expired", "order-1", {variant_id: 2})
    new = reserved("order-1", {variant_id: 1 if of.endswith("other lines") else 2})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            sold = reservations.confirm(session, new.id, PAYMENT)
            webhook = other.submit(paid, old)
            eventually(somebody_waits_for_a_lock)

        assert webhook.result() == sold
    assert refunds() == []
    assert broken() == []


def _refunded_at_this_moment() -> tuple[int, int]:
    """Commit a hold whose payment is a refund because its order has another by now; return both."""
    variant_id = make_variant(stock=5)
    old = hold_in("expired", "order-1", {variant_id: 2})
    return old, reserved("order-1", {variant_id: 1}).id


def test_a_payment_that_is_becoming_a_refund_at_this_moment_confirms_nothing() -> None:
    old, new = _refunded_at_this_moment()

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.confirm_or_reacquire(session, old, PAYMENT)
            second = other.submit(confirmed, new)
            eventually(somebody_waits_for_a_lock)
        refused = second.exception()

    assert isinstance(refused, PaymentToRefund)
    assert (state_of(new), len(refunds())) == ("held", 1)


def test_without_the_lock_a_payment_that_is_becoming_a_refund_confirms_a_hold(no_lock: None) -> None:
    old, new = _refunded_at_this_moment()

    with transaction() as session:
        reservations.confirm_or_reacquire(session, old, PAYMENT)
        confirmed(new)

    assert (state_of(new), len(refunds())) == ("confirmed", 1)


def test_confirm_with_a_payment_that_is_being_sold_late_waits_and_gets_the_same_hold() -> None:
    hold = reserved("order-1", {make_variant(stock=5): 2})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            sold = reservations.confirm_or_reacquire(session, hold.id, PAYMENT)
            same = other.submit(confirmed, hold.id)
            eventually(somebody_waits_for_a_lock)

        assert same.result() == sold
    assert refunds() == []


@pytest.mark.parametrize("end", ["released", "expired"])
def test_a_payment_that_waits_for_the_end_of_its_hold_takes_the_units_again(end: str) -> None:
    variant_id = make_variant(stock=2)
    hold = reserved("order-1", {variant_id: 2})
    if end == "expired":
        make_due(hold.id)

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            if end == "expired":
                reservations.expire_due(session)
            else:
                reservations.release(session, hold.id)
            webhook = other.submit(paid, hold.id)
            eventually(somebody_waits_for_a_lock)
        answer = webhook.result()

    assert isinstance(answer, Hold)
    assert rows("SELECT state, revived_from FROM stock_reservations ORDER BY id") == [
        (end, None),
        ("confirmed", hold.id),
    ]
    assert stock_of(variant_id) == 0
    assert broken() == []


def test_a_sweep_passes_over_a_hold_that_is_being_sold_late() -> None:
    variant_id = make_variant(stock=2)
    old = hold_in("due", "order-1", {variant_id: 2})

    with transaction() as session:
        reservations.confirm_or_reacquire(session, old, PAYMENT)
        during = swept()

    assert (during, swept(), state_of(old)) == (0, 0, "confirmed")
    assert broken() == []
