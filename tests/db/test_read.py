"""What there is to know about holds: pages that end where the next begins, and one hold with all it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from db import inventory, reservations
from db.errors import InvalidInput, ReservationNotFound, VariantNotFound
from db.reservations import HoldState
from db.session import snapshot
from tests.db.holds import MISSING, PAYMENT, hold_in, many_due
from tests.db.sql import change, rows
from tests.factories import make_variant, make_variants

if TYPE_CHECKING:
    from db.reservations import ListedHold

pytestmark = pytest.mark.usefixtures("database")

STATES = ["held", "due", "confirmed", "released", "expired"]


def page(**told: Any) -> list[ListedHold]:
    with snapshot() as session:
        return reservations.page(session, **told)


@pytest.fixture
def holds() -> dict[str, int]:
    """A hold in each state: what stands for it, and its id."""
    first, second = make_variants(2, stock=20)
    return {state: hold_in(state, f"order-{state}", {first: 2, second: 1}) for state in reversed(STATES)}


# ---- pages -----------------------------------------------------------------------------------------------------------


def test_a_page_has_the_newest_first(holds: dict[str, int]) -> None:
    found = page()

    assert [hold.id for hold in found] == [holds[state] for state in STATES]
    assert [hold.state for hold in found] == ["held", "held", "confirmed", "released", "expired"]
    assert [hold.due for hold in found] == [False, True, False, False, False]
    assert {(hold.lines, hold.units) for hold in found} == {(2, 3)}
    assert [hold.resolved_at is None for hold in found] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("told", "states"),
    [
        ({"state": HoldState.HELD}, ["held", "due"]),
        ({"state": HoldState.EXPIRED}, ["expired"]),
        ({"due": True}, ["due"]),
        ({"order_id": "order-confirmed"}, ["confirmed"]),
        ({"order_id": "order-confirmed", "due": True}, []),
        ({"order_id": "order-other"}, []),
        ({"limit": 2}, ["held", "due"]),
    ],
)
def test_a_page_has_what_was_asked_for(holds: dict[str, int], told: dict[str, Any], states: list[str]) -> None:
    assert [hold.id for hold in page(**told)] == [holds[state] for state in states]


def test_pages_that_follow_each_other_have_every_hold_once() -> None:
    many_due(25, {make_variant(): 1})
    seen: list[int] = []

    while found := page(limit=10, after=seen[-1] if seen else None):
        seen += [hold.id for hold in found]

    assert seen == [number for (number,) in rows("SELECT id FROM stock_reservations ORDER BY id DESC")]


@pytest.mark.parametrize("told", [{"limit": 0}, {"limit": 1_001}, {"after": 0}, {"after": True}, {"order_id": ""}])
def test_a_page_of_nonsense_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        page(**told)

    assert refused.value.ids["field"] == next(iter(told))


# ---- one hold --------------------------------------------------------------------------------------------------------


def test_one_hold_is_shown_with_its_lines() -> None:
    first, second = make_variants(2, stock=5)
    reservation_id = hold_in("confirmed", "order-1", {second: 2, first: 3})
    change("UPDATE stock_reservation_lines SET released_qty = 1 WHERE variant_id = :id", id=second)
    skus = [sku for (sku,) in rows("SELECT sku FROM variants ORDER BY id")]

    with snapshot() as session:
        found = reservations.show(session, reservation_id)

    lines = [(line.variant_id, line.sku, line.qty, line.released_qty) for line in found.lines]
    assert (found.id, found.order_id, found.state, found.payment_ref) == (
        reservation_id,
        "order-1",
        "confirmed",
        PAYMENT,
    )
    assert lines == [(first, skus[0], 3, 0), (second, skus[1], 2, 1)]


@pytest.mark.parametrize(("state", "due"), [("held", False), ("due", True), ("expired", False)])
def test_one_hold_says_whether_its_time_is_over_and_no_sweep_has_come_by(state: str, due: bool) -> None:
    reservation_id = hold_in(state, "order-1", {make_variant(stock=5): 1})

    with snapshot() as session:
        assert reservations.show(session, reservation_id).due is due


def test_a_hold_that_does_not_exist_is_named() -> None:
    with pytest.raises(ReservationNotFound) as refused, snapshot() as session:
        reservations.show(session, MISSING)

    assert refused.value.ids == {"reservation_id": MISSING}


# ---- a variant by its sku --------------------------------------------------------------------------------------------


def test_a_variant_is_found_by_its_sku() -> None:
    first, second = make_variants(2)
    skus = dict(rows("SELECT sku, id FROM variants"))

    with snapshot() as session:
        found = {inventory.variant_id_of(session, sku) for sku in skus}

    assert found == {first, second}


def test_a_sku_that_nothing_has_is_named() -> None:
    with pytest.raises(VariantNotFound, match="HBR-NONE"), snapshot() as session:
        inventory.variant_id_of(session, "HBR-NONE")
