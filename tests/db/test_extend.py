"""A hold's time is made longer while it lasts: never shorter, never once it is over, never beyond its maximum."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from db import reservations
from db.errors import (
    HarborError,
    ReservationConfirmed,
    ReservationExpired,
    ReservationNotFound,
    ReservationReleased,
)
from db.session import transaction
from tests.db.clock import at
from tests.db.holds import broken, extended, hold_in, kept, reserved
from tests.db.sql import change, everything, rows, touched_nothing
from tests.factories import make_variant, stock_of

if TYPE_CHECKING:
    from datetime import datetime

    from db.reservations import Hold

pytestmark = pytest.mark.usefixtures("database")

MICROSECOND = timedelta.resolution
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


# ---- in every state --------------------------------------------------------------------------------------------------


def test_a_live_hold_lasts_for_that_long_from_now() -> None:
    hold = _hold()

    with at(hold.expires_at - MINUTE) as session:
        longer = reservations.extend(session, hold.id, hold=HOUR)

    assert longer == reservations.Hold(hold.id, "order-1", reservations.HoldState.HELD, hold.expires_at - MINUTE + HOUR)
    assert _lasts(hold.id) == (longer.expires_at, 1)


def test_without_a_length_it_lasts_for_the_usual_time_from_now() -> None:
    hold = _hold()

    with at(hold.expires_at - MINUTE) as session:
        longer = reservations.extend(session, hold.id)

    assert longer.expires_at == hold.expires_at - MINUTE + reservations.DEFAULT_HOLD


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("due", ReservationExpired),
        ("confirmed", ReservationConfirmed),
        ("released", ReservationReleased),
        ("expired", ReservationExpired),
        ("missing", ReservationNotFound),
    ],
)
def test_a_hold_that_is_over_stays_over(state: str, error: type[HarborError]) -> None:
    reservation_id = hold_in(state, "order-1", {make_variant(stock=5): 2})
    before = everything()

    with transaction() as session:
        with pytest.raises(HarborError) as refused:
            reservations.extend(session, reservation_id)
        untouched = touched_nothing(session)

    assert type(refused.value) is error
    assert refused.value.ids == {"reservation_id": reservation_id}
    assert untouched
    assert everything() == before


def test_an_extension_moves_no_units() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    extended(hold.id, HOUR)

    assert stock_of(variant_id) == 3
    assert broken() == []


def test_an_extension_is_the_callers_to_commit() -> None:
    hold = _hold()

    with transaction() as session:
        reservations.extend(session, hold.id, hold=HOUR)
        session.rollback()

    assert _lasts(hold.id) == (hold.expires_at, 0)


def test_what_a_hold_keeps_of_its_units_can_last_longer_too() -> None:
    variant_id = make_variant(stock=5)
    hold = kept(reserved("order-1", {variant_id: 2}).id, {variant_id: 1})

    assert extended(hold.id, HOUR).expires_at > hold.expires_at


# ---- never shorter, never too long -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shorter", [MICROSECOND, MINUTE, timedelta(minutes=15)])
def test_a_hold_that_lasts_longer_already_is_left_alone(shorter: timedelta) -> None:
    hold = _hold()

    # At the moment of the last case both end at the same time.
    with at(hold.expires_at - timedelta(minutes=15)) as session:
        same = reservations.extend(session, hold.id, hold=shorter)
        untouched = touched_nothing(session)

    assert same == hold
    assert untouched
    assert _lasts(hold.id) == (hold.expires_at, 0)


@pytest.mark.parametrize("asked", [timedelta(minutes=30), HOUR, timedelta(days=30)])
def test_a_hold_never_lasts_beyond_its_maximum_and_there_a_repeat_writes_nothing(asked: timedelta) -> None:
    hold = _hold(timedelta(minutes=16))
    longer = extended(hold.id, asked)

    with transaction() as session:
        again = reservations.extend(session, hold.id, hold=asked)
        untouched = touched_nothing(session)

    assert longer.expires_at == hold.expires_at + MINUTE
    assert again == longer
    assert untouched
    assert _lasts(hold.id) == (longer.expires_at, 1)


def test_extensions_are_counted_and_the_count_ends_before_the_hold_does() -> None:
    hold = _hold()
    for minutes in (20, 30, 40):
        extended(hold.id, timedelta(minutes=minutes))
    counted = _lasts(hold.id)[1]
    change("UPDATE stock_reservations SET extend_count = 32766")

    longer = [extended(hold.id, timedelta(minutes=minutes)) for minutes in (50, 60)]

    assert counted == 3
    assert _lasts(hold.id) == (longer[1].expires_at, 32_767)
    assert longer[1].expires_at > longer[0].expires_at


# ---- the very moment -------------------------------------------------------------------------------------------------


def test_a_microsecond_before_its_end_a_hold_can_last_longer() -> None:
    hold = _hold()

    with at(hold.expires_at - MICROSECOND) as session:
        longer = reservations.extend(session, hold.id, hold=MINUTE)

    assert longer.expires_at == hold.expires_at - MICROSECOND + MINUTE


def test_at_the_very_moment_a_hold_ends_it_can_not_last_longer() -> None:
    hold = _hold()

    with at(hold.expires_at) as session:
        with pytest.raises(ReservationExpired):
            reservations.extend(session, hold.id, hold=MINUTE)
        untouched = touched_nothing(session)

    assert untouched
