"""`@task("noun.verb")`: the one way to declare a task, with the house's defaults.

The task is registered with whatever Celery app the process has; `tasks` never imports `worker`. Where a task runs is
said in celeryconfig's routes only: a queue on the decorator is honoured by `apply_async` and ignored by `send_task`,
which is how other services send.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from celery import shared_task
from sqlalchemy.exc import OperationalError

from db import jobs
from db.errors import HarborError, InvalidTask
from db.jobs import DEFAULT_MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Task

P = ParamSpec("P")
R = TypeVar("R")

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_ROUTING: Final = frozenset({"queue", "exchange", "routing_key", "priority"})


def task(
    name: str, *, repeatable: bool = False, max_attempts: int = DEFAULT_MAX_ATTEMPTS, **options: Any
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Declare a function as the task `name`.

    Args:
        name: `noun.verb`, lower case; the contract under which others send it.
        repeatable: the task may open several transactions because running it again from its start is safe; by default
            it has exactly one.
        max_attempts: how often a job of this task is run before it is dead, unless the job says otherwise.
        options: Celery's own task options, such as `max_retries`.

    Raises:
        InvalidTask: the name is no `noun.verb`, or an option says where the task runs.
    """
    if not _NAME.fullmatch(name):
        raise InvalidTask(task=name, problem="must be named noun.verb, in lower case")
    if routing := sorted(_ROUTING & options.keys()):
        raise InvalidTask(task=name, problem=f"must be routed in celeryconfig.task_routes, not by {', '.join(routing)}")
    defaults: dict[str, Any] = {
        # An expected refusal is an answer: it is logged in one line, without a traceback.
        "throws": (HarborError,),
        # Of messages without a row in the ledger; a job is tried again by its row.
        # A lost connection, a deadlock or a lock that took too long: the database may answer the next time. The waits
        # are at most 1, 2, 4 … 60 s and a quarter of an hour in all, which outlasts a failover; each is far below the
        # visibility timeout, after which the message would be given to a second worker.
        "autoretry_for": (OperationalError,),
        "max_retries": 20,
        "retry_backoff": 1,
        "retry_backoff_max": 60,
        "retry_jitter": True,
        # A task whose child was killed is tried again after this many seconds; Celery's own default is 180.
        "default_retry_delay": 5,
    }
    made: Any = shared_task(name=name, repeatable=repeatable, **(defaults | options))

    def declare(function: Callable[P, R]) -> Task[P, R]:
        jobs.declare(name, function, max_attempts=max_attempts)
        registered: Task[P, R] = made(function)
        return registered

    return declare
