"""For the tests of a service: was the job enqueued, and what happens when it runs, without workers or Redis.

They read and write Harbor's tables, on which a service has no rights in production. So they are for a test database,
as a role that owns the tables there. All see what the session sees: also what its transaction has not committed.

With an async session: `await session.run_sync(testing.assert_enqueued, "reservations.release", 42)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

_FIND: Final = """
SELECT j.task_id, j.task, j.args, j.kwargs, j.state, j.available_at, j.priority, j.dedupe_key, j.ordering_key,
       ARRAY(SELECT p->>'name' FROM jsonb_array_elements(t.parameters) AS p
              WHERE p->>'kind' = 'positional') AS parameters
  FROM jobs j LEFT JOIN job_types t ON t.task = j.task"""
_ALL: Final = text(f"{_FIND} ORDER BY j.id")
_NEXT: Final = text(f"{_FIND} WHERE j.state = 'ready' ORDER BY j.available_at, j.id LIMIT 1")
_PUBLISH: Final = text("UPDATE jobs SET state = 'published' WHERE task_id = :task_id")
_START: Final = text("""
UPDATE jobs SET state = 'running', attempt = attempt + 1, lease_token = gen_random_uuid(),
                lease_until = statement_timestamp() + interval '1 hour'
 WHERE task_id = :task_id""")
_END: Final = text("UPDATE jobs SET state = 'done' WHERE task_id = :task_id")


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A job as it stands in the database; `arguments` are by name, whichever way they were given.

    `parameters` are the names of those that its task takes by place.
    """

    task_id: UUID
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    state: str
    available_at: datetime
    priority: int
    dedupe_key: str | None
    ordering_key: str | None
    parameters: list[str]

    @property
    def arguments(self) -> dict[str, Any]:
        """Every argument by its name, in the order of the task's parameters."""
        given = _by_name(self.parameters, self.args) | self.kwargs
        return {name: given[name] for name in sorted(given, key=[*self.parameters, *given].index)}

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.task}({told}) {self.state}"


class NoHandler(LookupError):
    """`drain` came upon a job for whose task it was given no handler."""


def enqueued(session: Session | Connection, task: str | None = None) -> list[Enqueued]:
    """Return the jobs, or those of one task, in the order in which they were enqueued; also those that have ended."""
    return [Enqueued(**row._asdict()) for row in session.execute(_ALL) if task in {None, row.task}]


def assert_enqueued(session: Session | Connection, task: str, *args: Any, **kwargs: Any) -> Enqueued:
    """Return the newest job of a task with these arguments, or fail and list what was enqueued instead.

    Args:
        session: the test's session or connection.
        task: the task's name.
        args: the arguments, by place or by name, however the job has them. What is not given may be anything.
        kwargs: by name.

    Raises:
        AssertionError: there is no such job.
    """
    found = enqueued(session)
    for each in reversed(found):
        if each.task == task and each.arguments | _by_name(each.parameters, args) | kwargs == each.arguments:
            return each
    wanted = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
    listed = "".join(f"\n  {each}" for each in found) or "\n  nothing"
    raise AssertionError(f"{task}({wanted}) was not enqueued; enqueued was:{listed}")


def drain(
    session: Session | Connection, handlers: Mapping[str, Callable[..., object]], *, limit: int = 1_000
) -> list[Enqueued]:
    """Run every job that is ready, in the test's own transaction, and return them in the order in which they ran.

    They run when they would be due, delayed ones too, without waiting; and so do jobs that a handler enqueues. A job is
    `running` while its handler runs and `done` afterwards. What a handler raises is raised here, and its job stays as
    it is then.

    Args:
        session: the test's session or connection.
        handlers: what to call for a task, with the job's arguments; a service passes its own stand-ins.
        limit: after so many it is taken for a circle.

    Raises:
        NoHandler: a job's task is not in `handlers`.
        RuntimeError: after `limit` jobs there was another.
    """
    ran: list[Enqueued] = []
    while (row := session.execute(_NEXT).one_or_none()) is not None:
        job = Enqueued(**row._asdict())
        if job.task not in handlers:
            raise NoHandler(f"{job} has no handler; there are handlers for: {', '.join(sorted(handlers)) or 'nothing'}")
        if len(ran) == limit:
            raise RuntimeError(f"{limit} jobs have run, and {job} is next: do they enqueue each other for ever?")
        for statement in (_PUBLISH, _START):
            session.execute(statement, {"task_id": job.task_id})
        handlers[job.task](*job.args, **job.kwargs)
        session.execute(_END, {"task_id": job.task_id})
        ran.append(job)
    return ran


def _by_name(parameters: list[str], args: Sequence[Any]) -> dict[str, Any]:
    return {parameters[n] if n < len(parameters) else str(n + 1): value for n, value in enumerate(args)}
