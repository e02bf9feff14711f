"""A sweep goes on while there is something due and time left, in batches that grow and shrink with the machine."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy.exc import OperationalError

from db import reservations
from db.reservations import BatchSize
from db.session import transaction
from tasks.reservations import sweep
from tests.db.holds import broken, many_due, reserved, state_of
from tests.db.sql import locked
from tests.factories import make_variant, make_variants, stock_of

pytestmark = pytest.mark.usefixtures("database")

_PLENTY = timedelta(seconds=30)
_NONE = timedelta(0)


def test_a_sweep_closes_everything_due_and_says_that_it_finished() -> None:
    variant_id = make_variant(stock=1)
    many_due(120, {variant_id: 2})

    swept = sweep(_PLENTY)

    assert (swept.holds, swept.batches, swept.finished) == (120, 1, True)
    assert swept.worst_batch_seconds > 0
    assert stock_of(variant_id) == 241
    assert broken() == []


def test_a_sweep_with_nothing_due_is_one_empty_batch_and_leaves_live_holds_alone() -> None:
    hold = reserved("order-1", {make_variant(stock=3): 2})

    swept = sweep(_PLENTY)

    assert (swept.holds, swept.batches, swept.finished) == (0, 1, True)
    assert state_of(hold.id) == "held"


def test_a_sweep_without_time_does_one_batch_and_says_that_more_is_due() -> None:
    many_due(600, {make_variant(): 1})

    first, second = sweep(_NONE), sweep(_NONE)

    assert (first.holds, first.batches, first.finished) == (500, 1, False)
    assert (second.holds, second.batches, second.finished) == (100, 1, True)


def test_a_batch_that_fits_exactly_is_followed_by_one_that_finds_nothing() -> None:
    many_due(500, {make_variant(): 1})

    swept = sweep(_PLENTY)

    assert (swept.holds, swept.batches, swept.finished) == (500, 2, True)


def test_fast_batches_double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "BatchSize", partial(BatchSize, limit=50, target_seconds=3_600))
    many_due(1_000, {make_variant(): 1})

    swept = sweep(_PLENTY)

    # 50, 100, 200, 400, and 250 of 800.
    assert (swept.holds, swept.batches) == (1_000, 5)


def test_slow_batches_halve_down_to_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "BatchSize", partial(BatchSize, limit=200, target_seconds=1e-9))
    many_due(420, {make_variant(): 1})

    swept = sweep(_PLENTY)

    # 200, 100, 50, 50, and 20 of 50.
    assert (swept.holds, swept.batches) == (420, 5)


@pytest.mark.parametrize(
    ("limit", "seconds", "next_limit"),
    [
        (500, 0.01, 1_000),
        (500, 0.2, 500),
        (500, 0.3, 250),
        (4_000, 0.01, 5_000),
        (60, 9.0, 50),
        (50, 9.0, 50),
    ],
)
def test_the_next_batch_is_as_large_as_the_last_one_was_fast(limit: int, seconds: float, next_limit: int) -> None:
    size = BatchSize(limit)

    size.took(seconds)

    assert size.limit == next_limit


def test_a_variant_that_stays_locked_does_not_keep_the_holds_of_others_from_ending() -> None:
    busy, free = make_variants(2)
    many_due(3, {busy: 1})
    many_due(4, {free: 1})

    with locked("SELECT FROM variants WHERE id = :id FOR UPDATE", id=busy):
        swept = sweep(_PLENTY)
        meanwhile_free = stock_of(free)
    later = sweep(_PLENTY)

    assert (swept.holds, swept.finished, meanwhile_free) == (4, False, 4)
    assert (later.holds, later.finished, stock_of(busy)) == (3, True, 3)
    assert broken() == []


def test_without_passing_over_it_a_locked_variant_stops_the_whole_batch() -> None:
    busy, free = make_variants(2)
    many_due(1, {busy: 1})
    many_due(1, {free: 1})

    with (
        locked("SELECT FROM variants WHERE id = :id FOR UPDATE", id=busy),
        pytest.raises(OperationalError, match="lock timeout"),
        transaction() as session,
    ):
        reservations.expire_due(session)

    assert stock_of(free) == 0
