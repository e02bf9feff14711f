"""A worker that is asked to end gives its job back at once, and the next one has it without an attempt being lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker import own_broker
from tests.ledger import attempts, effects, put, row
from tests.processes import wait_until
from tests.worker.job_worker import LEASE_SECONDS, RUN_SECONDS, Carrier, Jobs, own_database, ready, runs, working

if TYPE_CHECKING:
    from pathlib import Path

    from celery import Celery


def test_a_job_that_runs_when_its_worker_ends_is_given_back_and_run_by_the_next(
    servers: dict[str, str], template: str, app: Celery, tmp_path: Path
) -> None:
    long_seconds = 60.0
    told = {"HARBOR_JOB_LEASE_SECONDS": str(long_seconds)}
    with (
        pytest.MonkeyPatch.context() as patched,
        own_database(servers, template, patched) as environ,
        own_broker(environ) as broker,
    ):
        with working(environ, broker, tmp_path / "first.log", **told) as first:
            ready(first)
            with Carrier(app, broker).running() as carrier:
                # It is short enough for the second worker, which has nobody to end it.
                task_id = put("job.nap", 2 * LEASE_SECONDS)
                Jobs(first, broker, carrier).wait_for_start(task_id)
                wait_until(lambda: broker.unacked() == 1, RUN_SECONDS, first)
            # Now nobody relays: the row stays as the worker leaves it.
            assert first.terminate() == 0
        given_back = row(task_id)

        # Far before its lease would have run out; no attempt is counted.
        assert (given_back.state, given_back.attempt) == ("ready", 0)
        assert [(number, outcome) for number, outcome, _ in attempts(task_id)] == [(1, "given back")]
        assert effects(task_id) == 0

        with working(environ, broker, tmp_path / "second.log", **told) as second:
            ready(second)
            with Carrier(app, broker).running() as carrier:
                Jobs(second, broker, carrier).wait_for(task_id, "done")
                assert (runs(task_id), effects(task_id), row(task_id).attempt) == (2, 1, 1)
