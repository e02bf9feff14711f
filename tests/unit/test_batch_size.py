"""A sweep finds by itself how many holds fit the time a buyer may be kept waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.reservations import BatchSize
from db.reservations.expire import MAX_BATCH

speeds = st.floats(min_value=200, max_value=1_000_000)


def limit_after(seconds: float, *, limit: int = 500) -> int:
    size = BatchSize(limit=limit)
    size.took(seconds)
    return size.limit


@pytest.mark.parametrize(
    ("seconds", "limit"),
    [
        (0.0, 1_000),
        (0.1249, 1_000),
        (0.125, 500),
        (0.2, 500),
        (0.25, 500),
        (0.2501, 250),
        (60.0, 250),
    ],
)
def test_a_quick_batch_doubles_the_next_and_a_slow_one_halves_it(seconds: float, limit: int) -> None:
    assert limit_after(seconds) == limit


@pytest.mark.parametrize(("limit", "seconds", "then"), [(60, 1.0, 50), (50, 1.0, 50), (51, 1.0, 50), (100, 1.0, 50)])
def test_a_batch_never_takes_fewer_than_50(limit: int, seconds: float, then: int) -> None:
    assert limit_after(seconds, limit=limit) == then


@pytest.mark.parametrize(("limit", "then"), [(2_500, 5_000), (2_501, 5_000), (4_999, 5_000), (5_000, 5_000)])
def test_a_batch_never_takes_more_than_a_sweep_allows(limit: int, then: int) -> None:
    assert limit_after(0.0, limit=limit) == then


@given(st.lists(st.floats(min_value=0, allow_nan=False)))
def test_whatever_batches_take_the_next_is_one_that_a_sweep_allows(seconds: list[float]) -> None:
    size = BatchSize()

    for taken in seconds:
        size.took(taken)

    assert 50 <= size.limit <= MAX_BATCH


@given(speeds)
def test_on_a_machine_of_any_speed_batches_soon_fit_the_time(holds_per_second: float) -> None:
    size = BatchSize()

    for _ in range(8):
        size.took(size.limit / holds_per_second)

    seconds = size.limit / holds_per_second
    assert seconds <= size.target_seconds
    assert seconds >= size.target_seconds / 2 or size.limit == MAX_BATCH


@given(speeds)
def test_a_size_that_fits_stays(holds_per_second: float) -> None:
    size = BatchSize()
    for _ in range(8):
        size.took(size.limit / holds_per_second)
    found = size.limit

    size.took(size.limit / holds_per_second)

    assert size.limit == found
