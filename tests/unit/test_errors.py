"""Every way in which Harbor says no: the class says what happened, the ids say to whom, and both survive a copy."""

from __future__ import annotations

import copy
import inspect
import string
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import errors
from db.errors import (
    HarborError,
    InsufficientStock,
    InvalidExtension,
    InvalidId,
    InvalidInput,
    InvalidKeep,
    InvalidQuantity,
    InvalidRequest,
    KeepsTooMuch,
    PaymentMismatch,
    PaymentToRefund,
    ProductHasHolds,
    ReservationConfirmed,
    ReservationExpired,
    ReservationReleased,
    ReservationResolved,
    SecondTransaction,
    StockTooLow,
    shown,
)

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, HarborError) and kind.__module__ == errors.__name__
]


def fields_of(kind: type[HarborError]) -> set[str]:
    """The ids that a kind's message asks for."""
    message = inspect.cleandoc(kind.__doc__ or "").split("\n\n", 1)[0]
    return {field for _, field, _, _ in string.Formatter().parse(message) if field}


# ---- what an error says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_message_of_its_own(kind: type[HarborError]) -> None:
    assert kind.__doc__
    assert "__doc__" in vars(kind)
    assert kind.__doc__.strip().split("\n\n")[0].endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_the_docstring_with_its_ids_filled_in(kind: type[HarborError]) -> None:
    error = kind(**{field: f"<{field}>" for field in fields_of(kind)})

    assert all(f"<{field}>" in str(error) for field in fields_of(kind))
    assert "{" not in str(error)
    assert "\n" not in str(error)


def test_a_message_names_the_ids_and_the_error_keeps_them() -> None:
    error = StockTooLow(variant_id=42, change=-6, stock_qty=5)

    assert str(error) == "Variant 42 cannot change by -6: it has 5 units and never goes below zero."
    assert error.ids == {"variant_id": 42, "change": -6, "stock_qty": 5}


def test_a_message_is_the_first_paragraph_only() -> None:
    error = SecondTransaction(task="orders.remind")

    assert str(error).startswith("Task orders.remind opened a second transaction()")
    assert "completion" not in str(error)


def test_a_list_of_ids_is_sorted_and_read_as_one() -> None:
    error = InsufficientStock(order_id="order-1", variant_ids=[30, 4, 11])

    assert "variant 4, 11, 30 has" in str(error)


def test_a_long_list_of_ids_is_cut_and_counted() -> None:
    error = ProductHasHolds(product_id=1, reservation_ids=list(range(100, 0, -1)))

    assert "reservations 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 90 more name" in str(error)
    assert len(error.ids["reservation_ids"]) == 100


@pytest.mark.parametrize("order_id", ["{variant_ids}", "{", "}", "{0}", "%s", "{order_id.__class__}"])
def test_an_id_is_never_taken_for_a_template(order_id: str) -> None:
    error = InsufficientStock(order_id=order_id, variant_ids=[1])

    assert str(error).startswith(f"Order {order_id} cannot be reserved: variant 1 ")


@pytest.mark.parametrize("kind", KINDS)
def test_no_message_asks_for_a_payment(kind: type[HarborError]) -> None:
    assert not any("payment" in field for field in fields_of(kind))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            KeepsTooMuch(reservation_id=7, variant_ids=[30, 4]),
            "Reservation 7 cannot keep that much: it has fewer units of variant 4, 30.",
        ),
        (
            PaymentToRefund(reservation_id=7),
            "Reservation 7 cannot be confirmed with a payment that has to be refunded.",
        ),
        (InvalidRequest(place=3, value=shown(None)), "requests[3] must be a HoldRequest, and was None."),
        (
            InvalidExtension(field="hold", reservation_id=7, problem="must be a timedelta", value=shown(900)),
            "hold for reservation 7 must be a timedelta, and was 900.",
        ),
        (
            InvalidKeep(reservation_id=7, problem="must map variant ids to units", value=shown([1])),
            "keep of reservation 7 must map variant ids to units, and was [1].",
        ),
    ],
)
def test_an_error_about_a_change_of_a_hold_names_it(error: HarborError, message: str) -> None:
    assert str(error) == message


@pytest.mark.parametrize("kind", [KeepsTooMuch, PaymentToRefund])
def test_an_error_about_a_hold_that_may_live_on_does_not_say_that_it_ended(kind: type[HarborError]) -> None:
    assert not issubclass(kind, ReservationResolved)


# ---- what it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_is_copied_between_processes_is_the_same_error(kind: type[HarborError]) -> None:
    error = kind(**dict.fromkeys(fields_of(kind), "x"))

    copied = copy.deepcopy(error)

    assert type(copied) is kind
    assert (copied.ids, str(copied)) == (error.ids, str(error))
    assert copied is not error


@pytest.mark.parametrize("kind", [ReservationExpired, ReservationReleased, ReservationConfirmed, PaymentMismatch])
def test_every_way_a_reservation_has_ended_can_be_caught_as_one(kind: type[HarborError]) -> None:
    assert issubclass(kind, ReservationResolved)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.__name__.startswith(("Invalid", "TooMany"))])
def test_every_bad_input_can_be_caught_as_one(kind: type[HarborError]) -> None:
    about_a_task = kind.__name__ in {"InvalidTask", "InvalidArgument"}

    assert issubclass(kind, InvalidInput) is not about_a_task


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), ("a\0b", r"'a\x00b'"), (True, "True"), (None, "None"), (1.5, "1.5"), ("\ud800", r"'\ud800'")],
)
def test_a_small_value_is_shown_as_python_writes_it(value: object, text: str) -> None:
    assert shown(value) == text


class Shy:
    """A value that does not want to be seen."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def nested(levels: int) -> list[object]:
    outer: list[object] = []
    for _ in range(levels):
        outer = [outer]
    return outer


@pytest.mark.parametrize(
    "value",
    ["x" * 1_000_000, b"x" * 1_000_000, 10**5_000, -(10**5_000), nested(100_000), list(range(10**6)), Shy(), object()],
    ids=["text", "bytes", "integer", "negative", "nested", "list", "shy", "object"],
)
def test_a_large_or_shy_value_is_shown_in_a_few_words(value: object) -> None:
    assert 0 < len(shown(value)) < 200


@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.integers(),
            st.floats(),
            st.text(st.characters(exclude_categories=())),
            st.binary(),
            st.builds(Decimal, st.sampled_from(["NaN", "sNaN", "-0", "1e999999"])),
        ),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.sets(st.integers()),
    )
)
def test_any_value_can_be_shown_and_printed(value: object) -> None:
    error = InvalidId(field="variant_id", value=shown(value))

    assert str(error).encode()
    assert len(shown(value)) < 2_000


def test_an_error_can_name_a_field_of_an_object() -> None:
    error = InvalidQuantity(field="qty", variant_id=7, range="from 1 to 2147483647", value=shown(0))

    assert str(error) == "qty of variant 7 must be an integer from 1 to 2147483647, and was 0."
