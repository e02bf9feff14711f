"""A task can be called like the function it is: the command line, the tests and a person at a prompt do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from db import reservations
from db.errors import InvalidId, ReservationConfirmed, ReservationNotFound
from db.session import transaction
from tasks.inventory import reconcile
from tasks.reservations import confirm, expire, release
from tests.db.holds import MISSING, broken, many_due, reserved, sales_of, state_of
from tests.db.sql import change
from tests.factories import make_variant, make_variants, stock_of

pytestmark = pytest.mark.usefixtures("database", "app")


def test_release_gives_the_units_back_however_often_it_is_delivered() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    for _ in range(2):
        release(hold.id)

    assert state_of(hold.id) == "released"
    assert stock_of(variant_id) == 5


def test_confirm_sells_the_units_once_however_often_it_is_delivered() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    for _ in range(2):
        confirm(hold.id, "payment-1")

    assert state_of(hold.id) == "confirmed"
    assert sales_of(hold.id) == [(variant_id, -2)]
    assert broken() == []


def test_a_payment_that_came_too_late_is_kept_as_a_refund_and_told_of() -> None:
    variant_id = make_variant(stock=2)
    hold = reserved("order-1", {variant_id: 2})
    release(hold.id)
    reserved("order-2", {variant_id: 2})

    with capture_logs() as lines:
        for _ in range(2):
            confirm(hold.id, "payment-1")

    told = {"reservation_id": hold.id, "order_id": "order-1", "reason": "sold_out"}
    warnings = [line for line in lines if line["event"] != "task.ran"]
    assert warnings == [{"event": "payment.to_refund", "log_level": "warning", **told}] * 2
    with transaction() as session:
        assert [refund.payment_ref for refund in reservations.refunds(session)] == ["payment-1"]


def test_a_refusal_comes_through_as_it_is() -> None:
    hold = reserved("order-1", {make_variant(stock=5): 2})
    confirm(hold.id, "payment-1")

    with pytest.raises(ReservationConfirmed):
        release(hold.id)
    with pytest.raises(ReservationNotFound):
        release(MISSING)
    with pytest.raises(InvalidId):
        release("7")  # type: ignore[arg-type]  # what a message may hold


def test_expire_has_as_many_transactions_as_it_needs_and_logs_one_line() -> None:
    variant_id = make_variant()
    many_due(1_100, {variant_id: 1})

    with capture_logs() as lines:
        expire()

    (line,) = [line for line in lines if line["event"] == "reservations.expired"]
    assert (line["holds"], line["finished"]) == (1_100, True)
    assert line["batches"] > 1
    assert stock_of(variant_id) == 1_100


def test_expire_says_nothing_when_nothing_is_due() -> None:
    with capture_logs() as lines:
        expire()

    assert [line for line in lines if line["event"] == "reservations.expired"] == []


def test_reconcile_reports_a_variant_whose_units_do_not_add_up_and_repairs_nothing() -> None:
    make_variant(stock=5)
    variant_id = make_variant(stock=5)
    change("UPDATE variants SET stock_qty = 4 WHERE id = :id", id=variant_id)

    with capture_logs() as lines:
        reconcile()

    (error,) = [line for line in lines if line["event"] == "inventory.broken"]
    (summary,) = [line for line in lines if line["event"] == "inventory.reconciled"]
    assert (error["variant_id"], error["stock_qty"], error["held_qty"], error["moved_qty"]) == (variant_id, 4, 0, 5)
    assert error["log_level"] == "error"
    assert (summary["checked"], summary["broken"], summary["next_after"]) == (2, 1, None)
    assert stock_of(variant_id) == 4


def test_reconcile_sends_what_its_budget_leaves_over(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = make_variants(1_001, stock=1)
    change("UPDATE variants SET stock_qty = 4 WHERE id = :id", id=ids[-1])
    monkeypatch.setattr("tasks.inventory.RECONCILE_BUDGET", timedelta(0))
    sent: list[tuple[int, ...]] = []
    monkeypatch.setattr(reconcile, "apply_async", sent.append)

    with capture_logs() as first:
        reconcile()
    with capture_logs() as second:
        reconcile(*sent[0])

    assert sent == [(ids[999],)]
    assert not [line for line in first if line["event"] == "inventory.broken"]
    assert [line["variant_id"] for line in second if line["event"] == "inventory.broken"] == [ids[-1]]
