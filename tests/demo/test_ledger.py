"""The demo's count of jobs and ticks can fail: each promise is broken once, and the count says so."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from db import jobs, reservations
from db.session import transaction
from demo import audit, ledger, tasks
from tests.factories import make_variant
from tests.ledger import claim, lease

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

ORDERS = count()


@pytest.fixture(autouse=True)
def prepared(environ: dict[str, str]) -> None:
    ledger.prepare()


def sell() -> tuple[int, UUID]:
    """A sale with its follow-up, and that one's job."""
    with transaction() as session:
        hold = reservations.reserve(session, f"order-{next(ORDERS)}", {make_variant(stock=1): 1})
    with transaction() as session:
        reservations.confirm(session, hold.id, f"payment-{hold.id}")
        return hold.id, jobs.enqueue(session, tasks.FOLLOW_UP, hold.id)


def run(task_id: UUID, reservation_id: int) -> None:
    """Do a job as a worker does."""
    lease()
    claimed = claim(task_id, tasks.FOLLOW_UP)
    assert claimed is not None
    tasks.follow_up(reservation_id)
    with transaction() as session:
        claimed.complete(session)


def change(statement: str, **told: object) -> None:
    with transaction() as session:
        session.execute(text(statement), told)


def due(until: datetime) -> int:
    return ledger.ticks(until).ticks_due


def decide_ticks(until: datetime) -> None:
    """Write a tick with its job for each second until then, as Beats do."""
    change("UPDATE schedules SET created_at = created_at - interval '10 s'")
    change(
        """
WITH due AS (
  SELECT to_timestamp(n) AS at, harbor_enqueue_v1(s.task) AS task_id
    FROM schedules s, generate_series(floor(extract(epoch FROM s.created_at))::bigint + 1,
                                      floor(extract(epoch FROM CAST(:until AS timestamptz)))::bigint) AS n)
INSERT INTO schedule_ticks (schedule, due_at, task_id) SELECT 'demo-tick', at, task_id FROM due""",
        until=until,
    )


def test_a_follow_up_that_was_done_once_is_done_and_one_that_was_not_is_lost() -> None:
    reservation_id, task_id = sell()
    sell()
    run(task_id, reservation_id)

    found = ledger.jobs([])

    assert (found.jobs_committed, found.jobs_done, found.jobs_lost) == (2, 1, 1)
    assert (found.jobs_twice, found.jobs_unasked, found.jobs_recovered) == (0, 0, 0)
    assert ledger.unended() == 1


def test_a_follow_up_that_was_done_twice_is_seen() -> None:
    reservation_id, task_id = sell()
    run(task_id, reservation_id)
    tasks.follow_up(reservation_id)

    found = ledger.jobs([])

    assert (found.jobs_committed, found.jobs_done, found.jobs_lost, found.jobs_twice) == (1, 0, 0, 1)


def test_a_follow_up_of_no_sale_is_seen() -> None:
    tasks.follow_up(4_711)

    assert (ledger.jobs([]).jobs_committed, ledger.jobs([]).jobs_unasked) == (0, 1)


def test_letters_that_were_not_sent_or_sent_twice_are_seen() -> None:
    letters = ledger.send_letters()
    assert (ledger.progress(letters), ledger.unended()) == (ledger.Progress(0, 0), ledger.LETTERS)
    lease()
    claim(letters[0], tasks.LETTER)
    assert ledger.progress(letters) == ledger.Progress(ledger.LETTERS - 1, 1)
    for letter_id in (1, 2, 2):
        tasks.letter(letter_id)

    found = ledger.jobs([])

    assert (found.letters, found.letters_lost, found.letters_twice) == (ledger.LETTERS, ledger.LETTERS - 2, 1)


def test_what_was_sent_again_is_counted_as_recovered() -> None:
    _, task_id = sell()
    lease()
    change(
        "UPDATE jobs SET state = 'ready', created_at = created_at - interval '6 s' WHERE task_id = :task_id",
        task_id=task_id,
    )
    change("UPDATE jobs SET available_at = statement_timestamp() WHERE task_id = :task_id", task_id=task_id)
    lease()

    assert ledger.jobs([]).jobs_recovered == 1


def test_the_latency_is_that_of_first_attempts_that_met_no_fault() -> None:
    for _ in range(3):
        reservation_id, task_id = sell()
        run(task_id, reservation_id)
    change("""
UPDATE jobs SET attempt = CASE rank WHEN 3 THEN 2 ELSE 1 END,
       started_at = created_at + CASE rank WHEN 1 THEN interval '40 ms' ELSE interval '7 s' END
  FROM (SELECT id AS known, row_number() OVER (ORDER BY id) AS rank FROM jobs) AS ranked WHERE known = id""")
    moment = audit.now() + timedelta(seconds=5)

    found = ledger.jobs([(moment, moment)])
    with_fault = ledger.jobs([])

    assert found.job_latency_p50_ms == found.job_latency_p99_ms == pytest.approx(40)
    assert with_fault.job_latency_p99_ms == pytest.approx(7_000)


def test_each_second_is_due_and_none_is_missed_when_all_are_decided() -> None:
    until = audit.now()
    decide_ticks(until)

    found = ledger.ticks(until)

    assert found.ticks_due >= 10
    assert (found.ticks_missed, found.ticks_twice) == (0, 0)
    assert due(until + timedelta(seconds=5)) == found.ticks_due + 5


def test_a_tick_of_which_nothing_is_written_is_missed_and_one_left_out_by_a_policy_is_not() -> None:
    until = audit.now()
    decide_ticks(until)
    change("UPDATE schedule_ticks SET task_id = NULL, skipped = 'superseded'")
    change("DELETE FROM jobs")
    before = ledger.ticks(until)
    change("DELETE FROM schedule_ticks WHERE due_at = (SELECT max(due_at) FROM schedule_ticks)")

    after = ledger.ticks(until)

    assert (before.ticks_missed, after.ticks_missed) == (0, 1)
    assert after.ticks_due == before.ticks_due


def test_a_second_job_of_a_tick_is_seen() -> None:
    decide_ticks(audit.now())
    change("SELECT harbor_enqueue_v1('demo.tick')")

    assert ledger.ticks(audit.now()).ticks_twice == 1
