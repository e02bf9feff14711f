"""Each guard, taken away, lets happen what it is there to prevent: otherwise the tests of it would prove nothing.

Every test here has a database of its own, since it takes a constraint or a condition out of it.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.exc import IntegrityError

from db import inventory, reservations
from db.errors import InsufficientStock, StockTooLow
from db.session import transaction
from tests.db.holds import broken, confirmed, released, reserved, swept
from tests.db.sql import change, eventually, make_due, somebody_waits_for_a_lock, value
from tests.factories import make_variant, stock_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("environ")

UNITS_GUARD = "AND v.stock_qty >= w.qty"
STATE_GUARD = "AND r.state = 'held'"
SELECTION_GUARD = "AND state = 'held' AND expires_at > statement_timestamp()"
SWEEP_GUARD = "state = 'held' AND expires_at <= statement_timestamp()"


def drop_the_check() -> None:
    change("ALTER TABLE variants DROP CONSTRAINT ck_variants_stock_not_negative")


def drop_the_units_guard() -> None:
    name = "harbor_reserve_v1"
    source = str(value("SELECT pg_get_functiondef(CAST(:name AS regproc))", name=name))
    assert UNITS_GUARD in source
    with transaction() as session:
        session.connection().exec_driver_sql(source.replace(UNITS_GUARD, ""))


def drop_from(monkeypatch: pytest.MonkeyPatch, module: str, name: str, *guards: str) -> None:
    """Take conditions out of a statement of a module of ours."""
    home = sys.modules[module]
    statement: TextClause = getattr(home, name)
    source = statement.text
    for guard in guards:
        assert guard in source
        source = source.replace(guard, "AND true" if guard.startswith("AND") else "true")
    monkeypatch.setattr(home, name, text(source))


# ---- never oversell --------------------------------------------------------------------------------------------------


def two_buyers_of_the_last_unit() -> tuple[int, BaseException | None]:
    """Let a second buyer wait while the first empties the variant; return its stock and what the second was told."""
    variant_id = make_variant(stock=1)
    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.reserve(session, "order-1", {variant_id: 1})
            second = other.submit(reserved, "order-2", {variant_id: 1})
            eventually(somebody_waits_for_a_lock)
        told = second.exception()
    return stock_of(variant_id), told


def test_two_buyers_of_the_last_unit_do_not_oversell() -> None:
    stock, told = two_buyers_of_the_last_unit()

    assert stock == 0
    assert isinstance(told, InsufficientStock)


def test_without_the_guard_the_check_stops_an_oversell() -> None:
    drop_the_units_guard()

    stock, told = two_buyers_of_the_last_unit()

    assert stock == 0
    assert isinstance(told, IntegrityError)
    assert "ck_variants_stock_not_negative" in str(told)


def test_without_the_check_the_guard_stops_an_oversell() -> None:
    drop_the_check()

    stock, told = two_buyers_of_the_last_unit()

    assert stock == 0
    assert isinstance(told, InsufficientStock)


def test_without_the_guard_and_the_check_two_buyers_of_the_last_unit_oversell() -> None:
    drop_the_units_guard()
    drop_the_check()

    stock, told = two_buyers_of_the_last_unit()

    assert stock == -1
    assert told is None


def test_without_the_guard_and_the_check_a_count_goes_below_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    variant_id = make_variant(stock=1)
    with pytest.raises(StockTooLow), transaction() as session:
        inventory.adjust(session, variant_id, -2, reason="broken")
    drop_from(monkeypatch, "db.inventory.movements", "_MOVE", "AND stock_qty + :qty >= 0")
    with pytest.raises(IntegrityError), transaction() as session:
        inventory.adjust(session, variant_id, -2, reason="broken")
    drop_the_check()

    with transaction() as session:
        inventory.adjust(session, variant_id, -2, reason="broken")

    assert stock_of(variant_id) == -1


# ---- units come back once --------------------------------------------------------------------------------------------


def end_twice(end: Callable[[int], object]) -> int:
    """End a hold on 2 of 5 units twice and return the stock: 5 when they came back once."""
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})
    end(hold.id)
    end(hold.id)
    return stock_of(variant_id)


def sweep_it(reservation_id: int) -> None:
    make_due(reservation_id)
    swept()


@pytest.mark.parametrize("end", [released, sweep_it])
def test_a_hold_that_is_ended_twice_gives_its_units_back_once(end: Callable[[int], object]) -> None:
    stock = end_twice(end)

    assert stock == 5
    assert broken() == []


def test_without_the_guard_a_release_gives_the_units_back_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    drop_from(monkeypatch, "db.reservations.resolve", "_RELEASE", SELECTION_GUARD, STATE_GUARD)

    stock = end_twice(released)

    assert stock == 7
    assert len(broken()) == 1


def test_without_the_guard_a_sweep_gives_the_units_back_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    drop_from(monkeypatch, "db.reservations.expire", "_EXPIRE_DUE", SWEEP_GUARD, STATE_GUARD)

    stock = end_twice(sweep_it)

    assert stock == 7
    assert len(broken()) == 1


def test_without_the_guard_a_confirmation_sells_what_went_back_on_sale(monkeypatch: pytest.MonkeyPatch) -> None:
    drop_from(monkeypatch, "db.reservations.sale", "IN_TIME", SELECTION_GUARD)

    hold = confirmed(released(reserved("order-1", {make_variant(stock=5): 2}).id).id)

    assert hold.state == "confirmed"
    assert len(broken()) == 1


def test_without_the_index_a_payment_sells_two_holds() -> None:
    variant_id = make_variant(stock=5)
    change("DROP INDEX uq_stock_reservations_payment_ref")

    holds = [confirmed(reserved(order_id, {variant_id: 1}).id) for order_id in ("order-1", "order-2")]

    assert [hold.state for hold in holds] == ["confirmed", "confirmed"]
