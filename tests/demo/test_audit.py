"""The books of the demo can fail: each promise is broken once, and the audit says which."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from threading import Thread

import psycopg
import pytest
from sqlalchemy import text

from db import inventory, reservations
from db.session import transaction
from demo import audit, ledger
from demo.report import Report
from demo.trace import parse
from tests.factories import make_variant, make_variants
from tests.stack.processes import database, eventually

pytestmark = pytest.mark.usefixtures("environ")

TRACE = parse(["order_id,sku,qty,ordered_at,unit_price", "1,HBR-MUG-01,2,2026-01-05T09:00Z,9"], "the test's rows")


def reserve(order_id: str, lines: dict[int, int]) -> int:
    with transaction() as session:
        return reservations.reserve(session, order_id, lines, hold=timedelta(minutes=1)).id


def confirm(reservation_id: int) -> None:
    with transaction() as session:
        reservations.confirm(session, reservation_id, f"payment-{reservation_id}")


def change(statement: str) -> None:
    with transaction() as session:
        session.execute(text(statement))


def report(books: audit.Audit, jobs: ledger.Jobs | None = None, ticks: ledger.Ticks | None = None) -> Report:
    counts = Counter({name: asdict(books)[name] for name in ("holds", "confirmed", "released")})
    return Report(
        trace=TRACE,
        counts=counts,
        errors=Counter(),
        books=books,
        jobs=jobs or ledger.Jobs(0, 0, 0, 0, 0, 0, 0, 0, 0, None, None),
        ticks=ticks or ledger.Ticks(0, 0, 0),
        faults=0,
        left_out=(),
        seconds=1.0,
        seed=1,
        generated=False,
    )


def broken(books: audit.Audit) -> dict[str, int]:
    keys = ("oversold_units", "unreturned_units", "unreconciled_variants", "deadlocks")
    return {key: count for key, count in asdict(books).items() if key in keys and count}


def test_a_shop_with_every_kind_of_ending_has_clean_books() -> None:
    first, second = make_variants(2, stock=10)
    confirm(reserve("sold", {first: 2, second: 1}))
    with transaction() as session:
        inventory.take_back(session, first, 1)
        inventory.adjust(session, second, -1, reason="broken")
    with transaction() as session:
        reservations.release(session, reserve("released", {first: 3}))
    reserve("open", {first: 4})

    books = audit.audit([])

    assert broken(books) == {}
    assert (books.holds, books.confirmed, books.released, books.expired) == (3, 1, 1, 0)
    assert report(books).exit_code == 0


def test_units_that_left_the_shelf_and_went_nowhere_are_unreturned() -> None:
    make_variant(stock=10)
    change("UPDATE variants SET stock_qty = stock_qty - 3")

    books = audit.audit([])

    assert broken(books) == {"unreturned_units": 3, "unreconciled_variants": 1}
    assert report(books).exit_code == 1


def test_an_overdue_hold_is_unreturned() -> None:
    reserve("abandoned", {make_variant(stock=10): 4})
    change("UPDATE stock_reservations SET expires_at = statement_timestamp()")

    books = audit.audit([])

    assert broken(books) == {"unreturned_units": 4}
    assert report(books).exit_code == 1


def test_units_given_back_twice_are_seen() -> None:
    variant_id = make_variant(stock=10)
    with transaction() as session:
        reservations.release(session, reserve("released", {variant_id: 4}))
    change("UPDATE variants SET stock_qty = stock_qty + 4")

    assert broken(audit.audit([])) == {"unreconciled_variants": 1}


def test_more_sold_than_ever_came_is_oversold_even_when_the_ledger_agrees() -> None:
    confirm(reserve("sold", {make_variant(stock=10): 8}))
    change("UPDATE stock_reservation_lines SET qty = 13")
    change("UPDATE stock_movements SET qty = -13 WHERE kind = 'sale'")

    books = audit.audit([])

    assert broken(books) == {"oversold_units": 3, "unreconciled_variants": 1}
    assert report(books).exit_code == 1


def test_a_stock_below_zero_is_oversold() -> None:
    make_variant(stock=1)
    change("ALTER TABLE variants DROP CONSTRAINT ck_variants_stock_not_negative")
    change("UPDATE variants SET stock_qty = -2")

    assert broken(audit.audit([]))["oversold_units"] == 2


def test_a_deadlock_is_counted(environ: dict[str, str]) -> None:
    first, second = make_variants(2, stock=1)
    lock = "SELECT FROM variants WHERE id = %s FOR UPDATE"

    with psycopg.connect(database(environ)) as ours, psycopg.connect(database(environ)) as theirs:
        ours.execute(lock, [first])
        theirs.execute(lock, [second])
        waiting = Thread(target=_ignoring_deadlocks, args=(ours, lock, second))
        waiting.start()
        _ignoring_deadlocks(theirs, lock, first)
        waiting.join()
    audit.wait_until_alone()
    books = audit.audit([])

    assert broken(books) == {"deadlocks": 1}
    assert report(books).exit_code == 1


def _ignoring_deadlocks(connection: psycopg.Connection, statement: str, variant_id: int) -> None:
    try:
        connection.execute(statement.encode(), [variant_id])
    except psycopg.errors.DeadlockDetected:
        connection.rollback()


def test_an_answer_that_a_shopper_was_given_and_the_database_lacks_fails_the_demo() -> None:
    confirm(reserve("sold", {make_variant(stock=1): 1}))
    told = report(audit.audit([]))
    told.counts["confirmed"] += 1

    assert told.exit_code == 1
    assert told.problems == ["Shoppers were told of 2 confirmed, and the database has 1."]


def test_an_error_that_nobody_expected_fails_the_demo() -> None:
    told = report(audit.audit([]))
    told.errors["OperationalError: the connection is lost"] += 2

    assert told.exit_code == 1


def test_lags_leave_out_the_holds_that_the_fault_met_and_tell_them_apart() -> None:
    for order_id, begins, lag_seconds in (("before", -60, 2), ("into", -12, 4), ("inside", -8, 7), ("after", -4, 1)):
        reserve(order_id, {make_variant(stock=1): 1})
        change(
            "UPDATE stock_reservations SET state = 'expired',"
            f" expires_at = statement_timestamp() + interval '{begins} s',"
            f" resolved_at = statement_timestamp() + interval '{begins + lag_seconds} s'"
            f" WHERE order_id = '{order_id}'"
        )
    moment = audit.now()

    books = audit.audit([(moment - timedelta(seconds=10), moment - timedelta(seconds=5))])
    without_fault = audit.audit([])

    assert (books.lag_p50_s, books.lag_p99_s, books.lag_p99_fault_s) == (1, 2, 7)
    assert (without_fault.lag_p99_s, without_fault.lag_p99_fault_s) == (7, None)


def test_the_pulse_shows_open_units_and_how_long_the_oldest_hold_is_overdue() -> None:
    variant_id = make_variant(stock=10)
    reserve("open", {variant_id: 4})
    reserve("overdue", {variant_id: 2})
    change("UPDATE stock_reservations SET expires_at = statement_timestamp() WHERE order_id = 'overdue'")

    assert eventually(lambda: audit.pulse().lag_seconds > 0)
    pulse = audit.pulse()

    assert (pulse.open_holds, pulse.held_units, pulse.expired_holds) == (2, 6, 0)


@pytest.mark.parametrize("place", range(7))
def test_a_job_or_a_tick_that_is_not_as_it_should_be_fails_the_demo(place: int) -> None:
    lost, twice, unasked, unsent, resent, missed, extra = (int(place == each) for each in range(7))

    told = report(
        audit.audit([]),
        ledger.Jobs(3, 3 - lost, lost, twice, unasked, 9, unsent, resent, 1, 5.0, 9.0),
        ledger.Ticks(10, missed, extra),
    )

    assert told.exit_code == 1
    assert len(told.problems) == 1
