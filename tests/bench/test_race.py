from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from bench.jobs import race
from bench.jobs.effects import Counted
from bench.jobs.latency import percentile
from bench.jobs.side import Promise
from bench.measure import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

JOBS = 10


@dataclass
class Told:
    """A side, and the rows of its round, that are as they are told."""

    promise: Promise
    after: Counted
    name: str = "told"
    processes: tuple[Any, ...] = ()
    did: list[str] = field(default_factory=list)

    def ready(self) -> bool:
        return True

    def enqueue(self, ids: Sequence[int]) -> None:
        self.did.append(f"enqueue {len(ids)}")

    def drained(self) -> bool:
        self.did.append("drained")
        return True

    def reset(self, jobs: int) -> None:
        self.did.append(f"reset {jobs}")

    def wait(self, check: Callable[[], None]) -> float:
        check()
        return float("inf")

    def counted(self) -> Counted:
        self.did.append("counted")
        return self.after


def run(promise: Promise, *, lost: int = 0, repeated: int = 0) -> Told:
    told: Any = Told(promise, Counted(lost, JOBS - lost - repeated, repeated))
    race.run(told, told, JOBS)
    done: Told = told
    return done


def test_effects_are_counted_when_a_side_has_nothing_to_do_any_more() -> None:
    assert run(Promise.EXACTLY_ONCE).did == ["reset 10", "enqueue 10", "drained", "counted"]


@pytest.mark.parametrize("promise", Promise)
def test_a_lost_job_leaves_no_number(promise: Promise) -> None:
    with pytest.raises(CheckFailedError, match="1 of 10 jobs lost"):
        run(promise, lost=1)


def test_a_repeated_job_leaves_no_number_where_that_is_promised_never_to_happen() -> None:
    run(Promise.AT_LEAST_ONCE, repeated=1)

    with pytest.raises(CheckFailedError, match="1 repeated"):
        run(Promise.EXACTLY_ONCE, repeated=1)


@pytest.mark.parametrize(("percent", "found"), [(50, 50), (99, 99), (99.5, 100), (100, 100), (0.1, 1)])
def test_a_percentile_is_a_number_that_was_measured(percent: float, found: int) -> None:
    assert percentile(range(100, 0, -1), percent) == found
