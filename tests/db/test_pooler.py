"""With HARBOR_DATABASE_POOLER nothing is left on a connection, and each transaction says for itself how long it may be.

These run without a pooler: what they look at is what this process sends. tests/db/test_pgbouncer.py has one.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from db import engine
from db.session import snapshot, transaction
from tests.db.sql import meanwhile, recorded, rows, value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    Begin = Callable[[], AbstractContextManager[Session | Connection]]

LIMITS = (
    "SELECT set_config('statement_timeout', '30000', true), set_config('lock_timeout', '5000', true), "
    "set_config('idle_in_transaction_session_timeout', '60000', true), set_config('timezone', 'UTC', true)"
)
PREPARED = "SELECT count(*) FROM pg_prepared_statements"


@pytest.fixture(params=["transaction"])
def pooler(
    request: pytest.FixtureRequest, restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """This process has been told what stands between it and PostgreSQL."""
    with monkeypatch.context() as told:
        told.setenv("HARBOR_DATABASE_POOLER", request.param)
        restart()
        yield request.param
    restart()


with_and_without = pytest.mark.parametrize("pooler", ["transaction", "none"], indirect=True)


@contextmanager
def after_a_rollback() -> Iterator[Connection]:
    with engine.engine().connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.rollback()
        yield connection


@contextmanager
def after_a_savepoint() -> Iterator[Session]:
    with transaction() as session:
        session.begin_nested().rollback()
        yield session


EDGES: dict[str, Begin] = {
    "transaction": transaction,
    "snapshot": snapshot,
    "begin": lambda: engine.engine().begin(),
    "connect": lambda: engine.engine().connect(),
    "after a rollback": after_a_rollback,
    "after a savepoint": after_a_savepoint,
}


@with_and_without
@pytest.mark.parametrize("edge", EDGES)
def test_the_limits_of_a_transaction_are_one_statement_and_its_first(pooler: str, edge: str) -> None:
    with recorded() as sent, EDGES[edge]() as session:
        session.execute(text("SELECT 2"))

    begun = 2 if edge == "after a rollback" else 1
    assert sent.count(LIMITS) == (begun if pooler == "transaction" else 0)
    assert (sent[0] == LIMITS) is (pooler == "transaction")


@with_and_without
def test_nothing_is_prepared_on_a_connection(pooler: str) -> None:
    with engine.engine().connect() as connection:
        for _ in range(10):
            connection.execute(text("SELECT CAST(:number AS int)"), {"number": 1})
        prepared = connection.execute(text(PREPARED)).scalar_one()

    assert (prepared > 0) is (pooler == "none")


@with_and_without
def test_a_connection_begins_with_the_limits_of_the_server(pooler: str) -> None:
    [(at_its_start,)] = rows("SELECT reset_val FROM pg_settings WHERE name = 'statement_timeout'")

    assert at_its_start == ("0" if pooler == "transaction" else "30000")
    assert value("SHOW statement_timeout") == "30s"


@pytest.mark.parametrize("edge", [transaction, snapshot])
def test_limits_that_cannot_be_set_leave_no_connection_out(pooler: str, edge: Begin) -> None:
    others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    others += " WHERE datname = current_database() AND pid <> pg_backend_pid()"

    def block() -> None:
        with edge() as session:
            session.execute(text("SELECT 1"))

    with meanwhile("set_config", lambda: rows(others)), pytest.raises(OperationalError):
        block()

    pool = engine.engine().pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedout() == 0
    block()
