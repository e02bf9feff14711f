"""A worker that is asked to end does so within the time it is given, and no message is lost with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.worker.conftest import SOFT_SHUTDOWN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.worker.conftest import Worker

_MARGIN_SECONDS = 8  # A busy machine needs some to stop a pool; far below the 120 s that the task would take.


def test_a_long_task_goes_back_to_its_queue_when_the_soft_time_is_over(
    new_worker: Callable[[], AbstractContextManager[Worker]],
) -> None:
    with new_worker() as worker:
        task_id = worker.send("sample.nap", 120)
        worker.wait_for("sample.naps", task_id=task_id)

        started = time.monotonic()
        exit_code = worker.process.terminate()
        took_seconds = time.monotonic() - started

    assert exit_code == 0
    assert took_seconds < SOFT_SHUTDOWN_SECONDS + _MARGIN_SECONDS
    assert (worker.broker.lengths(), worker.broker.unacked()) == ({"default": 1}, 0)
    worker.broker.client.flushdb()


def test_a_short_task_is_finished_first(new_worker: Callable[[], AbstractContextManager[Worker]]) -> None:
    with new_worker() as worker:
        task_id = worker.send("sample.nap", SOFT_SHUTDOWN_SECONDS / 4)
        worker.wait_for("sample.naps", task_id=task_id)

        exit_code = worker.process.terminate()
        ran = worker.wait_for("task.ran", task_id=task_id)

    assert exit_code == 0
    assert ran["outcome"] == "done"
    assert (worker.broker.lengths(), worker.broker.unacked()) == ({}, 0)
