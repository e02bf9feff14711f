"""What a task sends is counted, and a transaction that sends one statement again and again is told once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.session import snapshot, task_scope, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

    from db.statements import TaskScope

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines of what has been repeated."""
    return lambda: [line for line in caplog.messages if "repeats" in line]


@pytest.fixture
def scope() -> Iterator[TaskScope]:
    """A run of a task that may have several transactions."""
    with task_scope("orders.remind", repeatable=True) as scope:
        yield scope


def ask(session: Session, times: int, statement: str = "SELECT CAST(:number AS int)") -> None:
    for number in range(times):
        session.execute(text(statement), {"number": number})


def test_the_statements_of_a_task_are_counted(scope: TaskScope) -> None:
    with transaction() as session:
        ask(session, 2)
        ask(session, 1, "SELECT 2 + :number")
        with pytest.raises(DBAPIError), session.begin_nested():
            ask(session, 1, "SELECT 1 / :number")

    assert scope.statements == 4


def test_what_a_new_connection_asks_the_server_is_not_the_tasks(
    restart: Callable[[], None], scope: TaskScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    for guarded in (True, False):
        restart()
        scope.statements = 0
        monkeypatch.setattr("db.statements.TimedConnection.ready", not guarded)
        with transaction() as session:
            ask(session, 1)
        assert (scope.statements == 1) is guarded


def test_a_transaction_that_repeats_a_statement_is_told_once(scope: TaskScope, told: Callable[[], list[str]]) -> None:
    for _ in range(2):
        with transaction() as session:
            ask(session, 60)
            ask(session, 60, "SELECT 2 + :number")

    [line] = told()
    statement = "'SELECT CAST(%(number)s AS int)'"
    assert line == f"task.repeats_a_statement task='orders.remind' statement={statement} count=51"


def test_each_run_of_a_task_is_told_of_itself(scope: TaskScope, told: Callable[[], list[str]]) -> None:
    for task in ("orders.remind", "orders.forget"):
        with task_scope(task, repeatable=False), transaction() as session:
            ask(session, 51)

    assert [line.split()[1] for line in told()] == ["task='orders.remind'", "task='orders.forget'"]


def test_as_often_as_told_is_not_too_often(scope: TaskScope, told: Callable[[], list[str]]) -> None:
    with transaction() as session:
        ask(session, 50)

    assert told() == []


def test_the_environment_can_say_how_often(
    told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, scope: TaskScope, restart: Callable[[], None]
) -> None:
    for limit in ("60", "2"):
        monkeypatch.setenv("HARBOR_REPEATED_STATEMENTS", limit)
        restart()
        with transaction() as session:
            ask(session, 60)
        assert len(told()) == (limit == "2")


def test_work_in_batches_is_not_accused(scope: TaskScope, told: Callable[[], list[str]]) -> None:
    for _ in range(6):
        with transaction() as session:
            ask(session, 10)

    assert scope.statements == 60
    assert told() == []


def test_snapshots_inside_a_transaction_do_not_hide_what_it_repeats(
    scope: TaskScope, told: Callable[[], list[str]]
) -> None:
    with transaction() as session:
        for _ in range(51):
            ask(session, 1)
            with snapshot() as other:
                ask(other, 1)

    assert len(told()) == 1


def test_savepoints_are_not_counted(scope: TaskScope, told: Callable[[], list[str]]) -> None:
    with transaction() as session:
        for _ in range(60):
            session.begin_nested().rollback()
            session.begin_nested().commit()

    assert scope.statements == 0
    assert told() == []


def test_outside_a_task_nothing_is_counted(told: Callable[[], list[str]]) -> None:
    with transaction() as session:
        ask(session, 60)

    assert told() == []
