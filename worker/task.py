"""The base of every task: what each run's log lines carry, how long it took, and that it keeps to its transactions."""

from __future__ import annotations

import time
from typing import Any

import celery
import structlog
from celery.exceptions import Retry
from structlog.contextvars import bound_contextvars

from db.errors import HarborError
from db.session import task_scope

log = structlog.get_logger()


class Task(celery.Task[Any, Any]):
    """Binds task, id and attempt to every log line of a run, times it and counts its statements.

    `attempt` counts from 1 and is of the message: a task that is sent again starts over.
    """

    abstract = True
    Strategy = "worker.intake:strategy"
    repeatable: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task's function. What it raises goes on to Celery; an expected refusal and a retry say why here."""
        request = self.request
        with (
            bound_contextvars(task=self.name, task_id=request.id, attempt=request.retries + 1),
            task_scope(self.name, repeatable=self.repeatable) as scope,
        ):
            started = time.perf_counter()
            told: dict[str, str] = {"outcome": "raised"}
            try:
                answer = self.run(*args, **kwargs)
                told = {"outcome": "done"}
            except HarborError as error:
                told = {"outcome": "refused", "kind": type(error).__name__, "error": str(error)}
                raise
            except Retry as retry:
                told = {"outcome": "retried", "kind": type(retry.exc).__name__}
                raise
            finally:
                seconds = round(time.perf_counter() - started, 4)
                log.info("task.ran", **told, seconds=seconds, statements=scope.statements)
            return answer
