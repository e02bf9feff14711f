"""Bad input is refused by an error of its own that names it, before anything is written or locked."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from db import inventory, reservations
from db.errors import (
    HarborError,
    InvalidBudget,
    InvalidHold,
    InvalidId,
    InvalidInput,
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


# ---- confirm, release, expire_due ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reservation_id", NOT_IDS, ids=brief)
@pytest.mark.parametrize(
    "call",
    [lambda session, bad: reservations.confirm(session, bad, PAYMENT), reservations.release],
    ids=["confirm", "release"],
)
def test_a_bad_reservation_id_is_refused(call: Callable[..., object], reservation_id: object) -> None:
    error = refusal(call, reservation_id)

    assert type(error) is InvalidId
    assert error.ids["field"] == "reservation_id"


@pytest.mark.parametrize("payment_ref", NOT_TEXTS, ids=brief)
def test_a_bad_payment_is_refused(payment_ref: object) -> None:
    hold = reserved("order-1", {make_variant(stock=5): 1})

    error = refusal(reservations.confirm, hold.id, payment_ref)

    assert type(error) is InvalidText
    assert error.ids["field"] == "payment_ref"


def test_a_bad_payment_is_not_repeated() -> None:
    error = refusal(reservations.confirm, MISSING, "4111-1111-1111-1111\0")

    assert "4111" not in f"{error} {error.ids}"


@pytest.mark.parametrize("limit", NOT_LIMITS, ids=brief)
def test_a_bad_limit_is_refused(limit: object) -> None:
    error = refusal(reservations.expire_due, limit)

    assert type(error) is InvalidLimit
    assert error.ids["most"] == 5_000
    assert "limit must be an integer from 1 to 5000" in str(error)


# ---- inventory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qty", NOT_QUANTITIES, ids=brief)
@pytest.mark.parametrize("call", [inventory.receive, inventory.take_back])
def test_a_bad_quantity_is_not_moved(call: Callable[..., object], qty: object) -> None:
    variant_id = make_variant(stock=5)

    error = refusal(call, variant_id, qty)

    assert type(error) is InvalidQuantity
    assert (error.ids["field"], error.ids["variant_id"]) == ("qty", variant_id)


@pytest.mark.parametrize("change", [0, True, False, 1.0, "1", None, 2**31, -(2**31), 10**5_000], ids=brief)
def test_a_bad_adjustment_is_refused(change: object) -> None:
    variant_id = make_variant(stock=5)

    error = refusal(inventory.adjust, variant_id, change, reason="counted")

    assert type(error) is InvalidQuantity
    assert f"qty of variant {variant_id} must be an integer from -2147483647 to 2147483647, not 0" in str(error)


@pytest.mark.parametrize("variant_id", [*NOT_IDS, [1, "a"], {}], ids=brief)
@pytest.mark.parametrize(
    "call",
    [
        lambda session, bad: inventory.receive(session, bad, 1),
        lambda session, bad: inventory.adjust(session, bad, 1, reason="counted"),
        lambda session, bad: inventory.take_back(session, bad, 1),
    ],
    ids=["receive", "adjust", "take_back"],
)
def test_a_bad_variant_id_is_not_moved(call: Callable[..., object], variant_id: object) -> None:
    error = refusal(call, variant_id)

    assert type(error) is InvalidId
    assert error.ids["field"] == "variant_id"


@pytest.mark.parametrize("reason", ["", " ", "x" * 2_001, "a\0b", "\udfff", b"counted", 7])
@pytest.mark.parametrize("call", [inventory.receive, inventory.adjust, inventory.take_back])
def test_a_bad_reason_is_refused(call: Callable[..., object], reason: object) -> None:
    error = refusal(call, make_variant(stock=5), 1, reason=reason)

    assert type(error) is InvalidText
    assert error.ids["field"] == "reason"


def test_an_adjustment_without_a_reason_is_refused() -> None:
    error = refusal(inventory.adjust, make_variant(stock=5), 1, reason=None)

    assert type(error) is InvalidText


@pytest.mark.parametrize("reservation_id", [bad for bad in NOT_IDS if bad is not None], ids=brief)
def test_a_bad_reservation_id_is_not_taken_back(reservation_id: object) -> None:
    error = refusal(inventory.take_back, make_variant(stock=5), 1, reservation_id=reservation_id)

    assert type(error) is InvalidId
    assert error.ids["field"] == "reservation_id"


@pytest.mark.parametrize("product_id", NOT_IDS, ids=brief)
@pytest.mark.parametrize("call", [inventory.archive, inventory.delete_product])
def test_a_bad_product_id_is_refused(call: Callable[..., object], product_id: object) -> None:
    error = refusal(call, product_id)

    assert type(error) is InvalidId
    assert error.ids["field"] == "product_id"


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"after": -1}, InvalidId),
        ({"after": False}, InvalidId),
        ({"after": 0.0}, InvalidId),
        ({"after": 2**63}, InvalidId),
        ({"page": 0}, InvalidLimit),
        ({"page": 100_001}, InvalidLimit),
        ({"page": True}, InvalidLimit),
        ({"budget": 5}, InvalidBudget),
        ({"budget": "5 s"}, InvalidBudget),
    ],
)
def test_a_reconciliation_of_nonsense_is_refused(told: dict[str, Any], kind: type[InvalidInput]) -> None:
    with pytest.raises(InvalidInput) as refused:
        inventory.reconcile(**told)

    assert type(refused.value) is kind
    assert refused.value.ids["field"] == next(iter(told))
