"""Each guard of a hold made longer or smaller, sold late or made in a batch, taken away: its promise is broken."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from db import reservations
from db.errors import InsufficientStock, KeepsTooMuch, PaymentToRefund
from db.reservations import HoldRequest, deadline, resolve, units
from db.session import transaction
from tests.db.holds import broken, confirmed, extended, hold_in, kept, lines_of, paid, reserved, reserved_many, sold_out
from tests.db.sql import eventually, meanwhile, somebody_waits_for_a_lock, value
from tests.db.test_guards import SELECTION_GUARD, UNITS_GUARD, drop_from, drop_the_check
from tests.factories import make_variant, stock_of

pytestmark = pytest.mark.usefixtures("environ")

LONGER_GUARD = "AND expires_at < least(statement_timestamp() + :hold, max_expires_at)"
CAP = "least(statement_timestamp() + :hold, max_expires_at)"
REFUND_GUARD = "AND NOT EXISTS (SELECT FROM required_refunds WHERE payment_ref = :payment_ref)"


# ---- longer ----------------------------------------------------------------------------------------------------------


def test_without_the_guard_a_hold_whose_time_is_over_lives_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drop_from(monkeypatch, "db.reservations.deadline", "_EXTEND", SELECTION_GUARD)
    reservation_id = hold_in("due", "order-1", {make_variant(stock=5): 2})

    extended(reservation_id)

    assert value("SELECT expires_at > statement_timestamp() FROM stock_reservations")


def test_without_the_guard_a_hold_can_become_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    drop_from(monkeypatch, "db.reservations.deadline", "_EXTEND", LONGER_GUARD)
    hold = reserved("order-1", {make_variant(stock=5): 2})

    assert extended(hold.id, timedelta(minutes=1)).expires_at < hold.expires_at


def test_without_the_cap_the_check_stops_a_hold_that_would_last_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "_EXTEND", text(deadline._EXTEND.text.replace(CAP, "statement_timestamp() + :hold")))
    hold = reserved("order-1", {make_variant(stock=5): 2})

    with pytest.raises(IntegrityError, match="ck_stock_reservations_expires_within_max"):
        extended(hold.id, timedelta(hours=3))


# ---- smaller ---------------------------------------------------------------------------------------------------------


def two_who_make_it_smaller() -> tuple[BaseException | None, dict[int, int]]:
    """Keep 3 of 5 units while another wants to keep 4; return what that one was told, and what is left."""
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 5})
    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.release(session, hold.id, keep={variant_id: 3})
            second = other.submit(kept, hold.id, {variant_id: 4})
            eventually(somebody_waits_for_a_lock)
        told = second.exception()
    return told, {qty: stock_of(variant_id) for qty in lines_of(hold.id).values()}


def test_two_who_make_a_hold_smaller_keep_what_the_first_kept() -> None:
    told, left = two_who_make_it_smaller()

    assert isinstance(told, KeepsTooMuch)
    assert left == {3: 2}


def test_without_the_lock_two_who_make_a_hold_smaller_keep_less_than_either_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolve, "_LOCK", text(resolve._LOCK.text.replace("FOR NO KEY UPDATE", "")))

    told, left = two_who_make_it_smaller()

    assert told is None
    assert left == {2: 3}


# ---- paid ------------------------------------------------------------------------------------------------------------


def test_without_the_guard_a_payment_to_refund_is_a_sale_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    paid(sold_out()[0])
    others = reserved("order-3", {make_variant(stock=1): 1})
    with pytest.raises(PaymentToRefund):
        confirmed(others.id)
    drop_from(monkeypatch, "db.reservations.sale", "IN_TIME", REFUND_GUARD)

    assert confirmed(others.id).state == "confirmed"


# ---- in a batch ------------------------------------------------------------------------------------------------------


def two_for_the_last_unit(moment: str) -> tuple[object, int]:
    """Let somebody take the last unit just before a statement of a batch; return the batch's answer and the stock."""
    variant_id = make_variant(stock=1)
    with meanwhile(moment, lambda: reserved("order-faster", {variant_id: 1})):
        (answer,) = reserved_many(HoldRequest("order-1", {variant_id: 1}))
    return answer, stock_of(variant_id)


AFTER_THE_LOOK = "unnest(CAST(%(order_ids"
AFTER_THE_LOCK = "WITH taken AS"


def drop_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_LOCK", text(units._LOCK.text.replace("FOR NO KEY UPDATE", "")))


@pytest.mark.parametrize("check", [True, False], ids=["with the check", "without the check"])
def test_a_batch_does_not_oversell(check: bool) -> None:
    if not check:
        drop_the_check()

    answer, stock = two_for_the_last_unit(AFTER_THE_LOOK)

    assert isinstance(answer, InsufficientStock)
    assert stock == 0
    assert broken() == []


def test_without_the_lock_the_guard_stops_a_batch_that_oversells(monkeypatch: pytest.MonkeyPatch) -> None:
    drop_the_lock(monkeypatch)
    drop_the_check()

    answer, stock = two_for_the_last_unit(AFTER_THE_LOCK)

    assert isinstance(answer, InsufficientStock)
    assert stock == 0


def test_without_the_lock_and_the_guard_the_check_stops_a_batch_that_oversells(monkeypatch: pytest.MonkeyPatch) -> None:
    drop_the_lock(monkeypatch)
    drop_from(monkeypatch, "db.reservations.batch", "_TAKE", UNITS_GUARD)

    with pytest.raises(IntegrityError, match="ck_variants_stock_not_negative"):
        two_for_the_last_unit(AFTER_THE_LOCK)


def test_without_the_lock_the_guard_and_the_check_a_batch_oversells(monkeypatch: pytest.MonkeyPatch) -> None:
    drop_the_lock(monkeypatch)
    drop_from(monkeypatch, "db.reservations.batch", "_TAKE", UNITS_GUARD)
    drop_the_check()

    _, stock = two_for_the_last_unit(AFTER_THE_LOCK)

    assert stock == -1
