"""What becomes of due ticks, by policy: a table per policy, on a clock that only the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from db.schedule import Policy

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
RUNS = None


def decide(policy: Policy, *seconds_ago: float, newest: bool = True, busy: bool = False) -> list[str | None]:
    """What becomes of ticks that were due so many seconds ago."""
    due = [NOW - timedelta(seconds=seconds) for seconds in seconds_ago]
    return policy.decide(due, NOW, newest=newest, busy=busy)


@pytest.mark.parametrize(
    ("catch_up", "decided"),
    [
        ("latest", ["misfire", "superseded", "superseded", RUNS]),
        ("all", ["misfire", RUNS, RUNS, RUNS]),
        ("skip", ["misfire", "misfire", "misfire", RUNS]),
    ],
)
def test_catch_up_says_which_of_several_due_ticks_run(catch_up: str, decided: list[str | None]) -> None:
    policy = Policy(misfire_grace_seconds=600, catch_up=catch_up)

    assert decide(policy, 601, 600, 300, 10) == decided


@pytest.mark.parametrize(
    ("catch_up", "decided"),
    [("latest", [RUNS]), ("all", [RUNS]), ("skip", ["misfire"])],
)
def test_with_skip_the_newest_tick_does_not_run_when_it_is_late(catch_up: str, decided: list[str | None]) -> None:
    assert decide(Policy(catch_up=catch_up), 10.001) == decided


def test_with_skip_of_two_that_are_on_time_the_newest_runs() -> None:
    assert decide(Policy(catch_up="skip"), 10, 5) == ["superseded", RUNS]


@pytest.mark.parametrize("catch_up", ["latest", "all", "skip"])
def test_a_grace_that_is_shorter_goes_first(catch_up: str) -> None:
    assert decide(Policy(misfire_grace_seconds=2, catch_up=catch_up), 2.001, 2) == ["misfire", RUNS]


@pytest.mark.parametrize(("catch_up", "decided"), [("latest", ["superseded"] * 2), ("all", [RUNS, RUNS])])
def test_the_newest_of_a_part_is_not_the_newest_of_all(catch_up: str, decided: list[str | None]) -> None:
    assert decide(Policy(catch_up=catch_up), 20, 10, newest=False) == decided


@pytest.mark.parametrize("busy", [True, False])
def test_overlapping_ticks_run_unless_they_are_to_be_left_out(busy: bool) -> None:
    assert decide(Policy(overlap="allow", catch_up="all"), 2, 1, busy=busy) == [RUNS, RUNS]
    assert decide(Policy(overlap="skip", catch_up="all"), 2, 1, busy=busy) == ["overlap" if busy else RUNS, "overlap"]
    assert decide(Policy(overlap="skip"), 2, 1, busy=busy) == ["superseded", "overlap" if busy else RUNS]


def test_a_pause_leaves_everything_out() -> None:
    assert decide(Policy(paused=True, catch_up="all"), 9_000, 10, 0, busy=True) == ["paused"] * 3
