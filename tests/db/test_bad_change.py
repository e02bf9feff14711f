"""A hold is made longer or smaller by good input only; anything else is named and changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from db import reservations
from db.errors import HarborError, InvalidExtension, InvalidId, InvalidKeep, InvalidQuantity
from tests.db.holds import MISSING, hold_in, reserved
from tests.db.test_bad_input import NOT_DURATIONS, NOT_IDS, NOT_QUANTITIES, brief, refusal
from tests.factories import make_variant

if TYPE_CHECKING:
    from db.reservations import Hold

pytestmark = pytest.mark.usefixtures("database")


def _hold() -> Hold:
    return reserved("order-1", {make_variant(stock=5): 2})


# ---- longer ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duration", [*NOT_DURATIONS, timedelta(days=30, microseconds=1)], ids=brief)
def test_a_bad_extension_is_refused(duration: object) -> None:
    hold = _hold()

    error = refusal(reservations.extend, hold.id, hold=duration)

    assert type(error) is InvalidExtension
    assert (error.ids["field"], error.ids["reservation_id"]) == ("hold", hold.id)
    assert f"hold for reservation {hold.id} must be" in str(error)


def test_how_long_a_hold_can_be_extended_is_said() -> None:
    error = refusal(reservations.extend, MISSING, hold=timedelta(days=31))

    assert str(error) == f"hold for reservation {MISSING} must be at most 30 days, 0:00:00, and was 31 days, 0:00:00."


# ---- smaller ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [[], (), "", 0, False, [(1, 1)], {1}, "keep", 1, True, b"keep"], ids=repr)
def test_what_is_kept_must_map_variants_to_units(keep: object) -> None:
    hold = _hold()

    error = refusal(reservations.release, hold.id, keep=keep)

    assert type(error) is InvalidKeep
    assert error.ids["reservation_id"] == hold.id
    assert f"keep of reservation {hold.id} must map variant ids to units" in str(error)


@pytest.mark.parametrize("variant_id", NOT_IDS, ids=brief)
def test_a_bad_variant_id_is_not_kept(variant_id: object) -> None:
    hold = _hold()

    error = refusal(reservations.release, hold.id, keep={variant_id: 1})

    assert type(error) is InvalidId
    assert error.ids["field"] == "variant_id"


@pytest.mark.parametrize("qty", NOT_QUANTITIES, ids=brief)
def test_a_bad_quantity_is_not_kept(qty: object) -> None:
    variant_id, other = make_variant(stock=5), make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2, other: 2})

    error = refusal(reservations.release, hold.id, keep={variant_id: 1, other: qty})

    assert type(error) is InvalidQuantity
    assert error.ids["variant_id"] == other


# ---- first things first ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["due", "confirmed", "released", "expired", "missing"])
def test_bad_input_is_named_before_the_state_of_the_hold(state: str) -> None:
    reservation_id = hold_in(state, "order-1", {make_variant(stock=5): 2})

    errors: list[HarborError] = [
        refusal(reservations.extend, reservation_id, hold=timedelta(0)),
        refusal(reservations.release, reservation_id, keep={0: 1}),
    ]

    assert [type(error) for error in errors] == [InvalidExtension, InvalidId]
