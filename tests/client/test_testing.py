"""What a service tests with: was it enqueued, and what happens when it runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import harbor_client
from harbor_client import tasks, testing
from tests.db.sql import rows, value
from tests.db.wrong_jobs import TASK

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


@pytest.mark.parametrize(
    "job",
    [harbor_client.enqueue(TASK, 42, "pay-1"), harbor_client.enqueue(TASK, payment_ref="pay-1", reservation_id=42)],
    ids=["by place", "by name"],
)
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((42,), {}),
        ((42, "pay-1"), {}),
        ((42,), {"payment_ref": "pay-1"}),
        ((), {"reservation_id": 42}),
        ((), {"payment_ref": "pay-1"}),
    ],
)
def test_a_job_is_found_by_what_is_said_of_its_arguments(
    session: Session, job: harbor_client.Enqueue, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    task_id = session.execute(job).scalar_one()
    session.execute(tasks.reservations.release(7))

    found = testing.assert_enqueued(session, TASK, *args, **kwargs)

    assert (found.task_id, found.arguments) == (task_id, {"reservation_id": 42, "payment_ref": "pay-1"})


@pytest.mark.parametrize(
    ("task", "args", "kwargs"),
    [
        (TASK, (43,), {}),
        (TASK, ("pay-1",), {}),
        (TASK, (42, "pay-1", None), {}),
        (TASK, (42,), {"payment_ref": "pay-2"}),
        (TASK, (), {"amount": None}),
        ("reservations.release", (42,), {}),
        ("sample.unknown", (), {}),
    ],
)
def test_a_job_that_is_not_there_fails_and_lists_what_is(
    session: Session, task: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    session.execute(harbor_client.enqueue(TASK, 42, payment_ref="pay-1"))
    session.execute(tasks.reservations.release(7))

    with pytest.raises(AssertionError) as failed:
        testing.assert_enqueued(session, task, *args, **kwargs)

    message = str(failed.value)
    assert message.startswith(f"{task}(")
    assert f"\n  {TASK}(reservation_id=42, payment_ref='pay-1') ready" in message
    assert "\n  reservations.release(reservation_id=7) ready" in message


def test_nothing_enqueued_is_said_to_be_nothing(session: Session) -> None:
    with pytest.raises(AssertionError, match="was not enqueued; enqueued was:\n  nothing"):
        testing.assert_enqueued(session, TASK)


def test_only_what_the_session_sees_is_found(engine: Engine, session: Session) -> None:
    session.execute(tasks.reservations.release(7))
    with engine.connect() as another:
        unseen = testing.enqueued(another)

    session.rollback()

    assert (unseen, testing.enqueued(session)) == ([], [])


def test_jobs_run_in_the_order_in_which_they_are_due_in_the_tests_own_transaction(session: Session) -> None:
    for number, delay in ((1, 60), (2, 0), (3, 0)):
        session.execute(tasks.reservations.release(number, delay=delay))
    ran: list[int] = []

    def release(reservation_id: int) -> None:
        ran.append(reservation_id)

    drained = testing.drain(session, {"reservations.release": release})

    assert ran == [2, 3, 1] == [job.arguments["reservation_id"] for job in drained]
    assert [job.state for job in testing.enqueued(session)] == ["done"] * 3
    assert testing.drain(session, {}) == []
    session.rollback()
    assert value("SELECT count(*) FROM jobs") == 0


def test_what_a_handler_enqueues_runs_too(session: Session) -> None:
    session.execute(tasks.reservations.release(3, dedupe_key="release", ordering_key="release"))

    def release(reservation_id: int) -> None:
        assert testing.assert_enqueued(session, "reservations.release", reservation_id).state == "running"
        if reservation_id:
            session.execute(tasks.reservations.release(reservation_id - 1, ordering_key="release"))

    drained = testing.drain(session, {"reservations.release": release})
    session.commit()

    assert [job.arguments["reservation_id"] for job in drained] == [3, 2, 1, 0]
    assert rows("SELECT DISTINCT state, attempt FROM jobs") == [("done", 1)]


def test_jobs_that_enqueue_each_other_for_ever_end_with_an_error(session: Session) -> None:
    again = tasks.reservations.release(7)
    session.execute(again)

    with pytest.raises(RuntimeError, match="10 jobs have run"):
        testing.drain(session, {"reservations.release": lambda **_: session.execute(again)}, limit=10)


def test_a_job_without_a_handler_is_named(session: Session) -> None:
    session.execute(tasks.reservations.release(7))

    with pytest.raises(testing.NoHandler, match=r"release\(reservation_id=7\) ready has no handler.*for: a\.b, c\.d"):
        testing.drain(session, {"c.d": print, "a.b": print})


def test_what_a_handler_raises_is_raised(session: Session) -> None:
    session.execute(tasks.reservations.release(7))

    with pytest.raises(TypeError):
        testing.drain(session, {"reservations.release": lambda: None})
    assert [job.state for job in testing.enqueued(session)] == ["running"]


def test_an_async_session_is_asked_through_run_sync(url: str) -> None:
    async def test() -> list[testing.Enqueued]:
        engine = create_async_engine(url)
        async with AsyncSession(engine) as session:
            await session.execute(tasks.reservations.release(42))
            await session.run_sync(testing.assert_enqueued, "reservations.release", 42)
            drained = await session.run_sync(testing.drain, {"reservations.release": lambda **_: None})
        await engine.dispose()
        return drained

    assert [job.task for job in asyncio.run(test())] == ["reservations.release"]
