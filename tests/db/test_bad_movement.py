"""Units move by good input only: anything else is refused by an error that names it, and moves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from db import inventory
from db.errors import (
    InvalidBudget,
    InvalidId,
    InvalidInput,
    InvalidLimit,
    InvalidQuantity,
    InvalidText,
)
from tests.db.test_bad_input import NOT_IDS, NOT_QUANTITIES, brief, refusal
from tests.factories import make_variant

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("database")


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
