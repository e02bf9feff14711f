"""The sweep: bounded, oldest first, never in anybody's way, and exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db import inventory, reservations
from db.errors import ReservationExpired
from db.session import transaction
from tests.db.holds import PAYMENT, broken, many_due, reserved, state_of, swept
from tests.db.sql import change, everything, locked, make_due, recorded, rows, touched_nothing, value
from tests.factories import make_variant, make_variants, stock_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

pytestmark = pytest.mark.usefixtures("database")


def test_a_sweep_closes_what_is_due_and_says_how_many() -> None:
    first, second = make_variants(2, stock=5)
    ids = [reserved(f"order-{qty}", {first: qty, second: 1}).id for qty in (1, 2)]
    make_due(*ids)

    assert swept() == 2

    assert [state_of(reservation_id) for reservation_id in ids] == ["expired", "expired"]
    assert value("SELECT bool_and(resolved_at BETWEEN created_at AND now()) FROM stock_reservations")
    assert (stock_of(first), stock_of(second)) == (5, 5)
    assert broken() == []


def test_a_second_sweep_finds_nothing() -> None:
    variant_id = make_variant()
    many_due(3, {variant_id: 2})
    swept()

    assert swept() == 0

    assert stock_of(variant_id) == 6


def test_a_sweep_takes_the_oldest_first_and_no_more_than_its_limit() -> None:
    variant_id = make_variant(stock=5)
    newest, oldest, middle = (reserved(f"order-{number}", {variant_id: 1}).id for number in range(3))
    make_due(oldest, middle, newest)

    assert swept(limit=2) == 2

    assert (state_of(oldest), state_of(middle), state_of(newest)) == ("expired", "expired", "held")
    assert stock_of(variant_id) == 4


def test_sweeps_of_a_limit_reach_the_end() -> None:
    variant_id = make_variant()
    many_due(7, {variant_id: 1})

    expired = [swept(limit=3) for _ in range(4)]

    assert expired == [3, 3, 1, 0]
    assert stock_of(variant_id) == 7


@pytest.mark.parametrize("limit", [1, 5_000])
def test_a_limit_may_be_from_1_to_5000(limit: int) -> None:
    many_due(2, {make_variant(): 1})

    assert swept(limit) == min(limit, 2)


def test_the_units_of_many_holds_on_the_same_variants_are_summed() -> None:
    first, second, third = make_variants(3, stock=1)
    many_due(300, {first: 1, third: 7})
    many_due(200, {second: 3, first: 2})
    many_due(1, {third: 2**31 - 1})
    many_due(1, {third: 2**31 - 1})

    expired = swept()

    assert expired == 500
    assert swept() == 2
    assert [stock_of(variant_id) for variant_id in (first, second, third)] == [701, 601, 2_101 + 2 * (2**31 - 1)]
    assert broken() == []


def test_a_sweep_passes_over_a_hold_that_another_has_locked() -> None:
    variant_id = make_variant(stock=5)
    kept, other = (reserved(f"order-{number}", {variant_id: 1}).id for number in range(2))
    make_due(kept, other)

    with locked("SELECT FROM stock_reservations WHERE id = :id FOR UPDATE", id=kept), transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '1ms'"))
        expired = reservations.expire_due(session)

    assert expired == 1
    assert (state_of(kept), state_of(other)) == ("held", "expired")
    assert stock_of(variant_id) == 4


def test_two_sweeps_at_the_same_moment_share_the_work() -> None:
    # Of two variants, since the second sweep would rightly wait for the units of the first.
    first, second = make_variants(2)
    many_due(2, {first: 1})
    many_due(3, {second: 1})

    with transaction() as session:
        one = reservations.expire_due(session, 2)
        other = swept()

    assert (one, other) == (2, 3)
    assert (stock_of(first), stock_of(second)) == (2, 3)
    assert broken() == []


def test_a_sweep_with_nothing_due_takes_one_statement_and_neither_writes_nor_locks() -> None:
    reserved("order-1", {make_variant(stock=5): 2})

    with transaction() as session, recorded() as sent:
        expired = reservations.expire_due(session)
        asked = len(sent)
        untouched = touched_nothing(session)

    assert (expired, asked, untouched) == (0, 1, True)


def test_a_sweep_asks_four_statements_and_sets_one_limit_whatever_its_size() -> None:
    many_due(50, dict.fromkeys(make_variants(20), 1))

    with transaction() as session, recorded() as sent:
        reservations.expire_due(session)

    assert len(sent) == 5
    assert sum("lock_timeout" in str(statement) for statement in sent) == 1


def test_a_sweep_leaves_no_trace_of_a_hold_that_is_not_due() -> None:
    reserved("order-1", {make_variant(stock=5): 2})
    before = everything()

    swept()

    assert everything() == before


# ---- a variant that stays locked -------------------------------------------------------------------------------------


def test_a_sweep_gives_up_on_a_variant_that_stays_locked() -> None:
    busy, free = make_variants(2)
    many_due(1, {busy: 1})
    many_due(1, {free: 1})
    before = everything()

    with locked("SELECT FROM variants WHERE id = :id FOR UPDATE", id=busy), pytest.raises(OperationalError) as error:
        swept()

    assert isinstance(error.value.orig, LockNotAvailable)
    assert everything() == before


def test_a_sweep_that_passes_over_busy_variants_ends_all_other_holds() -> None:
    busy, free = make_variants(2)
    many_due(2, {busy: 1})
    many_due(2, {busy: 1, free: 1})
    many_due(3, {free: 1})

    with locked("SELECT FROM variants WHERE id = :id FOR UPDATE", id=busy), transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '1ms'"))
        expired = reservations.expire_due(session, pass_over_busy=True)

    assert expired == 3
    assert (stock_of(busy), stock_of(free)) == (0, 3)
    assert broken() == []


def test_a_sweep_that_passes_over_busy_variants_reaches_the_holds_behind_them() -> None:
    first_busy, second_busy, free = make_variants(3, stock=1)
    make_due(*(reserved(f"order-{one}", {one: 1}).id for one in (first_busy, second_busy, free)))

    with (
        locked("SELECT FROM variants WHERE id = ANY (:ids) FOR UPDATE", ids=[first_busy, second_busy]),
        transaction() as session,
    ):
        expired = reservations.expire_due(session, 1, pass_over_busy=True)

    assert expired == 1
    assert stock_of(free) == 1


def test_a_sweep_that_passed_over_busy_variants_keeps_no_lock_on_the_others() -> None:
    busy, free = make_variants(2)
    many_due(1, {busy: 1, free: 1})

    with locked("SELECT FROM variants WHERE id = :id FOR UPDATE", id=busy), transaction() as session:
        expired = reservations.expire_due(session, pass_over_busy=True)
        with transaction() as other:
            other.execute(text("SET LOCAL lock_timeout = '1ms'"))
            received = inventory.receive(other, free, 5)

    assert (expired, received) == (0, 5)


# ---- the very moment -------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped_clock() -> str:
    """A schema in which the database's clock stands still; a session that looks there first sees that time only."""
    change("CREATE SCHEMA IF NOT EXISTS stopped")
    change(
        """CREATE OR REPLACE FUNCTION stopped.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql
           AS $$ SELECT timestamptz '2031-03-14 15:09:26.535897+00' $$"""
    )
    return "SET LOCAL search_path = stopped, public, pg_catalog"


def _outcome(session: Session, call: Callable[[], object]) -> str:
    """What a call makes of a hold; it is undone."""
    savepoint = session.begin_nested()
    try:
        return str(call())
    except ReservationExpired:
        return "too late"
    finally:
        savepoint.rollback()


@pytest.mark.parametrize(
    ("microseconds_left", "outcomes"),
    [(1, ["confirmed", "released", "0"]), (0, ["too late", "too late", "1"])],
)
def test_at_the_very_moment_a_hold_ends_it_has_expired_for_everybody(
    stopped_clock: str, microseconds_left: int, outcomes: list[str]
) -> None:
    hold = reserved("order-1", {make_variant(stock=5): 2})
    change(
        """UPDATE stock_reservations SET max_expires_at = 'infinity',
                  expires_at = timestamptz '2031-03-14 15:09:26.535897+00' + :left * interval '1 microsecond'""",
        left=microseconds_left,
    )

    with transaction() as session:
        session.execute(text(stopped_clock))
        confirm = _outcome(session, lambda: reservations.confirm(session, hold.id, PAYMENT).state)
        release = _outcome(session, lambda: reservations.release(session, hold.id).state)
        expire = _outcome(session, lambda: reservations.expire_due(session))

    assert [confirm, release, expire] == outcomes


@pytest.mark.parametrize(("microseconds_left", "states"), [(1, ["held"]), (0, ["expired", "held"])])
def test_at_the_very_moment_a_hold_ends_its_order_gets_a_new_one(
    stopped_clock: str, microseconds_left: int, states: list[str]
) -> None:
    variant_id = make_variant(stock=2)
    old = reserved("order-1", {variant_id: 2})
    change(
        """UPDATE stock_reservations SET max_expires_at = 'infinity',
                  expires_at = timestamptz '2031-03-14 15:09:26.535897+00' + :left * interval '1 microsecond'""",
        left=microseconds_left,
    )

    with transaction() as session:
        session.execute(text(stopped_clock))
        new = reservations.reserve(session, "order-1", {variant_id: 2})

    assert new.state == "held"
    assert (new.id == old.id) is (states == ["held"])
    assert [state for (state,) in rows("SELECT state FROM stock_reservations ORDER BY id")] == states
