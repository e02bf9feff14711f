"""What a relay leases: what is due, once, in order, within what operators allow, and again when it got lost."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from db import jobs
from db.jobs import publish
from db.session import transaction
from tests import ledger
from tests.db.sql import change, value

if TYPE_CHECKING:
    from uuid import UUID

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def _types(database: None) -> None:
    for queue in ("default", "expiry", "bulk"):
        ledger.make_type(f"sample.{queue}", queue=queue)
    ledger.make_type("sample.count")


def ids(messages: list[jobs.Message]) -> list[UUID]:
    return [message.task_id for message in messages]


def control(queue: str = "default", **limits: object) -> None:
    """Limit a queue."""
    columns = ", ".join(limits)
    change(f"INSERT INTO queue_control (queue, {columns}) VALUES ('{queue}', {', '.join(map(repr, limits.values()))})")


# ---- what is due -----------------------------------------------------------------------------------------------------


def test_a_due_job_is_leased_once_and_one_that_is_not_due_waits() -> None:
    due, later = ledger.put(), ledger.put(delay=60)

    assert ids(ledger.lease()) == [due]
    assert ledger.lease() == []
    assert (ledger.state(due), ledger.state(later)) == ("published", "ready")


def test_a_message_carries_what_its_row_says() -> None:
    ledger.make_type("sample.told", queue="bulk", note=["string"])
    task_id = ledger.put("sample.told", priority=2, note="Grüße 'quoted'")

    (message,) = ledger.lease()

    assert message == jobs.Message(task_id, "sample.told", "bulk", 2, "[]", '{"note": "Grüße \'quoted\'"}')


def test_the_lower_priority_number_goes_first_and_then_the_older_job() -> None:
    low, first, second, urgent = (ledger.put(priority=number) for number in (9, 5, 5, 0))

    assert ids(ledger.lease()) == [urgent, first, second, low]


def test_queues_share_a_lease_evenly_and_none_starves() -> None:
    for queue, count in (("bulk", 30), ("default", 30), ("expiry", 4)):
        for _ in range(count):
            ledger.put(f"sample.{queue}")

    counts = Counter(message.queue for message in ledger.lease(limit=30))

    assert counts == {"bulk": 10, "default": 10, "expiry": 4}


def test_of_two_relays_each_job_is_leased_by_one() -> None:
    expected = {ledger.put() for _ in range(200)}
    meeting = Barrier(4)

    def relay(_: int) -> list[UUID]:
        taken: list[UUID] = []
        meeting.wait(10)
        while batch := ledger.lease(limit=10):
            taken += ids(batch)
        return taken

    with ThreadPoolExecutor(4) as relays:
        taken = [task_id for batch in relays.map(relay, range(4)) for task_id in batch]

    assert len(taken) == 200
    assert set(taken) == expected


def test_a_relay_passes_over_what_another_one_is_leasing_and_does_not_wait() -> None:
    first, second = ledger.put(), ledger.put()

    with transaction() as session:
        mine = ids(jobs.lease(session, ledger.REPUBLISH_SECONDS, 1))
        others = ids(ledger.lease())

    assert (mine, others) == ([first], [second])


def test_a_relay_that_dies_while_it_leases_leaves_the_job_to_others() -> None:
    task_id = ledger.put()

    with pytest.raises(LookupError):
        lease_and_die()

    assert ids(ledger.lease()) == [task_id]


def lease_and_die() -> None:
    with transaction() as session:
        jobs.lease(session, ledger.REPUBLISH_SECONDS)
        raise LookupError


# ---- what operators allow --------------------------------------------------------------------------------------------


def test_a_paused_queue_is_left_alone_and_the_others_are_not() -> None:
    ledger.put("sample.bulk")
    other = ledger.put("sample.default")
    control("bulk", paused=True)

    assert ids(ledger.lease()) == [other]


def test_no_more_are_in_flight_than_allowed_whether_published_or_running() -> None:
    control(max_in_flight=3)
    for _ in range(5):
        ledger.put()

    first = ledger.lease()
    assert len(first) == 3
    assert ledger.lease() == []
    assert ledger.claim(first[0].task_id) is not None
    assert ledger.lease() == []
    change("UPDATE jobs SET state = 'done' WHERE state = 'running'")
    assert len(ledger.lease()) == 1


def test_relays_do_not_exceed_a_limit_together() -> None:
    assert leased_together() == 3


def test_without_the_lock_of_the_queues_row_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    statement = str(publish._CONTROL)
    assert "FOR NO KEY UPDATE SKIP LOCKED" in statement
    monkeypatch.setattr(publish, "_CONTROL", text(statement.replace("FOR NO KEY UPDATE SKIP LOCKED", "")))

    assert leased_together() > 3


def leased_together() -> int:
    """How many jobs two relays lease at the same time from a queue that may have three in flight."""
    control(max_in_flight=3)
    for _ in range(10):
        ledger.put()
    with transaction() as session:
        return len(jobs.lease(session, ledger.REPUBLISH_SECONDS)) + len(ledger.lease())


def test_a_rate_lets_a_seconds_worth_go_at_once_and_then_as_many_as_the_time_allows() -> None:
    control(rate_per_second=4, tokens=4)
    for _ in range(20):
        ledger.put()

    assert len(ledger.lease()) == 4
    assert len(ledger.lease()) <= 1  # What a busy machine lets pass meanwhile.
    change("UPDATE queue_control SET tokens = 0, refilled_at = statement_timestamp() - interval '0.5 s'")
    assert len(ledger.lease()) == 2
    change("UPDATE queue_control SET refilled_at = statement_timestamp() - interval '1 hour'")
    assert len(ledger.lease()) == 4


def test_a_clock_that_was_set_back_does_not_stop_a_queue_that_has_a_rate() -> None:
    control(rate_per_second=100, tokens=50)
    change("UPDATE queue_control SET refilled_at = statement_timestamp() + interval '10 minutes'")
    ledger.put()

    assert len(ledger.lease()) == 1


def test_a_relay_that_is_frozen_in_a_lease_gives_it_up_after_some_seconds() -> None:
    ledger.put()

    with transaction() as session:
        jobs.lease(session, ledger.REPUBLISH_SECONDS)
        limit = session.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()

    assert limit == "5s"


def test_a_rate_below_one_per_second_lets_one_go_at_a_time() -> None:
    control(rate_per_second=0.1, tokens=1)
    for _ in range(3):
        ledger.put()

    assert len(ledger.lease()) == 1
    assert ledger.lease() == []
    change("UPDATE queue_control SET refilled_at = statement_timestamp() - interval '10 s'")
    assert len(ledger.lease()) == 1


# ---- one at a time per key -------------------------------------------------------------------------------------------


def test_jobs_of_a_key_go_one_at_a_time_in_their_order_and_other_keys_do_not_wait() -> None:
    first, second, third = (ledger.put(ordering_key="order-1") for _ in range(3))
    other = ledger.put(ordering_key="order-2")

    assert ids(ledger.lease()) == [first, other]
    for earlier, later in ((first, second), (second, third)):
        assert ledger.lease() == []
        assert ledger.claim(earlier) is not None
        change(f"UPDATE jobs SET state = 'done' WHERE task_id = '{earlier}'")
        assert ids(ledger.lease()) == [later]


def test_a_long_line_behind_one_key_has_left_the_index_that_relays_read() -> None:
    with transaction() as session:
        jobs.enqueue_many(session, [jobs.JobRequest("sample.count", ordering_key="order-1") for _ in range(300)])

    ledger.lease()

    assert value("SELECT count(*) FROM jobs WHERE state = 'ready' AND NOT blocked") == 0
    assert value("SELECT count(*) FROM jobs WHERE blocked") == 299


@pytest.mark.parametrize("ending", ["done", "dead", "cancelled", "ready"])
def test_however_a_job_leaves_flight_the_next_of_its_key_gets_its_turn(ending: str) -> None:
    first, second = ledger.put(ordering_key="order-1"), ledger.put(ordering_key="order-1")
    ledger.lease()
    ledger.claim(first)
    assert ledger.row(second).blocked

    change(f"UPDATE jobs SET state = '{ending}', available_at = statement_timestamp() WHERE task_id = '{first}'")

    assert ids(ledger.lease()) == [first if ending == "ready" else second]


def test_a_block_that_nobody_lifted_is_lifted_by_the_sweep() -> None:
    first, second = ledger.put(ordering_key="order-1"), ledger.put(ordering_key="order-1")
    ledger.lease()
    ledger.claim(first)
    with transaction() as session:
        session.execute(text("ALTER TABLE jobs DISABLE TRIGGER harbor_job_moves"))
        session.execute(
            text(
                "UPDATE jobs SET state = 'done', lease_token = NULL, lease_until = NULL,"
                " finished_at = statement_timestamp() WHERE state = 'running'"
            )
        )
        session.execute(text("ALTER TABLE jobs ENABLE TRIGGER harbor_job_moves"))
    assert ledger.lease() == []

    assert sweep().unblocked == 1
    assert ids(ledger.lease()) == [second]


def test_the_sweep_leaves_a_block_alone_that_has_its_reason() -> None:
    for _ in range(3):
        ledger.put(ordering_key="order-1")
    ledger.lease()

    assert sweep().unblocked == 0


# ---- what got lost ---------------------------------------------------------------------------------------------------


def sweep(limit: int = 1_000) -> jobs.Swept:
    with transaction() as session:
        return jobs.sweep(session, limit)


def test_what_nobody_starts_is_published_again_after_a_time_that_doubles() -> None:
    task_id = ledger.put()
    waits = []
    for _ in range(9):
        assert ids(ledger.lease()) == [task_id]
        row = ledger.row(task_id)
        waits.append(round((row.available_at - row.published_at).total_seconds()))
        assert sweep().never_started == 0
        ledger.pass_time(task_id, timedelta(seconds=waits[-1]))
        assert sweep().never_started == 1

    assert waits == [10, 20, 40, 80, 160, 320, 640, 640, 640]
    assert ledger.row(task_id).publish_count == 9
    assert ledger.row(task_id).attempt == 0


def test_what_a_lost_worker_left_is_published_again_and_the_attempt_counts() -> None:
    task_id = ledger.put()
    ledger.lease()
    ledger.claim(task_id)
    assert sweep().lease_expired == 0

    ledger.pass_time(task_id, timedelta(seconds=ledger.LEASE_SECONDS))

    assert sweep().lease_expired == 1
    assert (ledger.state(task_id), ledger.row(task_id).attempt) == ("ready", 1)
    assert [(attempt, outcome) for attempt, outcome, _ in ledger.attempts(task_id)] == [(1, "lost")]


def test_a_job_whose_last_attempt_was_lost_is_dead() -> None:
    task_id = ledger.put(max_attempts=1)
    ledger.lease()
    ledger.claim(task_id)
    ledger.pass_time(task_id, timedelta(seconds=ledger.LEASE_SECONDS))

    sweep()

    assert ledger.state(task_id) == "dead"


def test_a_lost_job_that_was_asked_to_stop_is_cancelled() -> None:
    task_id = ledger.put()
    ledger.lease()
    ledger.claim(task_id)
    with transaction() as session:
        assert session.execute(text("SELECT harbor_cancel_v1(:id)"), {"id": task_id}).scalar_one() == "running"
    ledger.pass_time(task_id, timedelta(seconds=ledger.LEASE_SECONDS))

    sweep()

    assert ledger.state(task_id) == "cancelled"


def test_a_sweep_takes_no_more_than_its_limit_of_each() -> None:
    for queue in ("bulk", "default", "expiry"):
        for _ in range(4):
            ledger.put(f"sample.{queue}")
    for message in ledger.lease():
        ledger.pass_time(message.task_id, timedelta(seconds=ledger.REPUBLISH_SECONDS))

    assert [sweep(limit=5).never_started for _ in range(4)] == [5, 5, 2, 0]
