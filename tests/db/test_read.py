"""What there is to know about holds and refunds: pages that end where the next begins, one hold with all it has."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from db import inventory, reservations
from db.errors import InvalidInput, ReservationNotFound, VariantNotFound
from db.reservations import Hold, HoldState, RefundReason, RefundRequired
from db.reservations.read import refunds
from db.session import snapshot
from tests.db.holds import MISSING, PAYMENT, extended, hold_in, kept, many_due, paid, released, reserved
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


def test_a_page_counts_what_a_hold_still_has_or_had_at_its_end() -> None:
    first, second = make_variants(2, stock=20)
    held, ended = (reserved(order_id, {first: 5, second: 3}).id for order_id in ("order-1", "order-2"))
    for reservation_id in (held, ended):
        kept(reservation_id, {first: 2})
    released(ended)

    found = page()

    assert [(hold.id, hold.state, hold.lines, hold.units) for hold in found] == [
        (ended, "released", 1, 2),
        (held, "held", 1, 2),
    ]


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


def test_one_hold_says_that_it_was_made_longer_and_smaller() -> None:
    first, second = make_variants(2, stock=5)
    hold = kept(reserved("order-1", {first: 3, second: 2}).id, {first: 1})
    longer = extended(hold.id, timedelta(hours=1))

    with snapshot() as session:
        found = reservations.show(session, hold.id)

    assert [(line.variant_id, line.qty, line.released_qty) for line in found.lines] == [(first, 3, 2), (second, 2, 2)]
    assert (found.state, found.expires_at, found.extend_count) == ("held", longer.expires_at, 1)
    assert found.max_expires_at - found.created_at == reservations.DEFAULT_MAX_HOLD


def test_one_hold_says_which_one_it_was_revived_from() -> None:
    old = hold_in("expired", "order-1", {make_variant(stock=5): 2})
    answer = paid(old)
    assert isinstance(answer, Hold)

    with snapshot() as session:
        found = [reservations.show(session, reservation_id) for reservation_id in (old, answer.id)]

    assert [(hold.state, hold.payment_ref, hold.revived_from) for hold in found] == [
        ("expired", None, None),
        ("confirmed", PAYMENT, old),
    ]


@pytest.mark.parametrize(("state", "due"), [("held", False), ("due", True), ("expired", False)])
def test_one_hold_says_whether_its_time_is_over_and_no_sweep_has_come_by(state: str, due: bool) -> None:
    reservation_id = hold_in(state, "order-1", {make_variant(stock=5): 1})

    with snapshot() as session:
        assert reservations.show(session, reservation_id).due is due


def test_a_hold_that_does_not_exist_is_named() -> None:
    with pytest.raises(ReservationNotFound) as refused, snapshot() as session:
        reservations.show(session, MISSING)

    assert refused.value.ids == {"reservation_id": MISSING}


# ---- refunds ---------------------------------------------------------------------------------------------------------


def refund_pages(limit: int) -> list[list[str]]:
    """The payments of every page, by one page after the other."""
    pages: list[list[str]] = []
    with snapshot() as session:
        while found := refunds(session, limit=limit, after=pages[-1][-1] if pages else None):
            pages.append([refund.payment_ref for refund in found])
    return pages


def test_a_refund_is_listed_with_all_that_is_needed_to_make_it() -> None:
    variant_id = make_variant(stock=1)
    ended = hold_in("released", "order-1", {variant_id: 1})
    reserved("order-2", {variant_id: 1})
    answer = paid(ended)

    with snapshot() as session:
        (found,) = refunds(session)

    assert answer == RefundRequired(ended, "order-1", RefundReason.SOLD_OUT, [variant_id], PAYMENT)
    assert (found.payment_ref, found.order_id, found.reservation_id) == (PAYMENT, "order-1", ended)
    assert (found.reason, found.variant_ids) == (RefundReason.SOLD_OUT, [variant_id])
    assert PAYMENT not in repr(found)


def test_pages_of_refunds_that_follow_each_other_have_every_refund_once() -> None:
    change(
        """INSERT INTO required_refunds (payment_ref, reservation_id, order_id, reason, variant_ids, created_at)
           SELECT 'payment-' || number, number, 'order', 'sold_out', '{}', now() - number / 3 * interval '1 second'
             FROM generate_series(1, 20) AS number"""
    )
    newest = [ref for (ref,) in rows("SELECT payment_ref FROM required_refunds ORDER BY created_at DESC, 1 DESC")]

    assert refund_pages(6) == [newest[:6], newest[6:12], newest[12:18], newest[18:]]
    assert refund_pages(20) == [newest]


@pytest.mark.parametrize("told", [{"limit": 0}, {"limit": 1_001}, {"after": ""}, {"after": 7}, {"after": "s3cret"}])
def test_a_page_of_refunds_of_nonsense_is_refused_and_says_no_payment(told: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused, snapshot() as session:
        refunds(session, **told)

    assert refused.value.ids["field"] == next(iter(told))
    assert "s3cret" not in str(refused.value)


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
