"""The edge where work is committed: `transaction()` and `snapshot()`; nothing below them commits, rolls back or closes.

Inside a task that was declared without `repeatable=True`, a second `transaction()` is refused: one transaction is what
lets a task's effect and its completion commit together.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from db import engine
from db.errors import SecondTransaction

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class _TaskScope:
    """The running task and how many transactions it has opened."""

    task: str
    repeatable: bool
    opened: int = 0


_scope: ContextVar[_TaskScope | None] = ContextVar("harbor_task_scope", default=None)


@contextmanager
def task_scope(task: str, *, repeatable: bool) -> Iterator[None]:
    """Count the transactions of one run of `task`; the base Task wraps every run in it."""
    token = _scope.set(_TaskScope(task, repeatable))
    try:
        yield
    finally:
        _scope.reset(token)


@contextmanager
def transaction() -> Iterator[Session]:
    """Yield a session whose work is committed at the end of the block, or rolled back when the block raises.

    It never retries: a caller that wants to run again has to start from what it was asked, not from half of it.

    Raises:
        SecondTransaction: the running task has had its one transaction.
        SettingsError: HARBOR_DATABASE_URL is missing or malformed.
    """
    scope = _scope.get()
    if scope is not None:
        if scope.opened and not scope.repeatable:
            raise SecondTransaction(task=scope.task)
        scope.opened += 1
    with Session(engine.engine(), expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def snapshot() -> Iterator[Session]:
    """Yield a read-only session in which every statement sees the same moment (REPEATABLE READ READ ONLY).

    Raises:
        SettingsError: HARBOR_DATABASE_URL is missing or malformed.
    """
    with Session(engine.engine(), expire_on_commit=False) as session, session.begin():
        session.connection(execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})
        yield session
