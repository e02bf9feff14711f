"""Taking units and giving them back changes one row within its page and no index (HOT), however often it happens.

Every test here has a database of its own, since it counts what is done in it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from db import engine, inventory, reservations
from db.session import transaction
from tests.db.sql import change, make_due, rows
from tests.factories import make_variants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

pytestmark = pytest.mark.usefixtures("environ")

_VARIANTS = 400  # Several pages full.
_ORDERS = 60
_LINES = 5


@contextmanager
def _counted() -> Iterator[Session]:
    """A transaction that the server counts at its end, with all before it, and not when it finds the time."""
    with transaction() as session:
        yield session
        session.execute(text("SELECT pg_stat_force_next_flush()"))


def _updates() -> tuple[int, int]:
    """How many updates of variants there were, and how many of them touched no index."""
    return rows("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'variants'")[0]


def _stocked() -> list[int]:
    """Variants as they lie in a shop that has run for a while."""
    variant_ids = make_variants(_VARIANTS, stock=50)
    with engine.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM FULL variants"))
        connection.execute(text("VACUUM variants"))
    with _counted():
        return variant_ids


def _trade(variant_ids: list[int]) -> int:
    """Hold units, give them back by release, sweep or in part, and return how many rows of variants that changes."""
    for number in range(_ORDERS):
        lines = dict.fromkeys(variant_ids[number * _LINES : (number + 1) * _LINES], 2)
        with _counted() as session:
            hold = reservations.reserve(session, f"order-{number}", lines)
        if number % 3 == 0:
            make_due(hold.id)
        with _counted() as session:
            if number % 3 == 0:
                reservations.expire_due(session)
            elif number % 3 == 1:
                reservations.release(session, hold.id)
            else:
                reservations.release(session, hold.id, keep=dict.fromkeys(lines, 1))
    return 2 * _LINES * _ORDERS


def _since(before: tuple[int, int]) -> tuple[int, int]:
    after = _updates()
    return after[0] - before[0], after[1] - before[1]


def test_holding_units_and_giving_them_back_touches_no_index() -> None:
    variant_ids = _stocked()
    before = _updates()

    changed = _trade(variant_ids)

    assert _since(before) == (changed, changed)


def test_a_hundred_orders_for_one_variant_touch_no_index() -> None:
    variant_id = _stocked()[0]
    before = _updates()

    for number in range(40):
        with _counted() as session:
            reservations.reserve(session, f"order-{number}", {variant_id: 1})
    with _counted() as session:
        inventory.receive(session, variant_id, 60)
    with _counted() as session:
        wanted = [reservations.HoldRequest(f"order-{number}", {variant_id: 1}) for number in range(40, 100)]
        reservations.reserve_many(session, wanted)

    assert _since(before) == (42, 42)


def test_a_sale_changes_no_variant() -> None:
    variant_ids = _stocked()
    with _counted() as session:
        hold = reservations.reserve(session, "order-1", dict.fromkeys(variant_ids, 1))
    before = _updates()

    with _counted() as session:
        reservations.confirm(session, hold.id, "payment-1")

    assert _since(before) == (0, 0)


def test_with_an_index_on_what_a_hold_changes_every_update_touches_it() -> None:
    variant_ids = _stocked()
    change("CREATE INDEX ix_variants_stock_qty ON variants (stock_qty)")
    before = _updates()

    changed = _trade(variant_ids)

    assert _since(before) == (changed, 0)


def test_without_room_in_the_page_some_updates_touch_indexes() -> None:
    change("ALTER TABLE variants SET (fillfactor = 100)")
    variant_ids = _stocked()
    before = _updates()

    changed = _trade(variant_ids)

    updates, hot = _since(before)
    assert updates == changed
    assert hot < changed
