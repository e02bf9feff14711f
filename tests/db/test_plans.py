"""Each statement finds its rows by the index that is there for it, and reads no more than it was asked for.

On 200,000 holds, with the statistics of such a table, both as planned for its values and as a prepared statement that
has one plan for all values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from db import reservations
from db.errors import InsufficientStock
from db.reservations import Hold, HoldRequest, expire, take
from db.reservations.request import Request
from db.session import transaction
from tests.db.history import History, loaded
from tests.db.plans import CUSTOM, GENERIC, Plan, explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

# A small catalog fits on pages that are cheaper to read whole than by index; one of 20,000 variants does not.
LONG = History(variants=20_000, sold=2_000, holds=200_000, held=20_000, due=500, hot_each=10)

_DUE = "ix_stock_reservations_due"
_ORDER = "uq_stock_reservations_live_order"
_PAYMENT = "uq_stock_reservations_payment_ref"
_HOLDS = "pk_stock_reservations"
_LINES = "pk_stock_reservation_lines"
_VARIANTS = "pk_variants"
_PRODUCTS = "pk_products"
_REFUNDS = "pk_required_refunds"

_GROWS = {"stock_reservations", "stock_reservation_lines", "stock_movements", "required_refunds", "variants"}

# A statement's own, such as the roots of the indexes that it looks into.
_AT_LEAST = 60


@dataclass(frozen=True)
class Call:
    """What is called, the indexes that it finds its rows by, and how many rows each of its statements is about.

    To find a row by index takes up to seven `buffers`; to change, lock and check it takes more.
    """

    do: Callable[[Session], object]
    by: set[str]
    rows: int = 1
    buffers: int = 12
    before: Callable[[Session], object] = lambda _session: None


def _sell_out(*variant_ids: int) -> Callable[[Session], object]:
    told = {"variant_ids": list(variant_ids)}
    return lambda session: session.execute(
        text("UPDATE variants SET stock_qty = 0 WHERE id = ANY (CAST(:variant_ids AS bigint[]))"), told
    )


def _refused(session: Session, lines: dict[int, int]) -> None:
    with pytest.raises(InsufficientStock):
        reservations.reserve(session, "order-new", lines)


def _many(session: Session) -> None:
    wanted = [HoldRequest(f"order-new-{number}", {1: 1, 2 + number: 1}) for number in range(50)]
    assert all(isinstance(answer, Hold) for answer in reservations.reserve_many(session, wanted))


_LONGER = timedelta(minutes=90)
_LIVE_ORDER = Request.checked(f"order-{LONG.newest}", {1: 1}, timedelta(minutes=30), _LONGER)
_TAKE = {_VARIANTS, _PRODUCTS}
_RECLAIM = {_VARIANTS, _ORDER, _DUE, _LINES, _HOLDS}
_PAID = {_HOLDS, _PAYMENT, _REFUNDS}

CALLS = {
    "a sweep": Call(lambda session: expire.expire_due(session, 50), {_DUE, _HOLDS, _LINES, _VARIANTS}, rows=75),
    "a sweep that passes over busy variants": Call(
        lambda session: expire.expire_due(session, 50, pass_over_busy=True),
        {_DUE, _HOLDS, _LINES, _VARIANTS},
        rows=LONG.due,
        buffers=7,
    ),
    "reserve": Call(lambda session: reservations.reserve(session, "order-new", {1: 1}), _TAKE),
    "reserve of twenty": Call(
        lambda session: reservations.reserve(session, "order-new", dict.fromkeys(range(1, 21), 1)), _TAKE, rows=20
    ),
    "the look at an order's hold": Call(lambda session: take._look(session, _LIVE_ORDER), {*_TAKE, _ORDER}),
    "reserve when it is sold out": Call(
        lambda session: _refused(session, {1: 2_000}),
        {*_TAKE, _ORDER, _DUE, _LINES},
        rows=LONG.due,
        buffers=7,
        before=_sell_out(1),
    ),
    "reserve that reclaims": Call(
        lambda session: reservations.reserve(session, "order-new", {1: 3}),
        {*_TAKE, *_RECLAIM},
        rows=LONG.due,
        buffers=7,
        before=_sell_out(1),
    ),
    "confirm": Call(
        lambda session: reservations.confirm(session, LONG.newest, "payment-new"), {_HOLDS, _REFUNDS, _LINES}
    ),
    "extend": Call(lambda session: reservations.extend(session, LONG.newest, hold=_LONGER), {_HOLDS}),
    "release": Call(lambda session: reservations.release(session, LONG.newest), {_HOLDS, _LINES, _VARIANTS}),
    "release of a part": Call(
        lambda session: reservations.release(session, LONG.newest, keep={1: 1}), {_HOLDS, _LINES, _VARIANTS}
    ),
    "a payment in time": Call(
        lambda session: reservations.confirm_or_reacquire(session, LONG.newest, "payment-new"), {*_PAID, _LINES}
    ),
    "a payment after the end": Call(
        lambda session: reservations.confirm_or_reacquire(session, 9, "payment-new"), {*_PAID, *_TAKE, _LINES}
    ),
    "a second payment": Call(lambda session: reservations.confirm_or_reacquire(session, 1, "payment-new"), _PAID),
    "reserve_many": Call(_many, {_ORDER, _VARIANTS}, rows=100),
    "reserve_many that reclaims": Call(_many, _RECLAIM, rows=LONG.due, buffers=7, before=_sell_out(1)),
    "a page": Call(reservations.page, {_HOLDS, _LINES}, rows=50),
    "a late page": Call(lambda session: reservations.page(session, after=LONG.holds // 2), {_HOLDS, _LINES}, rows=50),
    "a hold": Call(lambda session: reservations.show(session, LONG.newest), {_HOLDS, _LINES, _VARIANTS}),
}


@pytest.fixture(scope="module")
def history(servers: dict[str, str], template: str) -> Iterator[History]:
    """A database with a long history, the same for all tests: they roll back what they do."""
    with loaded(LONG, servers, template) as history:
        yield history


def _plans(call: Call, mode: str, spoiled: str = "SELECT") -> list[Plan]:
    """The plans of what a call sent about tables, without PostgreSQL's own checks."""
    with transaction() as session:
        call.before(session)
        session.execute(text(spoiled))
        with explained(session, mode) as plans:
            call.do(session)
        session.rollback()
    return [plan for plan in plans if plan.tables and not plan.checks_a_foreign_key]


def _check(call: Call, plans: list[Plan]) -> None:
    for plan in plans:
        assert plan.read_whole & _GROWS == set(), plan
        assert plan.buffers <= _AT_LEAST + call.buffers * call.rows, plan
    assert call.by <= {index for plan in plans for index in plan.indexes}


@pytest.mark.parametrize("mode", [CUSTOM, GENERIC])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_statement_finds_its_rows_by_index(history: History, call: Call, mode: str) -> None:
    plans = _plans(call, mode)

    _check(call, plans)


@pytest.mark.parametrize(
    ("name", "table", "spoil"),
    [
        ("a sweep", "stock_reservations", f"DROP INDEX {_DUE}"),
        ("the look at an order's hold", "stock_reservations", f"DROP INDEX {_ORDER}"),
        ("a payment in time", "stock_reservations", f"DROP INDEX {_PAYMENT}"),
        ("a payment in time", "required_refunds", f"ALTER TABLE required_refunds DROP CONSTRAINT {_REFUNDS}"),
        ("a second payment", "stock_reservations", f"ALTER TABLE stock_reservations DROP CONSTRAINT {_HOLDS} CASCADE"),
        ("release", "stock_reservation_lines", f"ALTER TABLE stock_reservation_lines DROP CONSTRAINT {_LINES}"),
        ("reserve", "variants", f"ALTER TABLE variants DROP CONSTRAINT {_VARIANTS} CASCADE"),
    ],
)
@pytest.mark.parametrize("mode", [CUSTOM, GENERIC])
def test_without_the_index_a_table_is_read_whole_and_the_check_says_so(
    history: History, name: str, table: str, spoil: str, mode: str
) -> None:
    plans = _plans(CALLS[name], mode, spoil)

    assert table in {whole for plan in plans for whole in plan.read_whole}
    with pytest.raises(AssertionError):
        _check(CALLS[name], plans)


@pytest.mark.parametrize(("mode", "knows_values"), [(CUSTOM, True), (GENERIC, False)])
def test_a_plan_is_made_for_its_values_or_for_all(history: History, mode: str, knows_values: bool) -> None:
    (plan,) = _plans(CALLS["extend"], mode)

    conditions = [node["Index Cond"] for node in plan.nodes if "Index Cond" in node]

    assert [str(LONG.newest) in condition for condition in conditions] == [knows_values]
    assert [re.search(r"\$\d", condition) is None for condition in conditions] == [knows_values]
