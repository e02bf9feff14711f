"""A wrong job is an InvalidJob that names the field, whoever noticed it: this package, or the database."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

import harbor_client
from db.inventory import Product
from harbor_client import InvalidJob
from tests.db.sql import value
from tests.db.wrong_jobs import BOTH, ONLY_PYTHON, TASK, Wrong

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

WRONG = harbor_client.enqueue(TASK, "42", "pay-1")


@pytest.mark.parametrize("wrong", [*BOTH, *ONLY_PYTHON], ids=lambda wrong: wrong.id[:70])
def test_a_wrong_job_is_refused_and_its_field_named(session: Session, wrong: Wrong) -> None:
    def enqueue(*before: harbor_client.Enqueue) -> None:
        told = harbor_client.enqueue(wrong.task, *wrong.args, **wrong.kwargs, **wrong.options)
        session.execute(harbor_client.enqueue_many([*before, told]) if before else told)

    with pytest.raises(InvalidJob) as refused, harbor_client.refusals():
        enqueue()
    session.rollback()
    with pytest.raises(InvalidJob) as refused_in_batch, harbor_client.refusals():
        enqueue(harbor_client.enqueue(TASK, 42, "pay-1"))
    session.rollback()

    assert (refused.value.field, wrong.problem in refused.value.problem) == (wrong.named, True), refused.value
    assert refused_in_batch.value.field.removeprefix("jobs[1].") == wrong.named
    assert value("SELECT count(*) FROM jobs") == 0


def test_a_refusal_says_task_field_and_problem(session: Session) -> None:
    with pytest.raises(InvalidJob) as refused, harbor_client.refusals():
        session.execute(WRONG)

    error = refused.value
    assert (error.task, error.field) == (TASK, "reservation_id")
    assert str(error) == f"Job {TASK}: reservation_id must be of type integer, and was of type string."


def test_an_orm_object_is_refused_with_a_hint() -> None:
    row = Product(sku="HBR-MUG-01", name="Harbor mug", price_cents=1290)

    with pytest.raises(InvalidJob, match="payment_ref is an ORM object; pass its primary key"):
        harbor_client.enqueue(TASK, 42, payment_ref=row)


def test_refusals_also_go_around_an_await(url: str) -> None:
    async def put() -> None:
        engine = create_async_engine(url)
        try:
            async with engine.begin() as connection:
                with harbor_client.refusals():
                    await connection.execute(WRONG)
        finally:
            await engine.dispose()

    with pytest.raises(InvalidJob, match="reservation_id must be of type integer"):
        asyncio.run(put())


def test_a_savepoint_around_it_lets_the_transaction_go_on(session: Session) -> None:
    with pytest.raises(InvalidJob), harbor_client.refusals(), session.begin_nested():
        session.execute(WRONG)
    session.execute(harbor_client.enqueue(TASK, 42, "pay-1"))
    session.commit()

    assert value("SELECT count(*) FROM jobs") == 1


def test_every_other_error_passes(session: Session) -> None:
    with pytest.raises(ProgrammingError), harbor_client.refusals():
        session.execute(text("SELECT * FROM no_such_table"))
    with pytest.raises(ZeroDivisionError), harbor_client.refusals():
        1 / 0  # noqa: B018 - that is what raises


# ---- what other drivers raise: none of them is installed, so these have their attributes -----------------------------


class _Driver(Exception):
    """An error with whatever attributes a driver gives it."""

    def __init__(self, **told: Any) -> None:
        super().__init__("refused")
        vars(self).update(told)


MESSAGE = "jobs[3]: job sample.pay: amount is missing"
_DIAG = SimpleNamespace(column_name="amount", table_name=TASK, message_detail="is missing", message_primary=MESSAGE)
_ASYNCPG = _Driver(sqlstate="22X10", column_name="amount", table_name=TASK, detail="is missing", message=MESSAGE)
DRIVERS = {
    "psycopg": _Driver(sqlstate="22X10", diag=_DIAG),
    "psycopg2": _Driver(pgcode="22X10", diag=_DIAG),
    "asyncpg": _ASYNCPG,
    "asyncpg adapted": _Driver(sqlstate="22X10", pgcode="22X10", detail="is missing", driver_exception=_ASYNCPG),
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_error_of_any_driver_is_read(driver: str) -> None:
    for error in (DRIVERS[driver], DBAPIError("SELECT 1", {}, DRIVERS[driver])):
        read = InvalidJob.of(error)

        assert read is not None
        assert (read.task, read.field, read.problem) == (TASK, "jobs[3].amount", "is missing")


def test_an_error_whose_driver_keeps_its_cause_is_read() -> None:
    adapted = _Driver(sqlstate="22X10")
    adapted.__cause__ = _ASYNCPG

    assert str(InvalidJob.of(DBAPIError("SELECT 1", {}, adapted))) == "Job sample.pay: jobs[3].amount is missing."


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), _Driver(sqlstate="23505", diag=_DIAG), _Driver(sqlstate="22X10")]
)
def test_an_error_that_is_no_refusal_is_none(error: Exception) -> None:
    assert InvalidJob.of(error) is None
