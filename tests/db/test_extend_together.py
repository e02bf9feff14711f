"""Who makes a hold longer while another ends it: the first to commit decides, and the other sees it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from db import reservations
from db.errors import (
    InsufficientStock,
    ReservationExpired,
)
from db.session import transaction
from tests.db.clock import at
from tests.db.holds import broken, extended, reserved, state_of, swept
from tests.db.sql import eventually, make_due, meanwhile, rows, somebody_waits_for_a_lock
from tests.factories import make_variant, stock_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from db.reservations import Hold

pytestmark = pytest.mark.usefixtures("database")

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def _lasts(reservation_id: int) -> tuple[datetime, int]:
    """When a hold ends and how often it was extended, as its row says it."""
    found = rows("SELECT expires_at, extend_count FROM stock_reservations WHERE id = :id", id=reservation_id)
    return found[0][0], found[0][1]


def _hold(most: timedelta = timedelta(hours=2)) -> Hold:
    """Commit a hold on 2 of 5 units that lasts 15 minutes and can last `most`."""
    variant_id = make_variant(stock=5)
    with transaction() as session:
        return reservations.reserve(session, "order-1", {variant_id: 2}, max_hold=most)


def _extend_before_its_end(hold: Hold) -> Hold:
    """Extend a hold from a moment at which it still lives, though a sweep has a later one."""
    with at(hold.expires_at - MINUTE) as session:
        return reservations.extend(session, hold.id, hold=HOUR)


def _sweep_after_its_end(hold: Hold) -> int:
    with at(hold.expires_at) as session:
        return reservations.expire_due(session)


def test_an_extension_does_not_wait_for_a_sweep_that_closes_the_hold() -> None:
    hold = _hold()
    make_due(hold.id)

    with transaction() as session:
        reservations.expire_due(session)
        with pytest.raises(ReservationExpired):
            extended(hold.id)


def test_an_extension_that_comes_when_a_sweep_has_the_hold_is_told_that_it_expired() -> None:
    hold = _hold()

    with ThreadPoolExecutor(1) as other:
        with at(hold.expires_at) as session:
            reservations.expire_due(session)
            late = other.submit(_extend_before_its_end, hold)
            eventually(somebody_waits_for_a_lock)
        refused = late.exception()

    assert type(refused) is ReservationExpired
    assert state_of(hold.id) == "expired"
    assert broken() == []


def test_a_sweep_passes_over_a_hold_that_is_being_extended_and_then_finds_it_not_due() -> None:
    hold = _hold()

    with at(hold.expires_at - MINUTE) as session:
        longer = reservations.extend(session, hold.id, hold=HOUR)
        during = _sweep_after_its_end(hold)
    after = _sweep_after_its_end(hold)

    assert (during, after) == (0, 0)
    assert state_of(hold.id) == "held"
    assert _sweep_after_its_end(longer) == 1


def test_a_buyer_who_waits_for_a_hold_that_is_being_extended_does_not_get_its_units() -> None:
    variant_id = make_variant(stock=2)
    hold = reserved("order-1", {variant_id: 2})

    def buy() -> None:
        with at(hold.expires_at) as session:
            reservations.reserve(session, "order-2", {variant_id: 1})

    with ThreadPoolExecutor(1) as other:
        with at(hold.expires_at - MINUTE) as session:
            reservations.extend(session, hold.id, hold=HOUR)
            buyer = other.submit(buy)
            eventually(somebody_waits_for_a_lock)
        refused = buyer.exception()

    assert isinstance(refused, InsufficientStock)
    assert state_of(hold.id) == "held"
    assert stock_of(variant_id) == 0


def test_two_extensions_at_once_leave_the_longer_one() -> None:
    hold = _hold()

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            longer = reservations.extend(session, hold.id, hold=HOUR)
            waiting = other.submit(extended, hold.id, timedelta(minutes=30))
            eventually(somebody_waits_for_a_lock)

        assert waiting.result() == longer
    assert _lasts(hold.id) == (longer.expires_at, 1)
    assert swept() == 0


def _keep_one(session: Session, reservation_id: int) -> Hold:
    lines = reservations.show(session, reservation_id).lines
    return reservations.release(session, reservation_id, keep={lines[0].variant_id: 1})


def _confirm(session: Session, reservation_id: int) -> Hold:
    return reservations.confirm(session, reservation_id, "payment-1")


@pytest.mark.parametrize(
    ("call", "state"), [(_confirm, "confirmed"), (reservations.release, "released"), (_keep_one, "held")]
)
def test_a_hold_that_is_extended_at_its_very_end_is_not_called_expired(
    call: Callable[[Session, int], Hold], state: str
) -> None:
    hold = _hold()

    # It comes a moment too late, and before it asks why, an extension that began in time is committed.
    with meanwhile("AS over", lambda: _extend_before_its_end(hold)), at(hold.expires_at) as session:
        call(session, hold.id)

    assert state_of(hold.id) == state
    assert broken() == []
