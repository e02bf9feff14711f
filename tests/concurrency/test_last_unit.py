"""Never oversell: of many who want the last unit at once exactly one gets it, and without the guard they do not."""

from __future__ import annotations

import pytest

from db import inventory
from tests.concurrency.crowd import crowd
from tests.concurrency.guards import UNITS_GUARD, drop_the_check, replace_in_reserve
from tests.concurrency.last_unit import CHECKED, HELD, SHORT, buy
from tests.factories import make_variants, stock_of

pytestmark = pytest.mark.usefixtures("environ")

_BUYERS = 32
_ROUNDS = 10  # One variant each.
_DEADLINE_SECONDS = 60


def test_of_32_processes_exactly_one_gets_the_last_unit() -> None:
    variant_ids = make_variants(_ROUNDS, stock=1)

    with crowd(_BUYERS) as buyers:
        answers = buyers.all(buy, variant_ids, deadline_seconds=_DEADLINE_SECONDS)

    for of_one_variant in zip(*answers, strict=True):
        assert sorted(of_one_variant) == [HELD] + [SHORT] * (_BUYERS - 1)
    assert [stock_of(variant_id) for variant_id in variant_ids] == [0] * _ROUNDS
    assert inventory.reconcile().broken == []


def test_without_guard_and_check_the_last_unit_is_sold_more_than_once() -> None:
    variant_ids = make_variants(_ROUNDS, stock=1)
    replace_in_reserve(UNITS_GUARD, "")
    drop_the_check()

    with crowd(_BUYERS) as buyers:
        answers = buyers.all(buy, variant_ids, deadline_seconds=_DEADLINE_SECONDS)

    sold = [of_one_variant.count(HELD) for of_one_variant in zip(*answers, strict=True)]
    assert max(sold) > 1
    assert min(stock_of(variant_id) for variant_id in variant_ids) < 0


def test_without_the_guard_the_check_alone_still_sells_the_last_unit_once() -> None:
    variant_ids = make_variants(_ROUNDS, stock=1)
    replace_in_reserve(UNITS_GUARD, "")

    with crowd(_BUYERS) as buyers:
        answers = buyers.all(buy, variant_ids, deadline_seconds=_DEADLINE_SECONDS)

    sold = [of_one_variant.count(HELD) for of_one_variant in zip(*answers, strict=True)]
    assert sold == [1] * _ROUNDS
    assert any(CHECKED in of_one_process for of_one_process in answers)
    assert [stock_of(variant_id) for variant_id in variant_ids] == [0] * _ROUNDS
