"""Two who end the same hold at the same moment: the first to commit decides, the other is told what happened."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from db import reservations
from db.errors import PaymentMismatch, PaymentRefInUse, ReservationConfirmed, ReservationReleased
from db.session import transaction
from tests.db.holds import PAYMENT, broken, confirmed, released, reserved, sales_of, state_of
from tests.db.sql import eventually, somebody_waits_for_a_lock
from tests.factories import make_variant, stock_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from db.errors import HarborError
    from db.reservations import Hold

pytestmark = pytest.mark.usefixtures("database")


def _confirm(session: Session, reservation_id: int) -> Hold:
    return reservations.confirm(session, reservation_id, PAYMENT)


def _confirmed_with_another(reservation_id: int) -> Hold:
    return confirmed(reservation_id, "payment-2")


@pytest.mark.parametrize(
    ("first", "second", "error", "state", "stock"),
    [
        (_confirm, released, ReservationConfirmed, "confirmed", 3),
        (_confirm, _confirmed_with_another, PaymentMismatch, "confirmed", 3),
        (reservations.release, confirmed, ReservationReleased, "released", 5),
    ],
)
def test_the_second_is_told_what_the_first_did(
    first: Callable[[Session, int], Hold],
    second: Callable[[int], Hold],
    error: type[HarborError],
    state: str,
    stock: int,
) -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            first(session, hold.id)
            waiting = other.submit(second, hold.id)
            eventually(somebody_waits_for_a_lock)
        refused = waiting.exception()

    assert type(refused) is error
    assert (state_of(hold.id), stock_of(variant_id)) == (state, stock)
    assert broken() == []


@pytest.mark.parametrize(
    ("first", "second", "state", "stock", "sales"),
    [(_confirm, confirmed, "confirmed", 3, 1), (reservations.release, released, "released", 5, 0)],
)
def test_the_same_call_twice_at_once_counts_once(
    first: Callable[[Session, int], Hold], second: Callable[[int], Hold], state: str, stock: int, sales: int
) -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            done = first(session, hold.id)
            waiting = other.submit(second, hold.id)
            eventually(somebody_waits_for_a_lock)
        again = waiting.result()

    assert again == done
    assert (state_of(hold.id), stock_of(variant_id)) == (state, stock)
    assert len(sales_of(hold.id)) == sales
    assert broken() == []


def test_the_second_ends_the_hold_when_the_first_gave_up() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.release(session, hold.id)
            waiting = other.submit(confirmed, hold.id)
            eventually(somebody_waits_for_a_lock)
            session.rollback()
        sold = waiting.result()

    assert sold.state == "confirmed"
    assert stock_of(variant_id) == 3
    assert broken() == []


def test_a_payment_that_confirms_two_holds_at_once_confirms_one() -> None:
    variant_id = make_variant(stock=5)
    one, two = (reserved(order_id, {variant_id: 1}).id for order_id in ("order-1", "order-2"))

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.confirm(session, one, PAYMENT)
            waiting = other.submit(confirmed, two)
            eventually(somebody_waits_for_a_lock)
        refused = waiting.exception()

    assert isinstance(refused, PaymentRefInUse)
    assert refused.ids == {"reservation_id": two, "other_id": one}
    assert (state_of(one), state_of(two)) == ("confirmed", "held")
