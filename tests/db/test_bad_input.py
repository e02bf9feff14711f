"""Bad input is refused by an error of its own that names it, before anything is written or locked."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from db import reservations
from db.errors import (
    HarborError,
    InvalidHold,
    InvalidId,
    InvalidLimit,
    InvalidLines,
    InvalidQuantity,
    InvalidText,
    TooManyVariants,
    VariantArchived,
    VariantNotFound,
)
from db.session import transaction
from tests.db.holds import MISSING, PAYMENT, reserved
from tests.db.sql import everything, touched_nothing, value
from tests.factories import make_variant

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("database")

NOT_QUANTITIES = [0, -1, True, False, 1.0, "1", None, 2**31, 10**5_000, float("nan"), [1], b"1"]
NOT_IDS = [0, -1, True, 1.0, "1", None, 2**63, 10**5_000, b"1", (1,)]
NOT_TEXTS = ["", " \t\n", "x" * 201, "a\0b", "half \ud83d", b"order-1", 7, None, True, ["order-1"]]
NOT_LIMITS = [0, -1, 5_001, True, 1.0, "1", None, 10**5_000]
NOT_DURATIONS = [
    timedelta(0),
    timedelta(microseconds=-1),
    timedelta.min,
    timedelta.max,
    900,
    900.0,
    "15 min",
    None,
    True,
]


def refusal(call: Callable[..., object], *arguments: Any, **more: Any) -> HarborError:
    """The error that a call gives; neither the call nor anything before it wrote or locked a row."""
    before = everything()
    with transaction() as session:
        with pytest.raises(HarborError) as refused:
            call(session, *arguments, **more)
        assert touched_nothing(session)
    assert everything() == before
    return refused.value


def brief(value_of: object) -> str:
    """A short name for a bad value, to find the case again."""
    kind = type(value_of).__name__
    return f"{kind} of {len(value_of)}" if isinstance(value_of, (str, bytes, tuple, list)) else f"{kind}"


# ---- reserve ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qty", NOT_QUANTITIES, ids=brief)
def test_a_bad_quantity_is_refused(qty: object) -> None:
    good, bad = make_variant(stock=5), make_variant(stock=5)

    error = refusal(reservations.reserve, "order-1", {good: 1, bad: qty})

    assert type(error) is InvalidQuantity
    assert error.ids["variant_id"] == bad
    assert f"qty of variant {bad} must be an integer from 1 to 2147483647" in str(error)


@pytest.mark.parametrize("variant_id", NOT_IDS, ids=brief)
def test_a_bad_variant_id_is_refused(variant_id: object) -> None:
    error = refusal(reservations.reserve, "order-1", {variant_id: 1})

    assert type(error) is InvalidId
    assert error.ids["field"] == "variant_id"


def test_a_variant_that_does_not_exist_is_refused() -> None:
    error = refusal(reservations.reserve, "order-1", {make_variant(stock=5): 1, MISSING: 1})

    assert type(error) is VariantNotFound
    assert error.ids == {"variant_ids": [MISSING]}
    assert str(MISSING) in str(error)


def test_a_variant_that_is_archived_is_refused() -> None:
    archived = make_variant(stock=5, archived=True)

    error = refusal(reservations.reserve, "order-1", {archived: 1})

    assert type(error) is VariantArchived
    assert error.ids == {"variant_ids": [archived]}
    assert str(archived) in str(error)


@pytest.mark.parametrize("lines", [{}, [], [(1, 1)], "lines", 1, None, {1}], ids=brief)
def test_bad_lines_are_refused(lines: object) -> None:
    error = refusal(reservations.reserve, "order-1", lines)

    assert type(error) is InvalidLines
    assert error.ids["order_id"] == "order-1"
    assert "lines of order order-1" in str(error)


def test_more_than_1000_variants_are_refused() -> None:
    error = refusal(reservations.reserve, "order-1", dict.fromkeys(range(1, 1_002), 1))

    assert type(error) is TooManyVariants
    assert error.ids == {"order_id": "order-1", "count": 1_001, "limit": 1_000}
    assert str(error) == "Order order-1 names 1001 variants; one hold covers at most 1000."


@pytest.mark.parametrize("order_id", NOT_TEXTS, ids=brief)
def test_a_bad_order_id_is_refused(order_id: object) -> None:
    error = refusal(reservations.reserve, order_id, {make_variant(stock=5): 1})

    assert type(error) is InvalidText
    assert error.ids["field"] == "order_id"


@pytest.mark.parametrize("field", ["hold", "max_hold"])
@pytest.mark.parametrize("duration", NOT_DURATIONS, ids=brief)
def test_a_bad_duration_is_refused(field: str, duration: object) -> None:
    error = refusal(reservations.reserve, "order-1", {make_variant(stock=5): 1}, **{field: duration})

    assert type(error) is InvalidHold
    assert (error.ids["field"], error.ids["order_id"]) == (field, "order-1")
    assert f"{field} of order order-1 must be" in str(error)


def test_a_hold_that_is_longer_than_it_may_become_is_refused() -> None:
    error = refusal(
        reservations.reserve,
        "order-1",
        {make_variant(stock=5): 1},
        hold=timedelta(minutes=2),
        max_hold=timedelta(minutes=1),
    )

    assert type(error) is InvalidHold
    assert str(error) == "hold of order order-1 must be at most 0:01:00, and was 0:02:00."


@pytest.mark.parametrize("order_id", ["x" * 200, "0", "заказ №1", "🛒" * 200, " padded ", "'; DROP TABLE variants; --"])
def test_an_order_id_of_any_other_text_is_kept_as_it_is(order_id: str) -> None:
    hold = reserved(order_id, {make_variant(stock=5): 1})

    assert hold.order_id == value("SELECT order_id FROM stock_reservations") == order_id


# ---- a hold that there is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reservation_id", NOT_IDS, ids=brief)
@pytest.mark.parametrize(
    "call",
    [
        lambda session, bad: reservations.confirm(session, bad, PAYMENT),
        lambda session, bad: reservations.confirm_or_reacquire(session, bad, PAYMENT),
        reservations.extend,
        reservations.release,
        lambda session, bad: reservations.release(session, bad, keep={1: 1}),
    ],
    ids=["confirm", "confirm_or_reacquire", "extend", "release", "release but some"],
)
def test_a_bad_reservation_id_is_refused(call: Callable[..., object], reservation_id: object) -> None:
    error = refusal(call, reservation_id)

    assert type(error) is InvalidId
    assert error.ids["field"] == "reservation_id"


@pytest.mark.parametrize("payment_ref", NOT_TEXTS, ids=brief)
@pytest.mark.parametrize("call", [reservations.confirm, reservations.confirm_or_reacquire])
def test_a_bad_payment_is_refused(call: Callable[..., object], payment_ref: object) -> None:
    hold = reserved("order-1", {make_variant(stock=5): 1})

    error = refusal(call, hold.id, payment_ref)

    assert type(error) is InvalidText
    assert error.ids["field"] == "payment_ref"


@pytest.mark.parametrize("call", [reservations.confirm, reservations.confirm_or_reacquire])
def test_a_bad_payment_is_not_repeated(call: Callable[..., object]) -> None:
    error = refusal(call, MISSING, "4111-1111-1111-1111\0")

    assert "4111" not in f"{error} {error.ids}"


@pytest.mark.parametrize("limit", NOT_LIMITS, ids=brief)
def test_a_bad_limit_is_refused(limit: object) -> None:
    error = refusal(reservations.expire_due, limit)

    assert type(error) is InvalidLimit
    assert error.ids["most"] == 5_000
    assert "limit must be an integer from 1 to 5000" in str(error)
