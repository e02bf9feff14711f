"""What is asked of reserve is checked and brought into one order before the first statement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from functools import partial
from inspect import signature
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.errors import (
    InvalidHold,
    InvalidId,
    InvalidInput,
    InvalidKeep,
    InvalidLines,
    InvalidQuantity,
    InvalidText,
    TooManyVariants,
)
from db.reservations import HoldRequest, reserve
from db.reservations.request import MAX_VARIANTS, Request, checked_lines, duration_problem, hash_of

if TYPE_CHECKING:
    from random import Random

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
LINES = st.dictionaries(st.integers(1, 2**63 - 1), st.integers(1, 2**31 - 1), min_size=1, max_size=20)


def request(lines: object, order_id: object = "order-1") -> Request:
    return Request.checked(order_id, lines, MINUTE, HOUR)


# ---- what is right ---------------------------------------------------------------------------------------------------


def test_variants_are_in_the_order_in_which_they_are_locked() -> None:
    asked = request({30: 3, 4: 1, 11: 2})

    assert (asked.variant_ids, asked.qtys) == ([4, 11, 30], [1, 2, 3])


def test_a_request_keeps_what_was_asked() -> None:
    asked = Request.checked("order-1", {4: 1}, MINUTE, HOUR)

    assert (asked.order_id, asked.lines, asked.hold, asked.max_hold) == ("order-1", {4: 1}, MINUTE, HOUR)


@pytest.mark.parametrize(
    ("hold", "max_hold"),
    [
        (timedelta.resolution, timedelta.resolution),
        (HOUR, HOUR),
        (timedelta(days=30), timedelta(days=30)),
    ],
)
def test_a_hold_may_be_as_long_as_it_may_become(hold: timedelta, max_hold: timedelta) -> None:
    assert Request.checked("order-1", {4: 1}, hold, max_hold).hold == hold


@pytest.mark.parametrize("lines", [MappingProxyType({4: 1}), {2**63 - 1: 2**31 - 1}])
def test_lines_may_be_any_mapping_and_as_large_as_the_columns(lines: Mapping[int, int]) -> None:
    assert request(lines).lines == dict(lines)


def test_an_order_may_have_1000_variants() -> None:
    assert len(request(dict.fromkeys(range(1, MAX_VARIANTS + 1), 1)).lines) == 1_000


def test_a_request_is_not_changed_by_what_its_caller_does_later() -> None:
    lines = {4: 1}
    asked = request(lines)

    lines[4] = 99

    assert asked.lines == {4: 1}


def test_a_wish_of_a_batch_lasts_as_long_as_one_that_comes_alone() -> None:
    alone = signature(reserve).parameters
    wish = HoldRequest("order-1", {4: 1})

    assert (wish.hold, wish.max_hold) == (alone["hold"].default, alone["max_hold"].default)
    assert [field.name for field in fields(wish)] == [name for name in alone if name != "session"]


# ---- the hash --------------------------------------------------------------------------------------------------------


@given(LINES, st.randoms())
def test_the_same_lines_in_any_order_have_the_same_hash(lines: dict[int, int], chance: Random) -> None:
    items = list(lines.items())
    chance.shuffle(items)

    assert request(dict(items)).request_hash == request(lines).request_hash


@given(LINES, LINES)
def test_other_lines_have_another_hash(lines: dict[int, int], others: dict[int, int]) -> None:
    assert (request(lines).request_hash == request(others).request_hash) is (lines == others)


@pytest.mark.parametrize(
    ("lines", "others"),
    [({1: 23}, {12: 3}), ({1: 2, 3: 4}, {1: 23, 4: 4}), ({1: 1}, {1: 11}), ({1: 1, 2: 1}, {1: 1})],
)
def test_numbers_that_read_alike_have_another_hash(lines: dict[int, int], others: dict[int, int]) -> None:
    assert request(lines).request_hash != request(others).request_hash


def test_only_the_lines_are_hashed() -> None:
    longer = Request.checked("order-2", {4: 1}, HOUR, HOUR)

    assert longer.request_hash == request({4: 1}).request_hash


@given(LINES)
def test_what_is_kept_of_a_hold_has_the_hash_of_a_wish_for_it(lines: dict[int, int]) -> None:
    assert hash_of(checked_lines(lines, InvalidKeep)) == request(lines).request_hash


# ---- what is wrong ---------------------------------------------------------------------------------------------------


class Endless(Mapping[int, int]):
    """More lines than there is memory for: only a check of their number comes back."""

    def __getitem__(self, key: int) -> int:
        return 1

    def __len__(self) -> int:
        return 2**31

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("nobody may read them")


def test_too_many_lines_are_counted_and_not_read() -> None:
    with pytest.raises(TooManyVariants) as refused:
        request(Endless())

    assert refused.value.ids == {"order_id": "order-1", "count": 2**31, "limit": 1_000}


@pytest.mark.parametrize(
    ("order_id", "lines", "hold", "max_hold", "error", "field"),
    [
        ("", {0: 0}, None, None, InvalidText, "order_id"),
        ("order-1", {0: 0}, None, None, InvalidId, "variant_id"),
        ("order-1", {4: 0}, None, None, InvalidQuantity, "qty"),
        ("order-1", {4: 1}, None, None, InvalidHold, "max_hold"),
        ("order-1", {4: 1}, None, HOUR, InvalidHold, "hold"),
        ("order-1", {4: 1}, HOUR, MINUTE, InvalidHold, "hold"),
        ("order-1", {4: 1}, MINUTE, timedelta(days=30, microseconds=1), InvalidHold, "max_hold"),
    ],
)
def test_the_first_field_that_is_wrong_is_named(
    order_id: object, lines: object, hold: object, max_hold: object, error: type[InvalidInput], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        Request.checked(order_id, lines, hold, max_hold)

    assert type(refused.value) is error
    assert refused.value.ids["field"] == field


@pytest.mark.parametrize("lines", [{}, [], [(4, 1)], None, 4, "4", {4}])
def test_who_asks_for_lines_says_how_they_are_refused(lines: object) -> None:
    with pytest.raises(InvalidKeep) as refused:
        checked_lines(lines, partial(InvalidKeep, reservation_id=7))

    assert refused.value.ids["reservation_id"] == 7
    assert refused.value.ids["problem"].startswith("must map" if lines != {} else "must name at least one variant")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (MINUTE, None),
        (HOUR, None),
        (timedelta.resolution, None),
        (timedelta(0), "must be longer than zero"),
        (timedelta.min, "must be longer than zero"),
        (HOUR + timedelta.resolution, "must be at most 1:00:00"),
        (timedelta.max, "must be at most 1:00:00"),
        (60, "must be a timedelta"),
        (None, "must be a timedelta"),
    ],
)
def test_a_duration_is_a_timedelta_above_zero_and_up_to_a_most(value: object, problem: str | None) -> None:
    assert duration_problem(value, HOUR).get("problem") == problem


@pytest.mark.parametrize("lines", [{}, [], [(4, 1)], None, 4, "4", {4}])
def test_lines_must_map_at_least_one_variant(lines: object) -> None:
    with pytest.raises(InvalidLines):
        request(lines)


@pytest.mark.parametrize("variant_id", [True, 4.0, "4", None, 0, -4, 2**63])
def test_a_variant_id_is_a_positive_integer_of_63_bits(variant_id: object) -> None:
    with pytest.raises(InvalidId):
        request({variant_id: 1})


@pytest.mark.parametrize("qty", [True, 1.0, "1", None, 0, -1, 2**31])
def test_a_quantity_is_a_positive_integer_of_31_bits(qty: object) -> None:
    with pytest.raises(InvalidQuantity) as refused:
        request({4: qty})

    assert refused.value.ids["variant_id"] == 4
