"""The edge where work is committed: `transaction()` and `snapshot()`; nothing below them commits, rolls back or closes.

Inside a task that was declared without `repeatable=True`, a second `transaction()` is refused: one transaction is what
lets a task's effect and its completion commit together. Inside a claimed job every commit is fenced: the last statement
before it finds the job's row by its lease token, so a worker that lost its lease commits nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from db import engine, failpoints
from db.errors import SecondTransaction
from db.settings import settings
from db.statements import TaskScope, current

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection


@contextmanager
def task_scope(task: str, *, repeatable: bool) -> Iterator[TaskScope]:
    """Count the transactions and statements of one run of `task`; the base Task wraps every run in it."""
    scope = TaskScope(task, repeatable)
    token = current.set(scope)
    try:
        yield scope
    finally:
        current.reset(token)


@contextmanager
def transaction() -> Iterator[Session]:
    """Yield a session whose work is committed at the end of the block, or rolled back when the block raises.

    It never retries: a caller that wants to run again has to start from what it was asked, not from half of it. Inside
    a claimed job the commit also completes the job, or with `repeatable=True` holds on to its lease.

    Raises:
        JobCancelled: the job that this is run for was asked to stop.
        JobLeaseLost: it is another worker's by now; nothing is committed.
        SecondTransaction: the running task has had its one transaction.
        SettingsError: HARBOR_DATABASE_URL is missing or malformed.
    """
    scope = current.get()
    if scope is not None:
        if scope.opened and not scope.repeatable:
            raise SecondTransaction(task=scope.task)
        scope.opened += 1
    claim = scope.claim if scope is not None else None
    if claim is not None:
        claim.check()
    try:
        with Session(engine.engine(), expire_on_commit=False) as session, session.begin():
            yield session
            if claim is not None and scope is not None:
                # The job's row is locked last, and for no longer than the commit takes.
                session.flush()
                if scope.repeatable:
                    claim.fence(session)
                else:
                    claim.complete(session)
                    failpoints.reach("completing")
    except BaseException:
        if claim is not None:
            # A deferred constraint, say, has undone `done` as well, and a task that goes on after that is not done.
            claim.completed = False
        raise
    if claim is not None and claim.completed:
        failpoints.reach("completed")


@contextmanager
def single_statement() -> Iterator[Connection]:
    """Yield a connection on which each statement commits by itself: two round trips fewer for one that is all there is.

    Behind a pooler it is a transaction like any other, since its time limits are set at its beginning. It is never a
    task's own, and completes no job.

    Raises:
        SettingsError: HARBOR_DATABASE_URL is missing or malformed.
    """
    with engine.engine().connect() as connection:
        if settings().database_pooler == "none":
            connection.execution_options(isolation_level="AUTOCOMMIT")
        with connection.begin():
            yield connection


@contextmanager
def snapshot() -> Iterator[Session]:
    """Yield a read-only session in which every statement sees the same moment (REPEATABLE READ READ ONLY).

    Raises:
        SettingsError: HARBOR_DATABASE_URL is missing or malformed.
    """
    with Session(engine.engine(), expire_on_commit=False) as session, session.begin():
        session.connection(execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})
        yield session
