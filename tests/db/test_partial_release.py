"""Part of a hold is given back and the rest lives on. What stays is said, so that the same call again does nothing."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from db import reservations
from db.errors import (
    HarborError,
    KeepsTooMuch,
    ReservationConfirmed,
    ReservationExpired,
    ReservationNotFound,
    ReservationReleased,
)
from db.session import transaction
from tests.db.clock import at
from tests.db.holds import (
    MISSING,
    broken,
    hold_in,
    kept,
    lines_of,
    reserved,
)
from tests.db.sql import everything, rows, touched_nothing
from tests.factories import make_variant, make_variants, stock_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

pytestmark = pytest.mark.usefixtures("database")


# ---- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "stock"),
    [((3, 2), (2, 3)), ((3, 1), (2, 4)), ((1, 1), (4, 4)), ((3, 0), (2, 5)), ((0, 1), (5, 4))],
    ids=["all", "fewer of one", "fewer of both", "one line less", "a unit of one line"],
)
def test_what_is_not_kept_is_back_on_sale_and_the_rest_stays_held(
    keep: tuple[int, int], stock: tuple[int, int]
) -> None:
    variant_ids = make_variants(2, stock=5)
    hold = reserved("order-1", dict(zip(variant_ids, (3, 2), strict=True)))
    wanted = {one: qty for one, qty in zip(variant_ids, keep, strict=True) if qty}

    answer = kept(hold.id, wanted)

    assert answer == hold
    assert lines_of(hold.id) == wanted
    assert tuple(stock_of(one) for one in variant_ids) == stock
    assert rows("SELECT qty FROM stock_reservation_lines ORDER BY variant_id") == [(3,), (2,)]
    assert broken() == []


def test_to_keep_all_that_there_is_changes_nothing() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 3, second: 2})
    before = everything()

    kept(hold.id, {second: 2, first: 3})

    assert everything() == before


@pytest.mark.parametrize("nothing", [None, {}, MappingProxyType({})], ids=["None", "dict", "mapping"])
def test_to_keep_nothing_ends_the_hold(nothing: Mapping[int, int] | None) -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    with transaction() as session:
        answer = reservations.release(session, hold.id, keep=nothing)

    assert (answer.id, answer.state) == (hold.id, "released")
    assert stock_of(variant_id) == 5
    assert broken() == []


def test_a_hold_can_become_smaller_again_and_again() -> None:
    first, second = make_variants(2, stock=9)
    hold = reserved("order-1", {first: 9, second: 5})

    stock = [(kept(hold.id, keep), stock_of(first))[1] for keep in ({first: 7, second: 5}, {first: 4}, {first: 1})]

    assert stock == [2, 5, 8]
    assert lines_of(hold.id) == {first: 1}
    assert stock_of(second) == 9
    assert broken() == []


def test_what_was_given_back_can_be_bought_at_once() -> None:
    variant_id = make_variant(stock=2)
    kept(reserved("order-1", {variant_id: 2}).id, {variant_id: 1})

    assert reserved("order-2", {variant_id: 1}).state == "held"
    assert stock_of(variant_id) == 0


def test_a_partial_release_is_the_callers_to_commit() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 3, second: 2})
    before = everything()

    with transaction() as session:
        reservations.release(session, hold.id, {first: 1})
        session.rollback()

    assert everything() == before


# ---- in every state --------------------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("qty", [1, 2, 3])
def test_a_hold_that_is_over_keeps_nothing(state: str, error: type[HarborError], qty: int) -> None:
    variant_id = make_variant(stock=5)
    reservation_id = hold_in(state, "order-1", {variant_id: 2})
    before = everything()

    with transaction() as session:
        with pytest.raises(HarborError) as refused:
            reservations.release(session, reservation_id, keep={variant_id: qty})
        untouched = touched_nothing(session)

    assert type(refused.value) is error
    assert refused.value.ids == {"reservation_id": reservation_id}
    assert untouched
    assert everything() == before


@pytest.mark.parametrize(("before_its_end", "state"), [(1, "held"), (0, "too late")])
def test_until_the_very_moment_it_ends_a_hold_can_become_smaller(before_its_end: int, state: str) -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})
    microsecond: timedelta = type(hold.expires_at).resolution

    with at(hold.expires_at - before_its_end * microsecond) as session:
        try:
            answer = str(reservations.release(session, hold.id, keep={variant_id: 1}).state)
        except ReservationExpired:
            answer = "too late"

    assert answer == state
    assert stock_of(variant_id) == 3 + before_its_end


# ---- again -----------------------------------------------------------------------------------------------------------


def test_the_same_partial_release_again_changes_nothing() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 3, second: 2})
    answer = kept(hold.id, {first: 1})
    before = everything()

    again = kept(hold.id, {first: 1})

    assert again == answer
    assert everything() == before


@pytest.mark.parametrize("older", [{0: 3, 1: 2}, {0: 2}, {0: 1, 1: 1}, {1: 1}])
def test_an_older_partial_release_that_comes_late_is_refused_and_changes_nothing(older: dict[int, int]) -> None:
    variant_ids = make_variants(2, stock=5)
    hold = reserved("order-1", {variant_ids[0]: 3, variant_ids[1]: 2})
    kept(hold.id, {variant_ids[0]: 1})
    before = everything()
    too_much = [variant_ids[place] for place in older if place == 1 or older[place] > 1]

    with pytest.raises(KeepsTooMuch) as refused:
        kept(hold.id, {variant_ids[place]: qty for place, qty in older.items()})

    assert refused.value.ids == {"reservation_id": hold.id, "variant_ids": too_much}
    assert everything() == before


def test_a_variant_that_the_hold_does_not_have_cannot_be_kept() -> None:
    variant_id, others = make_variants(2, stock=5)
    hold = reserved("order-1", {variant_id: 2})
    before = everything()

    with pytest.raises(KeepsTooMuch) as refused:
        kept(hold.id, {variant_id: 1, others: 1, MISSING: 1})

    assert refused.value.ids == {"reservation_id": hold.id, "variant_ids": [others, MISSING]}
    assert str(refused.value).endswith(f"cannot keep that much: it has fewer units of variant {others}, {MISSING}.")
    assert everything() == before


def test_the_callers_transaction_is_usable_after_it_wanted_to_keep_too_much() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    with transaction() as session:
        with pytest.raises(KeepsTooMuch):
            reservations.release(session, hold.id, keep={variant_id: 3})
        reservations.release(session, hold.id, keep={variant_id: 1})

    assert stock_of(variant_id) == 4
    assert broken() == []
