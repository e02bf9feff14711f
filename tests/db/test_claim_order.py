"""Jobs of one ordering key: one at a time and in turn, also when some of them fail, and no key stands still."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from db import jobs
from db.session import transaction
from tests.db.sql import change
from tests.ledger import attempt, claim, claimed, elsewhere, lease, make_type, put, row, sweep


@pytest.fixture(autouse=True)
def _count(database: None) -> None:
    make_type()


def test_an_older_job_that_an_operator_retries_does_not_stop_its_key_for_ever() -> None:
    older, newer = claimed(ordering_key="k"), put(ordering_key="k")
    with transaction() as session:
        jobs.bury(session, older, "for good")
    lease()
    running = claim(newer)
    assert running is not None
    change("UPDATE jobs SET state = 'ready', available_at = statement_timestamp() WHERE id = :id", id=older.job_id)
    assert lease() == []  # It waits for the one that runs.
    with transaction() as session:
        jobs.give_back(session, running)

    # Now the newer one waits for the older one, which must not wait for it any more.
    published = [message.task_id for _ in range(3) for message in lease()]

    assert published == [older.task_id]


def test_the_next_of_a_job_that_ends_in_a_stricter_transaction_is_let_go_by_the_sweep() -> None:
    first, second = claimed(ordering_key="k"), put(ordering_key="k")

    with attempt(first), transaction() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        session.execute(text("SELECT 1"))
        elsewhere(lease)
    assert row(second).blocked  # It began to wait after the snapshot that its predecessor ended in.

    assert sweep().unblocked == 1
    assert [message.task_id for message in lease()] == [second]
