"""Batches that want the same orders and variants at the same moment wait for each other in one direction only."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from psycopg.errors import DeadlockDetected
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db import reservations
from db.errors import HarborError, InsufficientStock, OrderAlreadyReserved
from db.reservations import Hold, HoldRequest, batch
from db.reservations.take import reclaim
from db.session import transaction
from tests.db.holds import broken, many_due, reserved, reserved_many
from tests.db.sql import eventually, make_due, meanwhile, somebody_waits_for_a_lock, value
from tests.factories import make_variant, stock_of

pytestmark = pytest.mark.usefixtures("database")


# ---- one waits for another -------------------------------------------------------------------------------------------


def test_a_batch_that_waits_for_another_gets_what_that_one_left() -> None:
    variant_id = make_variant(stock=5)

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.reserve_many(session, [HoldRequest("order-1", {variant_id: 2})])
            waiting = other.submit(
                reserved_many, *(HoldRequest(f"order-{number}", {variant_id: 2}) for number in range(2, 5))
            )
            eventually(somebody_waits_for_a_lock)
        answers = waiting.result()

    assert [isinstance(answer, Hold) for answer in answers] == [True, False, False]
    assert isinstance(answers[2], InsufficientStock)
    assert stock_of(variant_id) == 1
    assert broken() == []


@pytest.mark.parametrize("qty", [2, 1], ids=["same lines", "other lines"])
def test_an_order_of_two_batches_at_once_gets_one_hold(qty: int) -> None:
    variant_id = make_variant(stock=5)

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            first = reservations.reserve_many(session, [HoldRequest("order-1", {variant_id: 2})])
            waiting = other.submit(
                reserved_many, HoldRequest("order-1", {variant_id: qty}), HoldRequest("order-2", {variant_id: 1})
            )
            eventually(somebody_waits_for_a_lock)
        answers = waiting.result()

    assert answers[0] == first[0] if qty == 2 else isinstance(answers[0], OrderAlreadyReserved)
    assert isinstance(answers[1], Hold)
    assert stock_of(variant_id) == 2
    assert broken() == []


def test_a_batch_waits_for_a_sweep_that_is_closing_the_holds_it_needs() -> None:
    variant_id = make_variant()
    many_due(3, {variant_id: 1})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.expire_due(session)
            waiting = other.submit(reserved_many, *(HoldRequest(f"order-{one}", {variant_id: 1}) for one in range(3)))
            eventually(somebody_waits_for_a_lock)
        answers = waiting.result()

    assert all(isinstance(answer, Hold) for answer in answers)
    assert stock_of(variant_id) == 0
    assert broken() == []


# ---- never in a circle -----------------------------------------------------------------------------------------------


def _unsorted_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "sorted", list, raising=False)


def _two_batches_of_the_same_orders_that_stop_in_the_middle() -> BaseException | None:
    """Return what one of them was told, when the first has made one of its holds and the second another."""
    variant_id = make_variant(stock=9)

    def batch(*order_ids: str) -> list[HoldRequest]:
        return [HoldRequest(order_id, {variant_id: 1}) for order_id in order_ids]

    with ThreadPoolExecutor(2) as others:
        with transaction() as session:
            reservations.reserve(session, "order-m", {variant_id: 1})
            first = others.submit(reserved_many, *batch("order-a", "order-m", "order-z"))
            eventually(somebody_waits_for_a_lock)
            second = others.submit(reserved_many, *batch("order-z", "order-a"))
            eventually(lambda: somebody_waits_for_a_lock(2))
            session.rollback()
        return first.exception() or second.exception()


def test_two_batches_make_the_holds_of_the_same_orders_in_the_same_order() -> None:
    refused = _two_batches_of_the_same_orders_that_stop_in_the_middle()

    assert refused is None
    assert broken() == []


def test_with_orders_as_they_come_two_batches_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    _unsorted_orders(monkeypatch)

    refused = _two_batches_of_the_same_orders_that_stop_in_the_middle()

    assert isinstance(refused, OperationalError)
    assert isinstance(refused.orig, DeadlockDetected)


def _close_and_reserve(due: Hold, closed: threading.Event, variant_id: int) -> None:
    """Close a due hold and make one for order-a, as somebody does who needs the units."""
    with transaction() as session:
        reclaim(session, [due.id], {})
        closed.set()
        eventually(somebody_waits_for_a_lock)
        reservations.reserve(session, "order-a", {variant_id: 1})


def _a_batch_whose_second_order_gets_a_hold_that_another_is_closing() -> tuple[list[Hold | HarborError], Future[None]]:
    """Return the batch's answers and the other one's outcome."""
    variant_id = make_variant(stock=9)
    closed = threading.Event()
    outcome: list[Future[None]] = []

    def get_in_between() -> None:
        if not outcome:
            due = reserved("order-b", {variant_id: 1})
            make_due(due.id)
            outcome.append(other.submit(_close_and_reserve, due, closed, variant_id))
            assert closed.wait(20)

    with ThreadPoolExecutor(1) as other, meanwhile("INSERT INTO stock_reservations", get_in_between):
        answers = reserved_many(HoldRequest("order-a", {variant_id: 1}), HoldRequest("order-b", {variant_id: 1}))
    return answers, outcome[0]


def test_a_batch_does_not_wait_for_who_is_closing_a_hold_that_its_order_has_just_got() -> None:
    answers, other = _a_batch_whose_second_order_gets_a_hold_that_another_is_closing()

    assert other.exception() is None
    assert [isinstance(answer, Hold) for answer in answers] == [True, True]
    assert value("SELECT count(*) FROM stock_reservations WHERE state = 'held'") == 2


def test_if_it_waited_they_would_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = batch._HOLDS.text[batch._HOLDS.text.index(" WHERE NOT EXISTS") : batch._HOLDS.text.index(" ORDER BY")]
    monkeypatch.setattr(batch, "_HOLDS", text(batch._HOLDS.text.replace(left_out, "")))

    told = []
    try:
        told.append(_a_batch_whose_second_order_gets_a_hold_that_another_is_closing()[1].exception())
    except OperationalError as error:
        told.append(error)

    assert isinstance(told[0], OperationalError)
    assert isinstance(told[0].orig, DeadlockDetected)
