"""A step that fails takes the others with it, and nothing that is said about it shows the payment."""

from __future__ import annotations

import logging
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from db import reservations, statements
from db.errors import HarborError, OrderContended, PaymentRefInUse, PaymentToRefund, WrongIsolation
from db.reservations import Hold, RefundRequired, late, sale
from db.reservations.state import read
from db.session import transaction
from tests.db.holds import (
    PAYMENT,
    broken,
    confirmed,
    hold_in,
    paid,
    received,
    refunds,
    released,
    reserved,
    sold_out,
)
from tests.db.sql import change, meanwhile, rows
from tests.factories import make_variant, stock_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

pytestmark = pytest.mark.usefixtures("database")

SELLS = "SET state = 'confirmed'"
SECRET = "pi_3MtwBwLkdIwHu7ix"


# ---- a step that fails -----------------------------------------------------------------------------------------------


def _at_the_second(act: Callable[[], object]) -> Callable[[], object]:
    """What does something when it is called for the second time."""
    calls: list[None] = []

    def called() -> None:
        calls.append(None)
        if len(calls) == 2:
            act()

    return called


def test_a_hold_that_ends_before_it_can_be_sold_leaves_nothing_behind() -> None:
    variant_id = make_variant(stock=2)
    old = hold_in("expired", "order-1", {variant_id: 2})
    new = reserved("order-1", {variant_id: 2})

    # The first attempt is on the hold that was paid for, the second on the one that the order has now.
    with meanwhile(SELLS, _at_the_second(lambda: released(new.id))), transaction() as session:
        with pytest.raises(OrderContended) as refused:
            reservations.confirm_or_reacquire(session, old, PAYMENT)
        session.execute(text("SELECT 1"))

    assert refused.value.ids == {"order_id": "order-1"}
    assert rows("SELECT state FROM stock_reservations ORDER BY id") == [("expired",), ("released",)]
    assert (stock_of(variant_id), refunds()) == (2, [])
    assert broken() == []
    assert isinstance(paid(old), Hold)


def _without_the_savepoint(session: Session, old: int, payment_ref: str) -> Hold | RefundRequired:
    assert sale.sell(session, sale.EVEN_LATE, old, payment_ref) is None
    return late._reacquire(session, read(session, old), payment_ref)


@pytest.mark.parametrize(
    ("take_again", "states", "stock"),
    [
        (reservations.confirm_or_reacquire, ["expired", "confirmed"], 4),
        (_without_the_savepoint, ["expired", "confirmed", "held"], 2),
    ],
)
def test_a_payment_that_another_order_takes_meanwhile_leaves_no_new_hold_behind(
    take_again: Callable[[Session, int, str], object], states: list[str], stock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only one who does not take the lock can use the payment meanwhile.
    monkeypatch.setattr(sale, "_ONE_AT_A_TIME", text("SELECT 'read committed' AS level"))
    variant_id = make_variant(stock=5)
    old = hold_in("expired", "order-1", {variant_id: 2})
    others = reserved("order-2", {variant_id: 1})

    # The first attempt is on the hold that was paid for, the second on the one that has been taken again.
    with meanwhile(SELLS, _at_the_second(lambda: confirmed(others.id))), transaction() as session:
        with pytest.raises(PaymentRefInUse):
            take_again(session, old, PAYMENT)
        session.execute(text("SELECT 1"))

    assert [state for (state,) in rows("SELECT state FROM stock_reservations ORDER BY id")] == states
    assert (stock_of(variant_id), refunds()) == (stock, [])
    assert broken() == []


# ---- a secret --------------------------------------------------------------------------------------------------------


@pytest.fixture
def every_statement(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Lets each statement be told as a slow one, and every line of every log be seen."""
    monkeypatch.setattr(statements, "settings", lambda: SimpleNamespace(slow_query_ms=-1))
    caplog.set_level(logging.DEBUG)


def _said(error: HarborError) -> str:
    return "".join([str(error), repr(error), str(error.ids), *traceback.format_exception(error)])


def test_no_answer_error_or_log_line_shows_the_payment(every_statement: None, caplog: pytest.LogCaptureFixture) -> None:
    old, variant_id = sold_out()
    refund = paid(old, SECRET)
    living = [reserved(order_id, {make_variant(stock=1): 1}).id for order_id in ("order-3", "order-4")]
    said = [repr(refund), str(refund)]
    for answer in (paid, confirmed):
        with pytest.raises((PaymentRefInUse, PaymentToRefund)) as to_refund:
            answer(living[0], SECRET)
        said.append(_said(to_refund.value))
    change("DELETE FROM required_refunds")
    confirmed(living[0], SECRET)
    received(variant_id, 2)
    for answer, reservation_id in ((paid, old), (paid, living[1]), (confirmed, living[1])):
        with pytest.raises(PaymentRefInUse) as in_use:
            answer(reservation_id, SECRET)
        said.append(_said(in_use.value))

    assert isinstance(refund, RefundRequired)
    assert refund.payment_ref == SECRET
    assert "INSERT INTO required_refunds" in caplog.text
    assert "SET state = 'confirmed'" in caplog.text
    assert SECRET not in "".join([*said, caplog.text])


# ---- a transaction that cannot see what was decided ------------------------------------------------------------------


@pytest.mark.parametrize("pay", [reservations.confirm, reservations.confirm_or_reacquire])
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_payment_is_not_decided_in_a_transaction_that_sees_the_past(
    level: str, pay: Callable[[Session, int, str], object]
) -> None:
    hold = reserved("order-1", {make_variant(stock=1): 1})

    with transaction() as session:
        session.connection(execution_options={"isolation_level": level})
        with pytest.raises(WrongIsolation, match=level.lower()):
            pay(session, hold.id, "payment-1")


def test_without_asking_for_it_a_transaction_that_sees_the_past_sells_what_has_to_be_refunded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sale, "_ONE_AT_A_TIME", text("SELECT 'read committed' AS level"))
    gone = sold_out()[0]
    others = reserved("order-3", {make_variant(stock=1): 1})

    with transaction() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        session.execute(text("SELECT FROM products"))
        paid(gone)
        sold = reservations.confirm(session, others.id, PAYMENT)

    assert sold.state == "confirmed"
    assert len(refunds()) == 1
