"""What a real worker makes of jobs: each way in which a task can end, and what the ledger says then."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from db.settings import settings
from tests.broker import own_broker
from tests.ledger import attempts, effects, put, request_cancel, row, state
from tests.processes import wait_until
from tests.worker.job_worker import RUN_SECONDS, Carrier, Jobs, own_database, ready, runs, working

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery

ENDED = ("done", "dead", "cancelled")


@pytest.fixture(scope="module")
def ledger(
    servers: dict[str, str], template: str, app: Celery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Jobs]:
    """One worker for all tests here."""
    with pytest.MonkeyPatch.context() as patched, own_database(servers, template, patched) as environ:
        assert settings().env == "test"
        log = tmp_path_factory.mktemp("jobs") / "worker.log"
        with own_broker(environ) as broker, working(environ, broker, log) as worker:
            ready(worker)
            with Carrier(app, broker).running() as carrier:
                yield Jobs(worker, broker, carrier)


def ended(ledger: Jobs, task: str, *args: object, **options: object) -> UUID:
    """A job that has come to its end."""
    task_id = put(task, *args, **options)
    ledger.wait_for(task_id, *ENDED)
    return task_id


# ---- done ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "times"), [("job.effect", 1), ("job.several", 2), ("job.nothing", 0)])
def test_a_job_runs_once_and_is_done_with_its_effect(ledger: Jobs, task: str, times: int) -> None:
    task_id = ended(ledger, task)

    assert (state(task_id), runs(task_id), effects(task_id)) == ("done", 1, times)
    assert (row(task_id).attempt, attempts(task_id)) == (1, [])


def test_fifty_jobs_run_once_each(ledger: Jobs) -> None:
    task_ids = [put("job.effect") for _ in range(50)]

    for task_id in task_ids:
        ledger.wait_for(task_id, "done")

    assert [(runs(task_id), effects(task_id)) for task_id in task_ids] == [(1, 1)] * 50


def test_a_message_that_comes_five_times_runs_once(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.effect")

    ledger.carrier.again(task_id, 5)
    wait_until(lambda: len(ledger.told("job.dropped", task_id)) == 5, RUN_SECONDS, ledger.process)
    ledger.wait_for_silence()

    assert (state(task_id), runs(task_id), effects(task_id)) == ("done", 1, 1)


def test_a_message_that_comes_again_while_its_job_runs_is_dropped(ledger: Jobs) -> None:
    task_id = put("job.nap", 1.5)
    ledger.wait_for_start(task_id)

    ledger.carrier.again(task_id)
    wait_until(lambda: ledger.told("job.dropped", task_id), RUN_SECONDS, ledger.process)

    assert ledger.wait_for(task_id, *ENDED) == "done"
    assert (runs(task_id), effects(task_id)) == (1, 1)


def test_a_job_longer_than_its_lease_is_kept_by_its_worker(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.nap", 5)

    assert (state(task_id), runs(task_id), effects(task_id), attempts(task_id)) == ("done", 1, 1, [])


def test_a_message_without_a_row_runs_as_celery_runs_it(ledger: Jobs, send: Callable[..., str]) -> None:
    key = uuid4()

    send(ledger.broker, "job.plain", str(key))

    wait_until(lambda: effects(key) == 1, RUN_SECONDS, ledger.process)


def test_arguments_come_as_the_annotations_want_them(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.on_day", "2026-11-21", hours=4)

    [told] = ledger.told("job.was_on_day", task_id)
    assert (state(task_id), told["day"], told["hours"]) == ("done", "2026-11-21", 4)


# ---- not done --------------------------------------------------------------------------------------------------------


def test_arguments_that_do_not_fit_bury_the_job_and_name_the_field(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.on_day", "the day after tomorrow")

    [(number, outcome, error)] = attempts(task_id)
    assert (state(task_id), runs(task_id), number, outcome) == ("dead", 0, 1, "refused")
    assert error is not None
    assert error.startswith("InvalidJob: Job job.on_day: day does not fit")
    assert "tomorrow" not in error


def test_a_snoozed_job_comes_back_and_counts_no_attempt(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.snooze")

    assert (state(task_id), runs(task_id), effects(task_id)) == ("done", 3, 1)
    assert (row(task_id).attempt, attempts(task_id)) == (1, [])


def test_a_discarded_job_is_cancelled_with_its_reason(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.discard")

    assert (state(task_id), effects(task_id)) == ("cancelled", 0)
    assert attempts(task_id) == [(1, "discarded", "there is no such order any more")]


def test_a_job_that_fails_is_tried_again_after_a_wait(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.recover")

    assert (state(task_id), runs(task_id), effects(task_id), row(task_id).attempt) == ("done", 2, 1, 2)
    assert attempts(task_id) == [(1, "failed", "ConnectionError: the other side did not answer")]
    [told] = ledger.told("job.failed", task_id)
    assert 0 <= told["again_in_seconds"] <= 1
    assert "the other side" in told["exception"]


@pytest.mark.parametrize(
    ("task", "error"), [("job.fail", "LookupError: nobody expected this"), ("job.strange", "Strange: this and that")]
)
def test_a_job_that_keeps_failing_is_dead_after_its_last_attempt(ledger: Jobs, task: str, error: str) -> None:
    task_id = ended(ledger, task, max_attempts=2)

    assert (state(task_id), runs(task_id), row(task_id).attempt) == ("dead", 2, 2)
    assert attempts(task_id) == [(1, "failed", error), (2, "failed", error)]


def test_a_task_that_exits_has_failed_and_does_not_run_for_ever(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.exit", max_attempts=2)

    assert (state(task_id), runs(task_id)) == ("dead", 2)
    assert [(number, outcome) for number, outcome, _ in attempts(task_id)] == [(1, "failed"), (2, "failed")]


def test_a_job_outlives_its_worker_s_connections_to_the_broker(ledger: Jobs) -> None:
    task_id = put("job.nap", 1.5)
    ledger.wait_for_start(task_id)

    ledger.broker.client.client_kill_filter(_type="normal", skipme=True)
    ledger.wait_for(task_id, *ENDED)

    assert (state(task_id), runs(task_id), row(task_id).attempt, attempts(task_id)) == ("done", 1, 1, [])


def test_a_refusal_is_not_tried_again(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.refuse")

    assert (state(task_id), runs(task_id), effects(task_id)) == ("dead", 1, 0)
    assert attempts(task_id) == [(1, "refused", "VariantNotFound: Variant 7 does not exist.")]


def test_a_second_transaction_inside_the_first_buries_the_job_with_the_reason(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.nested")

    [(_, outcome, error)] = attempts(task_id)
    assert (state(task_id), runs(task_id), effects(task_id), outcome) == ("dead", 1, 0, "refused")
    assert error is not None
    assert "declared with repeatable=True" in error


@pytest.mark.parametrize(("task", "reason"), [("job.twice", "SecondTransaction"), ("job.late", "what follows")])
def test_an_error_after_the_commit_leaves_the_job_done_and_is_told(ledger: Jobs, task: str, reason: str) -> None:
    task_id = ended(ledger, task)
    wait_until(lambda: ledger.told("task.ran", task_id), RUN_SECONDS, ledger.process)

    assert (state(task_id), runs(task_id), effects(task_id)) == ("done", 1, 1)
    assert [(number, outcome) for number, outcome, _ in attempts(task_id)] == [(1, "failed when done")]
    [told] = ledger.told("job.failed_after_it_was_done", task_id)
    assert (told["level"], reason in told["exception"]) == ("error", True)
    assert ledger.told("task.ran", task_id)[0]["outcome"] == "done"


def test_a_task_that_passes_over_its_failed_commit_does_not_leave_its_job_running(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.swallow")

    assert (state(task_id), runs(task_id), effects(task_id)) == ("done", 1, 0)


def test_a_running_job_that_is_cancelled_is_stopped_and_has_no_effect(ledger: Jobs) -> None:
    task_id = put("job.nap", 120)
    ledger.wait_for_start(task_id)

    assert request_cancel(task_id) == "running"
    ledger.wait_for(task_id, *ENDED)

    assert (state(task_id), runs(task_id), effects(task_id)) == ("cancelled", 1, 0)
    assert attempts(task_id) == [(1, "cancelled", "it was asked to stop")]


def test_a_job_that_kills_its_worker_runs_as_often_as_its_attempts_and_is_buried(ledger: Jobs) -> None:
    task_id = ended(ledger, "job.die", max_attempts=2)

    assert (state(task_id), runs(task_id), row(task_id).attempt) == ("dead", 2, 2)
    assert [(number, outcome) for number, outcome, _ in attempts(task_id)] == [(1, "lost"), (2, "lost")]
    # The worker has children again, and does not give the message out anew.
    after = ended(ledger, "job.effect")
    ledger.wait_for_silence()
    assert (state(after), runs(task_id)) == ("done", 2)
