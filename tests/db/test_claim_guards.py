"""What the fence and the completion are for: with either switched off a job has its effect twice."""

from __future__ import annotations

import pytest

from db.jobs import Claim
from tests.ledger import attempt, claimed, effects, elsewhere, have_effect, make_type, run_by, state, taken_over


@pytest.fixture(autouse=True)
def _count(database: None) -> None:
    make_type()


def _both_run(late: Claim) -> tuple[int, str]:
    """One worker sleeps in its task while another runs the job; then the first one wakes up."""
    with attempt(late):
        have_effect(late, lambda: elsewhere(lambda: run_by(taken_over(late))))
    return effects(late.task_id), state(late.task_id)


def test_without_the_completion_in_its_transaction_a_job_would_have_its_effect_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Claim, "complete", lambda _claim, _session: None)

    assert _both_run(claimed()) == (2, "running")


def test_with_a_completion_of_its_own_after_the_effect_a_crash_would_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as apart:
        apart.setattr(Claim, "complete", lambda _claim, _session: None)
        crashed = claimed()
        run_by(crashed)  # Committed; the worker dies before it says so.

    run_by(taken_over(crashed))

    assert (effects(crashed.task_id), state(crashed.task_id)) == (2, "done")


def test_without_the_fence_a_repeatable_task_would_go_on_after_it_lost_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Claim, "fence", lambda _claim, _session: None)
    late = claimed()
    run_by(taken_over(late))

    with attempt(late, repeatable=True):
        have_effect(late)

    assert effects(late.task_id) == 2
