"""In a young shop with one hot variant, to ask for due units costs what is due, and not that times all it ever sold.

The average variant has a line or two, so that the planner takes the index on variants for the best one. For the hot
variant it is the worst: each of its lines would be compared with each due hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from db import reservations
from db.reservations import HoldRequest, take
from db.session import transaction
from tests.db.history import History, loaded
from tests.db.plans import CUSTOM, GENERIC, Plan, explained
from tests.db.sql import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

YOUNG = History(variants=20_000, sold=20_000, holds=40_000, held=4_000, due=100, hot_each=2)

_KEPT_FROM_THE_INDEX = "variant_id + 0"

# Both look for due units, and then choose the holds to reclaim.
_BUY: dict[str, Callable[[Session], object]] = {
    "reserve": lambda session: reservations.reserve(session, "order-new", {1: 1}),
    "reserve_many": lambda session: reservations.reserve_many(session, [HoldRequest("order-new", {1: 1})]),
}


@pytest.fixture(scope="module")
def drop(servers: dict[str, str], template: str) -> Iterator[History]:
    """A database with a hot variant that has half of all lines, the same for all tests: they roll back what they do."""
    with loaded(YOUNG, servers, template) as history:
        yield history


def _plans(buy: str, mode: str, first: str = "SELECT") -> list[Plan]:
    """The plans of all that a buyer sends who finds the hot variant sold out but for what is due."""
    with transaction() as session:
        session.connection().exec_driver_sql(first)
        session.execute(text("UPDATE variants SET stock_qty = 0 WHERE id = 1"))
        with explained(session, mode) as plans:
            _BUY[buy](session)
        session.rollback()
    return plans


@pytest.mark.parametrize("mode", [CUSTOM, GENERIC])
@pytest.mark.parametrize("buy", _BUY)
def test_a_buyer_who_asks_for_due_units_reads_the_lines_of_due_holds_only(drop: History, buy: str, mode: str) -> None:
    plans = _plans(buy, mode)

    assert sum({"stock_reservations", "stock_reservation_lines"} <= plan.tables for plan in plans) == 2
    assert max(plan.discarded for plan in plans) < 2 * YOUNG.due
    assert max(plan.buffers for plan in plans) < 20 * YOUNG.due


def test_by_the_index_on_variants_he_reads_all_lines_of_the_hot_one_to_reclaim(
    drop: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = take._RECLAIM.text
    assert statement.count(_KEPT_FROM_THE_INDEX) == 1
    monkeypatch.setattr(take, "_RECLAIM", text(statement.replace(_KEPT_FROM_THE_INDEX, "variant_id")))

    plans = _plans("reserve", CUSTOM)

    assert max(plan.discarded for plan in plans) > YOUNG.holds // 4


def test_by_the_index_on_variants_he_reads_all_lines_of_the_hot_one_to_look(drop: History) -> None:
    look = str(value("SELECT pg_get_functiondef(CAST('harbor_look_v1' AS regproc))"))
    kept = f"l.{_KEPT_FROM_THE_INDEX}"
    assert look.count(kept) == 1

    plans = _plans("reserve", CUSTOM, first=look.replace(kept, "l.variant_id"))

    assert max(plan.discarded for plan in plans) > YOUNG.holds // 4
