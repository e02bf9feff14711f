"""Promises whose guard is a step and not a condition: without the step each of them is broken.

Every test here has a database of its own, since it takes something out of it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import DBAPIError

from db import reservations
from db.errors import InsufficientStock, InvalidId, OrderContended, ReservationExpired
from db.reservations import deadline, resolve, sale, take
from db.session import transaction
from tests.concurrency.guards import replace_in_reserve
from tests.db.holds import broken, confirmed, extended, hold_in, lines_of, released, reserved, swept
from tests.db.sql import eventually, somebody_waits_for_a_lock, touched_nothing, value
from tests.db.test_known_defects import put_in
from tests.factories import make_variant, make_variants, stock_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

pytestmark = pytest.mark.usefixtures("environ")


# ---- an order gets all its lines or none -----------------------------------------------------------------------------


def an_order_that_loses_a_line_after_its_look() -> tuple[BaseException | None, list[int]]:
    """What an order of two variants is told while another buys the last of the second, and the stock of both."""
    first, second = make_variants(2, stock=1)
    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.reserve(session, "order-1", {second: 1})
            waiting = other.submit(reserved, "order-2", {first: 1, second: 1})
            eventually(somebody_waits_for_a_lock)
        return waiting.exception(), [stock_of(first), stock_of(second)]


def test_an_order_that_loses_a_line_after_its_look_takes_nothing() -> None:
    told, stock = an_order_that_loses_a_line_after_its_look()

    assert isinstance(told, InsufficientStock)
    assert stock == [1, 0]


def test_without_counting_the_lines_an_order_gets_some_of_them() -> None:
    replace_in_reserve("IF v_lines < cardinality(p_variant_ids) THEN", "IF false THEN")

    told, stock = an_order_that_loses_a_line_after_its_look()

    assert told is None
    assert stock == [0, 0]
    assert len(lines_of(value("SELECT id FROM stock_reservations WHERE order_id = 'order-2'"))) == 1


# ---- a buyer gets units that are due ---------------------------------------------------------------------------------


def test_without_the_reclaim_a_buyer_is_refused_units_that_are_due_until_a_sweep_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variant_id = make_variant(stock=1)
    hold_in("due", "order-1", {variant_id: 1})
    monkeypatch.setattr(take, "reclaim", lambda *_: {})

    with pytest.raises(OrderContended):
        reserved("order-2", {variant_id: 1})
    swept()
    hold = reserved("order-2", {variant_id: 1})

    assert hold.state == "held"


# ---- the deadline is strict ------------------------------------------------------------------------------------------

DEADLINE = " AND expires_at > statement_timestamp()"

_ENDINGS = pytest.mark.parametrize(
    ("home", "name", "call"),
    [(sale, "IN_TIME", confirmed), (resolve, "_RELEASE", released), (deadline, "_EXTEND", extended)],
    ids=["confirm", "release", "extend"],
)


def before_and_after_a_sweep(call: Callable[[int], object]) -> list[str]:
    """What a call is told of a hold whose time is over, before a sweep has met it and afterwards."""
    told = []
    for state in ("due", "expired"):
        reservation_id = hold_in(state, f"order-{state}", {make_variant(stock=1): 1})
        try:
            call(reservation_id)
        except ReservationExpired:
            told.append("expired")
        else:
            told.append("done")
    return told


@_ENDINGS
def test_it_makes_no_difference_whether_a_sweep_has_come_by(
    home: ModuleType, name: str, call: Callable[[int], object]
) -> None:
    assert before_and_after_a_sweep(call) == ["expired", "expired"]


@_ENDINGS
def test_without_the_deadline_in_the_statement_it_does(
    home: ModuleType, name: str, call: Callable[[int], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in(monkeypatch, home, name, DEADLINE, "")

    assert before_and_after_a_sweep(call) == ["done", "expired"]


# ---- bad input -------------------------------------------------------------------------------------------------------

NO_ID: Any = "seven"


def test_bad_input_is_refused_in_harbors_own_words_and_leaves_the_transaction_usable() -> None:
    with transaction() as session:
        with pytest.raises(InvalidId, match="reservation_id must be an integer"):
            reservations.release(session, NO_ID)
        assert touched_nothing(session)
    assert broken() == []


def test_without_the_check_bad_input_is_refused_in_others_words_and_the_transaction_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolve, "checked_id", lambda _field, value: value)

    with transaction() as session:
        with pytest.raises(DBAPIError):
            reservations.release(session, NO_ID)
        with pytest.raises(DBAPIError, match="aborted"):
            touched_nothing(session)
        session.rollback()
