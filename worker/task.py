"""The base of every task: what each run's log lines carry, how long it took, and that it keeps to its transactions."""

from __future__ import annotations

import time
from typing import Any

import celery
import structlog
from structlog.contextvars import bound_contextvars

from db.session import task_scope

log = structlog.get_logger()


class Task(celery.Task[Any, Any]):
    """Binds task, id and attempt to every log line of a run, and times it.

    `attempt` counts from 1 and is of the message: a task that is sent again starts over.
    """

    abstract = True
    repeatable: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task's function. What it raises goes on to Celery, which answers and logs it."""
        request = self.request
        with (
            bound_contextvars(task=self.name, task_id=request.id, attempt=request.retries + 1),
            task_scope(self.name, repeatable=self.repeatable),
        ):
            started = time.perf_counter()
            outcome = "raised"
            try:
                answer = self.run(*args, **kwargs)
                outcome = "done"
            finally:
                log.info("task.ran", outcome=outcome, seconds=round(time.perf_counter() - started, 4))
            return answer
