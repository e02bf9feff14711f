"""A worker that is asked to end does so within the time it is given, and no message is lost with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.worker.conftest import SOFT_SHUTDOWN_SECONDS

if TYPE_CHECKING:
    from tests.worker.conftest import Worker

_MARGIN_SECONDS = 8  # A busy machine needs some to stop a pool; far below the 120 s that the task would take.


def test_a_long_task_goes_back_to_its_queue_when_the_soft_time_is_over(new_worker: Worker) -> None:
    task_id = new_worker.send("sample.nap", 120)
    new_worker.wait_for("sample.naps", task_id=task_id)
    new_worker.settle(running=1)

    started = time.monotonic()
    exit_code = new_worker.process.terminate()
    took_seconds = time.monotonic() - started

    assert exit_code == 0
    assert took_seconds < SOFT_SHUTDOWN_SECONDS + _MARGIN_SECONDS
    assert (new_worker.broker.lengths(), new_worker.broker.unacked()) == ({"default": 1}, 0)


def test_a_short_task_is_finished_first(new_worker: Worker) -> None:
    task_id = new_worker.send("sample.nap", 0.75 * SOFT_SHUTDOWN_SECONDS)
    new_worker.wait_for("sample.naps", task_id=task_id)
    new_worker.settle(running=1)

    exit_code = new_worker.process.terminate()
    ran = new_worker.wait_for("task.ran", task_id=task_id)

    assert exit_code == 0
    assert ran["outcome"] == "done"
    assert (new_worker.broker.lengths(), new_worker.broker.unacked()) == ({}, 0)
