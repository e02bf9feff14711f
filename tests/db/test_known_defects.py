"""Defects that other shops have shipped, each put in here and seen to do its harm, and Harbor without them.

Every test here has a database of its own, since it takes guards out of it. Buyers who lock in any order deadlock in
tests/concurrency/test_chaos.py, where everything else goes on as well.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db import reservations
from db.errors import ReservationExpired
from db.reservations import Hold, HoldRequest, batch, deadline, expire, sale, units
from db.reservations.units import closing
from db.session import transaction
from tests.concurrency.guards import UNITS_GUARD, drop_the_check, replace_in_reserve
from tests.db.holds import (
    broken,
    confirmed,
    extended,
    hold_in,
    lines_of,
    released,
    reserved,
    reserved_many,
    sold_out,
    state_of,
    swept,
)
from tests.db.sql import change, eventually, locked, make_due, somebody_waits_for_a_lock
from tests.factories import make_variant, make_variants, stock_of

if TYPE_CHECKING:
    from concurrent.futures import Future
    from types import ModuleType

pytestmark = pytest.mark.usefixtures("environ")


def put_in(monkeypatch: pytest.MonkeyPatch, home: ModuleType, name: str, right: str, wrong: str) -> None:
    """Change the words of a statement of ours."""
    statement = getattr(home, name).text
    assert statement.count(right) == 1
    monkeypatch.setattr(home, name, text(statement.replace(right, wrong)))


def said(by: Future[Any]) -> str:
    """The name of the error that somebody met, or nothing."""
    error = by.exception()
    return "" if error is None else type(getattr(error, "orig", error)).__name__


# ---- the look counts the claims of others, the check under the lock forgets them -------------------------------------

FORGETS_CLAIMS = "AND (SELECT sum(m.qty) FROM stock_movements m WHERE m.variant_id = v.id) >= w.qty"


def the_second_buyer_of_the_last_unit() -> tuple[str, int]:
    """What he is told who looked before the first buyer committed, and the stock."""
    variant_id = make_variant(stock=1)
    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.reserve(session, f"first-{variant_id}", {variant_id: 1})
            second = other.submit(reserved, f"second-{variant_id}", {variant_id: 1})
            eventually(somebody_waits_for_a_lock)
        return said(second), stock_of(variant_id)


def test_the_check_under_the_lock_counts_what_others_hold() -> None:
    assert the_second_buyer_of_the_last_unit() == ("InsufficientStock", 0)


def test_a_check_under_the_lock_that_forgets_what_others_hold_oversells_but_for_the_constraint() -> None:
    replace_in_reserve(UNITS_GUARD, FORGETS_CLAIMS)

    by_the_constraint = the_second_buyer_of_the_last_unit()
    drop_the_check()
    by_nothing = the_second_buyer_of_the_last_unit()

    assert by_the_constraint == ("CheckViolation", 0)
    assert by_nothing == ("", -1)


# ---- a loop that binds late: everything is said of the last one ------------------------------------------------------


def what_each_got() -> tuple[list[dict[int, int]], list[dict[int, int]], list[int]]:
    """What three orders of a batch wanted and got, and the stock after a sweep has given it back."""
    variant_ids = make_variants(3, stock=10)
    wanted = [{variant_id: qty} for qty, variant_id in enumerate(variant_ids, start=1)]
    answers = reserved_many(*(HoldRequest(f"order-{number}", lines) for number, lines in enumerate(wanted)))
    holds = [answer.id for answer in answers if isinstance(answer, Hold)]
    got = [lines_of(hold) for hold in holds]
    make_due(*holds)
    swept()
    return wanted, got, [stock_of(variant_id) for variant_id in variant_ids]


def test_each_order_of_a_batch_gets_its_own_and_each_variant_its_own_back() -> None:
    wanted, got, stock = what_each_got()

    assert got == wanted
    assert stock == [10, 10, 10]


def test_a_batch_that_gives_all_lines_to_the_last_order_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, batch, "_TAKE", "SELECT l.reservation_id,", "SELECT max(l.reservation_id) OVER (),")

    wanted, got, _ = what_each_got()

    assert got == [{}, {}, {variant_id: qty for lines in wanted for variant_id, qty in lines.items()}]


def test_a_sweep_that_gives_every_variant_what_the_last_one_is_due_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    last = "(CAST(:qtys AS bigint[]))[cardinality(CAST(:qtys AS bigint[]))]"
    put_in(monkeypatch, units, "_GIVE_BACK", "v.stock_qty + w.qty", f"v.stock_qty + {last}")

    _, _, stock = what_each_got()

    assert stock == [12, 11, 10]
    assert len(broken()) == 2


# ---- expiry overwrites a payment that came in between ----------------------------------------------------------------


def swept_while_it_is_paid() -> tuple[str, str, int]:
    """What a sweep says that meets a hold which is being paid, the state of the hold, and the stock of 3 after 2."""
    variant_id = make_variant(stock=5)
    reservation_id = hold_in("due", f"order-{variant_id}", {variant_id: 2})
    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            reservations.confirm_or_reacquire(session, reservation_id, f"payment-{variant_id}")
            sweep = other.submit(swept)
            eventually(lambda: sweep.done() or somebody_waits_for_a_lock())
        return said(sweep), state_of(reservation_id), stock_of(variant_id)


def test_a_sweep_leaves_a_payment_alone_that_came_in_between() -> None:
    assert swept_while_it_is_paid() == ("", "confirmed", 3)
    assert broken() == []


def test_a_sweep_that_looks_first_and_writes_then_overwrites_a_payment_but_for_the_constraint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = (
        "SELECT id FROM stock_reservations WHERE state = 'held' AND expires_at <= statement_timestamp() LIMIT :limit"
    )
    careless = text(closing("expired", looked).text.replace("AND r.state = 'held'", ""))
    monkeypatch.setattr(expire, "_EXPIRE_DUE", careless)

    by_the_constraint = swept_while_it_is_paid()
    change("ALTER TABLE stock_reservations DROP CONSTRAINT ck_stock_reservations_paid_when_confirmed")
    by_nothing = swept_while_it_is_paid()

    assert by_the_constraint == ("CheckViolation", "confirmed", 3)
    assert by_nothing == ("", "expired", 5)
    assert len(broken()) == 1


# ---- an extension, or a payment, trusts what was so a moment ago -----------------------------------------------------


def test_neither_an_extension_nor_a_payment_gets_a_hold_back_that_another_has_the_units_of() -> None:
    lost, variant_id = sold_out()

    for too_late in (extended, confirmed):
        with pytest.raises(ReservationExpired):
            too_late(lost)

    assert (state_of(lost), stock_of(variant_id)) == ("expired", 0)
    assert broken() == []


def test_an_extension_that_revives_a_hold_gives_its_units_to_two(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, variant_id = sold_out()
    put_in(monkeypatch, deadline, "_EXTEND", "SET expires_at", "SET state = 'held', resolved_at = NULL, expires_at")
    put_in(monkeypatch, deadline, "_EXTEND", " AND state = 'held' AND expires_at > statement_timestamp()", "")

    extended(lost)

    assert (state_of(lost), stock_of(variant_id)) == ("held", 0)
    assert [(variant.stock_qty, variant.held_qty, variant.moved_qty) for variant in broken()] == [(0, 4, 2)]


def test_a_payment_that_trusts_what_it_saw_a_moment_ago_sells_what_another_has(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, variant_id = sold_out()
    put_in(monkeypatch, sale, "IN_TIME", " AND state = 'held' AND expires_at > statement_timestamp()", "")

    confirmed(lost)

    assert (state_of(lost), stock_of(variant_id)) == ("confirmed", 0)
    assert [(variant.stock_qty, variant.held_qty, variant.moved_qty) for variant in broken()] == [(0, 2, 0)]


# ---- units are given back in another order than they are taken -------------------------------------------------------


def released_while_another_buys() -> list[str]:
    """What they are told of whom one gives back two variants, and the other, who has the first, wants the second."""
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 1, second: 1})
    lock = "SELECT id FROM variants WHERE id = :id FOR NO KEY UPDATE"
    told = []
    with ThreadPoolExecutor(1) as other:
        with locked(lock, id=first) as buyer:
            giving_back = other.submit(released, hold.id)
            eventually(somebody_waits_for_a_lock)
            try:
                buyer.execute(text(lock), {"id": second})
            except OperationalError as error:
                told.append(type(error.orig).__name__)
        told.append(said(giving_back))
    return [error for error in told if error]


def test_who_gives_units_back_waits_in_the_order_of_those_who_buy() -> None:
    assert released_while_another_buys() == []


def test_who_gives_units_back_in_another_order_deadlocks_with_those_who_buy(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, units, "_LOCK", "ORDER BY id", "ORDER BY id DESC")

    assert released_while_another_buys() == ["DeadlockDetected"]
