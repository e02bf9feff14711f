"""Statements that any session or connection executes, in the transaction of whoever executes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

import harbor_client
from harbor_client import tasks
from tests import ledger
from tests.db.sql import rows, value
from tests.db.wrong_jobs import TASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

STATEMENT = harbor_client.enqueue(TASK, 42, payment_ref="pay-1")


def by_session(url: str) -> UUID:
    with Session(create_engine(url, poolclass=NullPool)) as session, session.begin():
        return session.execute(STATEMENT).scalar_one()


def by_connection(url: str) -> UUID:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        return connection.execute(STATEMENT).scalar_one()


def by_async_session(url: str) -> UUID:
    async def put() -> UUID:
        engine = create_async_engine(url)
        async with AsyncSession(engine) as session, session.begin():
            task_id = (await session.execute(STATEMENT)).scalar_one()
        await engine.dispose()
        return task_id

    return asyncio.run(put())


def by_async_connection(url: str) -> UUID:
    async def put() -> UUID:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            task_id = (await connection.execute(STATEMENT)).scalar_one()
        await engine.dispose()
        return task_id

    return asyncio.run(put())


@pytest.mark.parametrize("put", [by_session, by_connection, by_async_session, by_async_connection])
def test_one_statement_serves_sync_and_async_sessions_and_connections(url: str, put: Callable[[str], UUID]) -> None:
    task_id = put(url)

    assert isinstance(task_id, UUID)
    row = ledger.row(task_id)
    assert (row.task, row.args, row.kwargs, row.state) == (TASK, [42], {"payment_ref": "pay-1"}, "ready")


def test_a_savepoint_that_is_rolled_back_takes_its_jobs_with_it(session: Session) -> None:
    kept = session.execute(STATEMENT).scalar_one()
    savepoint = session.begin_nested()
    session.execute(STATEMENT)
    session.execute(harbor_client.enqueue_many([STATEMENT, STATEMENT]))
    savepoint.rollback()
    session.commit()

    assert rows("SELECT task_id FROM jobs") == [(kept,)]


def test_many_jobs_are_one_statement_and_their_ids_in_order(engine: Engine, session: Session) -> None:
    sent: Counter[str] = Counter()
    event.listen(engine, "before_cursor_execute", lambda *told: sent.update([told[2]]))

    wanted = [tasks.reservations.release(number, priority=number % 10) for number in range(100)]
    task_ids = session.execute(harbor_client.enqueue_many(wanted)).scalars().all()
    session.commit()

    assert sent.total() == 1
    written = rows("SELECT task_id, (kwargs->>'reservation_id')::int, priority FROM jobs ORDER BY id")
    assert written == [(task_id, number, number % 10) for number, task_id in enumerate(task_ids)]


def test_every_option_reaches_the_row(session: Session) -> None:
    told: dict[str, Any] = {"priority": 0, "dedupe_key": "d", "ordering_key": "o", "max_attempts": 3}
    statement = harbor_client.enqueue(TASK, 42, "pay-1", delay=timedelta(minutes=1), expires=90.5, **told)
    task_id = session.execute(statement).scalar_one()
    session.commit()

    row = ledger.row(task_id)
    assert {name: getattr(row, name) for name in told} == told
    assert (row.available_at - row.created_at, row.expires_at - row.created_at) == (
        timedelta(seconds=60),
        timedelta(seconds=90.5),
    )


def test_a_moment_is_kept_as_it_was_said(session: Session) -> None:
    at = datetime(2026, 2, 28, 23, 59, 59, 999_999, UTC)
    task_id = session.execute(harbor_client.enqueue(TASK, 42, "pay-1", at=at)).scalar_one()
    session.commit()

    assert ledger.row(task_id).available_at == at


def test_the_same_key_again_is_the_same_job(session: Session) -> None:
    statement = harbor_client.enqueue(TASK, 42, "pay-1", dedupe_key="pay 42")

    assert len({session.execute(statement).scalar_one() for _ in range(3)}) == 1


def test_a_job_tells_how_it_is_and_can_be_cancelled(session: Session) -> None:
    task_id = session.execute(STATEMENT).scalar_one()

    told = session.execute(harbor_client.job(str(task_id))).one()
    assert (told.task, told.queue, told.state, told.attempt, told.cancel_requested) == (
        TASK,
        "default",
        "ready",
        0,
        False,
    )
    assert (told.error, told.started_at, told.finished_at) == (None, None, None)
    assert told.created_at == told.available_at
    assert session.execute(harbor_client.cancel(task_id)).scalar_one() == "cancelled"
    assert session.execute(harbor_client.job(task_id)).one().state == "cancelled"


def test_a_job_that_does_not_exist_is_none(session: Session) -> None:
    unknown = UUID("0199a1c2-0000-7000-8000-000000000001")

    assert session.execute(harbor_client.job(unknown)).one_or_none() is None
    assert session.execute(harbor_client.cancel(unknown)).scalar_one() is None


@pytest.mark.parametrize("wrong", ["", "42", 42, None])
def test_an_id_that_is_none_is_refused(wrong: Any) -> None:
    for statement in (harbor_client.job, harbor_client.cancel):
        with pytest.raises(harbor_client.InvalidJob, match="task_id must be the UUID of a job"):
            statement(wrong)


@pytest.mark.parametrize(("wrong", "field"), [(None, "jobs"), ([STATEMENT, TASK], r"jobs\[1\]")])
def test_what_is_no_list_of_jobs_is_refused(wrong: Any, field: str) -> None:
    with pytest.raises(harbor_client.InvalidJob, match=f"{field} must be"):
        harbor_client.enqueue_many(wrong)


def test_the_services_own_json_serializer_has_no_say(url: str) -> None:
    def refuse(_: object) -> str:
        raise AssertionError("the engine's serializer was asked")

    with create_engine(url, json_serializer=refuse, poolclass=NullPool).begin() as connection:
        connection.execute(STATEMENT)

    assert value("SELECT args FROM jobs") == [42]


def test_a_statement_is_compiled_once_for_all_jobs() -> None:
    first, second = harbor_client.enqueue(TASK, 1, "a"), tasks.reservations.release(2, delay=5)

    assert first._generate_cache_key() == second._generate_cache_key()


def test_a_job_shows_no_values() -> None:
    assert "pay-1" not in f"{STATEMENT}{STATEMENT!r}"
