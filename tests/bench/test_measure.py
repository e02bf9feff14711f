from __future__ import annotations

import pytest

from bench.measure import CheckFailedError, Goal, Result, check, ratios, take_turns

RATIO = Goal("faster", "what", 2)
GROWTH = Goal("growth", "what", 1.2, better="less")
MS = Goal("quick_ms", "what", 5, unit="ms", better="less")


def test_sides_take_turns_and_warm_ups_do_not_count() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    numbers = take_turns({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=2, warm_ups=1, unit="orders/s")

    assert order == ["a", "b", "a", "b", "a", "b"]
    assert numbers == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_a_ratio_compares_numbers_of_the_same_round() -> None:
    assert ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]


def test_the_value_is_the_median_so_one_bad_round_does_not_count() -> None:
    result = Result(RATIO, [2.5, 0.1, 2.4])

    assert result.value == 2.4
    assert result.as_json()["spread"] == {"min": 0.1, "max": 2.5}


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (RATIO, 2.0, True),
        (RATIO, 1.99, False),
        (GROWTH, 1.2, True),
        (GROWTH, 1.21, False),
        (MS, 5.0, True),
        (MS, 5.01, False),
    ],
)
def test_what_should_be_more_has_to_reach_its_target_and_what_should_be_less_must_not_exceed_it(
    goal: Goal, value: float, met: bool
) -> None:
    assert Result(goal, [value]).met is met


def test_a_goal_says_its_target_with_sign_and_unit() -> None:
    assert [goal.wanted for goal in (RATIO, GROWTH, MS)] == ["≥ 2", "≤ 1.2", "≤ 5 ms"]


def test_a_goal_is_missed_when_something_else_it_asks_for_is() -> None:
    assert not Result(RATIO, [9.0], also_met=False).met


def test_a_failed_check_says_what_is_wrong() -> None:
    check("all is well", right=True)

    with pytest.raises(CheckFailedError, match="a unit is missing"):
        check("a unit is missing", right=False)
