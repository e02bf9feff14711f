"""What a run of a task leaves: one line in the log, no open connection, and a worker that takes the next message."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.processes import wait_until
from tests.worker.conftest import RUN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.conftest import Worker

_LOCK = 4_815_162_342  # Any number that no other test locks.


@contextmanager
def lock_held(servers: dict[str, str]) -> Iterator[None]:
    """Somebody else has the lock."""
    plain = make_url(servers["HARBOR_DATABASE_URL"]).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(hide_password=False)) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        yield


def test_a_run_logs_its_task_id_attempt_seconds_and_statements(worker: Worker) -> None:
    lines = worker.run("sample.read")

    ran = next(line for line in lines if line["event"] == "task.ran")
    assert (ran["task"], ran["attempt"], ran["outcome"]) == ("sample.read", 1, "done")
    assert 0 <= ran["seconds"] < 10
    assert ran["statements"] == 1


def test_a_slow_statement_is_told_with_the_run_that_sent_it(worker: Worker, servers: dict[str, str]) -> None:
    with lock_held(servers):
        task_id = worker.send("sample.wait_for_lock", _LOCK)
        slow = worker.wait_for("query.slow", task_id=task_id, attempt=1)
    worker.wait_for("task.ran", task_id=task_id, outcome="done")

    assert (slow["task"], slow["outcome"], slow["level"]) == ("sample.wait_for_lock", "LockNotAvailable", "warning")
    assert slow["statement"] == "SELECT pg_advisory_xact_lock(%(key)s)"
    assert str(_LOCK) not in json.dumps(worker.lines(task_id))


def test_lines_that_a_task_logs_itself_say_which_run_they_belong_to(worker: Worker) -> None:
    lines = worker.run("sample.add", 1, 2)

    added = next(line for line in lines if line["event"] == "sample.added")
    assert (added["task"], added["attempt"], added["total"]) == ("sample.add", 1, 3)


def test_a_child_has_an_engine_of_its_own_size_and_name(worker: Worker) -> None:
    lines = worker.run("sample.read")

    assert lines[0]["application_name"] == "harbor-worker-default"
    assert lines[-1]["pool_size"] == 3


def test_a_second_transaction_is_refused(worker: Worker) -> None:
    lines = worker.run("sample.twice")

    ran = [line["outcome"] for line in lines if line["event"] == "task.ran"]
    assert ran == ["refused"]
    assert "opened a second transaction" in str(lines)


def test_a_repeatable_task_may_have_several_transactions(worker: Worker) -> None:
    ran = [line for line in worker.run("sample.repeat") if line["event"] == "task.ran"]

    assert [line["outcome"] for line in ran] == ["done"]


def test_an_expected_refusal_is_one_line_that_names_it_without_a_traceback(worker: Worker) -> None:
    lines = [line for line in worker.run("sample.refuse") if line["event"] != "sample.over"]

    assert len(lines) == 1
    assert "Variant 7 does not exist" in str(lines[0])
    assert "exception" not in lines[0]


def test_an_unexpected_error_is_logged_with_its_traceback(worker: Worker) -> None:
    lines = worker.run("sample.break_down")

    failed = [line for line in lines if line["level"] == "error"]
    assert len(failed) == 1
    assert "nobody expected this" in failed[0]["exception"]
    assert "break_down" in failed[0]["exception"]


@pytest.mark.parametrize("task", ["sample.add", "sample.no_such_task"])
def test_arguments_are_not_logged(worker: Worker, task: str) -> None:
    worker.send(task, "a secret of the customer")
    worker.run("sample.read")

    assert "secret" not in worker.process.text()


@pytest.mark.parametrize(
    ("task", "args"),
    [
        ("sample.read", ()),
        ("sample.twice", ()),
        ("sample.repeat", ()),
        ("sample.refuse", ()),
        ("sample.break_down", ()),
        ("sample.add", (1,)),
    ],
)
def test_after_each_task_no_connection_is_checked_out(worker: Worker, task: str, args: tuple[int, ...]) -> None:
    over = worker.run(task, *args)[-1]

    assert over["checked_out"] == 0


def test_a_leaked_connection_is_seen(new_worker: Worker) -> None:
    over = new_worker.run("sample.leak")[-1]

    assert over["checked_out"] == 1


def test_a_lock_that_takes_too_long_is_waited_for_again(worker: Worker, servers: dict[str, str]) -> None:
    with lock_held(servers):
        task_id = worker.send("sample.wait_for_lock", _LOCK)
        worker.wait_for("task.ran", task_id=task_id, attempt=1)

    again = worker.wait_for("task.ran", task_id=task_id, outcome="done")
    assert again["attempt"] > 1


def test_a_task_that_kills_its_worker_is_tried_again_and_then_given_up(new_worker: Worker) -> None:
    task_id = new_worker.send("sample.die")

    new_worker.wait_for("sample.dies", task_id=task_id, attempt=2)
    wait_until(lambda: not new_worker.broker.unacked(), RUN_SECONDS, new_worker.process)
    new_worker.run("sample.read")

    assert [line["attempt"] for line in new_worker.process.events("sample.dies")] == [1, 2]
    assert new_worker.broker.lengths() == {}
