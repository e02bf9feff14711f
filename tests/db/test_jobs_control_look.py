"""What operators see of jobs and queues: right, and page by page."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from db import jobs
from db.errors import InvalidLimit, InvalidRate, JobNotFound, QueueNotFound
from db.jobs import JobFilter, JobState, limits, read, stats
from db.session import snapshot, transaction
from tests.db.sql import change, rows
from tests.ledger import attempt, claimed, fill, lease, make_type, pass_time, put, run_out

if TYPE_CHECKING:
    from uuid import UUID


@pytest.fixture
def _types(database: None) -> None:
    make_type()
    make_type("sample.bulky", queue="bulk")


def listed(wanted: JobFilter | None = None, **options: Any) -> list[read.ListedJob]:
    with snapshot() as session:
        return read.page(session, wanted, **options)


def shown(task_id: UUID) -> read.JobDetails:
    with snapshot() as session:
        return read.show(session, task_id)


def figures() -> stats.Stats:
    with snapshot() as session:
        return stats.stats(session)


def limit(queue: str = "default", **changes: Any) -> limits.QueueLimits:
    with transaction() as session:
        return limits.limit(session, queue, changes, "ada")


# ---- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_types")
def test_pages_hold_every_job_once_newest_first_also_when_one_has_gone() -> None:
    made = [put() for _ in range(7)]
    newest_first = sorted(made, reverse=True)

    first = listed(limit=3)
    change("DELETE FROM jobs WHERE task_id = :id", id=first[-1].task_id)
    rest = listed(limit=5, after=first[-1].task_id)

    assert [job.task_id for job in first + rest] == newest_first
    assert listed(after=min(made)) == []


@pytest.mark.usefixtures("_types")
def test_a_list_says_what_is_special_about_a_job() -> None:
    put(ordering_key="k")
    blocked, later, lost = put(ordering_key="k"), put(delay=60), claimed()
    run_out(lost)
    lease()

    found = {job.task_id: job for job in listed()}

    assert (found[blocked].blocked, found[blocked].later) == (True, False)
    assert (found[later].later, found[later].lost) == (True, False)
    assert (found[lost.task_id].lost, found[lost.task_id].state) == (True, JobState.RUNNING)


@pytest.mark.usefixtures("_types")
@pytest.mark.parametrize("wrong", [0, 1_001, -1])
def test_a_page_has_its_bounds(wrong: int) -> None:
    with pytest.raises(InvalidLimit, match="limit must be an integer from 1 to 1000"):
        listed(limit=wrong)


# ---- one job ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_types")
def test_a_job_names_the_one_that_it_waits_for() -> None:
    first, second, third = (put(ordering_key="k") for _ in range(3))
    assert shown(second).head == read.Head(first, JobState.READY)
    lease()

    assert shown(second).head == shown(third).head == read.Head(first, JobState.PUBLISHED)
    assert shown(first).head is None


@pytest.mark.usefixtures("_types")
def test_a_job_tells_its_attempts_and_what_stands_in_its_way() -> None:
    taken = claimed()
    with transaction() as session:
        jobs.retry(session, taken, "no luck")
    limit(max_in_flight=1, rate_per_second=2.5)
    put()
    change("UPDATE queue_control SET tokens = 1")
    lease()

    told = shown(taken.task_id)

    assert [(each.attempt, each.outcome, each.error) for each in told.attempts] == [(1, "failed", "no luck")]
    assert told.limits == limits.QueueLimits(paused=False, max_in_flight=1, rate_per_second=2.5)
    assert told.in_flight == 1
    assert "args" not in repr(told)


@pytest.mark.usefixtures("_types")
def test_a_job_that_does_not_exist_is_named() -> None:
    with pytest.raises(JobNotFound):
        shown(uuid4())


# ---- queues ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_types")
def test_figures_count_each_live_job_once_and_by_where_it_is() -> None:
    put(ordering_key="k")
    lease()
    put(ordering_key="k")
    lease()
    put(delay=60)
    pass_time(put("sample.bulky"), timedelta(seconds=90))
    lost, _running = claimed(), claimed()
    run_out(lost)
    pass_time(put("sample.bulky"), timedelta(seconds=90))
    fill(3, "dead", task="sample.bulky")

    found = figures()

    default, bulk = found.queues["default"], found.queues["bulk"]
    assert (default.due, default.later, default.blocked, default.published) == (0, 1, 1, 1)
    assert (default.running, default.lost, default.dead) == (1, 1, 3)
    assert (bulk.due, bulk.published) == (1, 1)
    assert bulk.oldest_due_seconds is not None
    assert 90 <= bulk.oldest_due_seconds < 120
    assert found.tasks["sample.bulky"].due == 1
    assert found.tasks["sample.count"].blocked == 1


@pytest.mark.usefixtures("_types")
def test_figures_tell_how_long_jobs_waited_and_ran_and_how_many_get_done() -> None:
    taken = claimed()
    with attempt(taken), transaction():
        pass
    told = "UPDATE jobs SET published_at = finished_at - interval '5 s', started_at = finished_at - interval '2 s'"
    change(told)

    found = figures().queues["default"]

    assert found.wait_seconds == pytest.approx((3, 3))
    assert found.run_seconds == pytest.approx((2, 2))
    assert found.done_per_second == pytest.approx(0.1)
    assert figures().queues["bulk"].wait_seconds is None


@pytest.mark.usefixtures("_types")
def test_a_queue_that_no_pool_reads_is_shown_while_it_has_jobs() -> None:
    make_type("sample.moved", queue="moved")
    put("sample.moved")
    make_type("sample.moved", queue="default")

    assert figures().queues["moved"].due == 1


@pytest.mark.usefixtures("_types")
def test_counts_end_where_they_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MOST_COUNTED", 5)
    fill(5, "ready")
    fill(4, "published")

    default = figures().queues["default"]

    assert (default.due, default.published, default.at_least) == (5, 4, ["due"])


@pytest.mark.usefixtures("_types")
def test_a_queue_is_paused_and_goes_on() -> None:
    put()
    with transaction() as session:
        assert limits.pause(session, "default", "ada")
        assert not limits.pause(session, "default", "ada")
    assert lease() == []
    with transaction() as session:
        assert limits.resume(session, "default", "bob")
        assert not limits.resume(session, "default", "bob")

    assert len(lease()) == 1
    told = rows("SELECT actor, action, subject FROM operator_actions ORDER BY id")
    assert told == [("ada", "queues.pause", "default"), ("bob", "queues.resume", "default")]


@pytest.mark.usefixtures("_types")
def test_a_limit_that_is_not_named_stays_and_none_lifts_it() -> None:
    assert limit(max_in_flight=2, rate_per_second=5.0) == limits.QueueLimits(False, 2, 5.0)
    assert limit(rate_per_second=None) == limits.QueueLimits(False, 2, None)
    for _ in range(3):
        put()

    assert len(lease()) == 2


@pytest.mark.usefixtures("_types")
def test_a_lower_rate_counts_at_once() -> None:
    limit(rate_per_second=1_000.0)
    change("UPDATE queue_control SET tokens = 1000")
    limit(rate_per_second=2.0)
    for _ in range(10):
        put()

    assert len(lease()) <= 2


@pytest.mark.usefixtures("_types")
@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), float("inf"), 1e9, True, "2"])
def test_a_rate_out_of_range_is_refused(rate: Any) -> None:
    with pytest.raises(InvalidRate, match="rate_per_second must be a number from"):
        limit(rate_per_second=rate)
    with pytest.raises(InvalidLimit, match="max_in_flight"):
        limit(max_in_flight=0)
    assert rows("SELECT * FROM queue_control") == []


@pytest.mark.usefixtures("_types")
def test_a_queue_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(QueueNotFound, match=r"^Queue bulky does not exist; there are bulk, default, expiry\.$"):
        limit("bulky", max_in_flight=1)
