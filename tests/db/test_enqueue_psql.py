"""From psql, as a role that is a member of harbor_enqueuer and nothing else: what a service in any language can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import ledger
from tests.db.psql import psql, role
from tests.db.sql import rows, value

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

VERBOSE = r"\set VERBOSITY verbose"
STATUS = "SELECT state, attempt, task, queue, error FROM harbor_job_v1('{}')"


@pytest.fixture
def service(database: None) -> Iterator[str]:
    """A role of a service, and a task that takes a number."""
    ledger.make_type("sample.count", queue="bulk", number=["integer"])
    with role("harbor_enqueuer") as name:
        yield name


def said(name: str, *commands: str) -> list[str]:
    """What psql answers to commands that work."""
    ran = psql(name, *commands)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


def refused(name: str, *commands: str) -> subprocess.CompletedProcess[str]:
    """What psql says of commands of which one does not work."""
    ran = psql(name, VERBOSE, *commands)
    assert ran.returncode != 0
    return ran


def test_a_service_enqueues_with_one_line(service: str) -> None:
    (task_id,) = said(service, "SELECT harbor_enqueue_v1('sample.count', '[42]')")

    assert rows("SELECT task_id::text, args, queue FROM jobs") == [(task_id, [42], "bulk")]


def test_a_job_lives_and_dies_with_the_transaction_of_the_service(service: str) -> None:
    enqueue = "SELECT harbor_enqueue_v1('sample.count', '[{}]')"
    said(service, "BEGIN", enqueue.format(1), "SAVEPOINT s", enqueue.format(2), "ROLLBACK TO s", "COMMIT")
    said(service, "BEGIN", enqueue.format(3), "ROLLBACK")

    assert rows("SELECT args FROM jobs") == [([1],)]


def test_a_service_enqueues_many_and_names_arguments_and_options(service: str) -> None:
    batch = """[{"task": "sample.count", "kwargs": {"number": 1}, "options": {"delay": 60, "priority": 0}},
                {"task": "sample.count", "args": [2], "options": {"dedupe_key": "two"}}]"""

    task_ids = said(service, f"SELECT * FROM harbor_enqueue_many_v1('{batch}')")
    named = said(
        service,
        """SELECT harbor_enqueue_v1(task => 'sample.count', kwargs => '{"number": 2}',
                                                      options => '{"dedupe_key": "two"}')""",
    )

    assert rows("SELECT task_id::text FROM jobs ORDER BY id") == [(task_id,) for task_id in task_ids]
    assert named == task_ids[1:]
    assert rows("SELECT priority, available_at - created_at > '59 s' FROM jobs ORDER BY id")[0] == (0, True)


def test_a_service_asks_how_its_job_is_and_cancels_it(service: str) -> None:
    (task_id,) = said(service, "SELECT harbor_enqueue_v1('sample.count', '[42]')")

    assert said(service, STATUS.format(task_id)) == ["ready|0|sample.count|bulk|"]
    assert said(service, f"SELECT harbor_cancel_v1('{task_id}')") == ["cancelled"]
    assert said(service, STATUS.format(task_id)) == ["cancelled|0|sample.count|bulk|"]


def test_of_a_job_that_does_not_exist_there_is_nothing_to_tell(service: str) -> None:
    unknown = "0199a1c2-0000-7000-8000-000000000001"

    assert said(service, STATUS.format(unknown)) == []
    assert said(service, f"SELECT harbor_cancel_v1('{unknown}') IS NULL") == ["t"]


@pytest.mark.parametrize(
    ("call", "field", "problem"),
    [
        ("harbor_enqueue_v1('sample.unknown')", "task", "is unknown"),
        ("harbor_enqueue_v1('sample.count')", "number", "is missing"),
        (
            """harbor_enqueue_v1('sample.count', '["42"]')""",
            "number",
            "must be of type integer, and was of type string",
        ),
        ("""harbor_enqueue_v1('sample.count', '[42]', '{}', '{"delay": -1}')""", "delay", "is negative"),
        ("""harbor_enqueue_many_v1('[{"task": "sample.count", "args": [1, 2]}]')""", "args", "has 2 values"),
    ],
)
def test_a_refusal_says_hb010_the_field_and_the_problem(service: str, call: str, field: str, problem: str) -> None:
    ran = refused(service, f"SELECT {call}")

    assert "ERROR:  22X10: " in ran.stderr
    assert f"COLUMN NAME:  {field}\n" in ran.stderr
    assert f"DETAIL:  {problem}" in ran.stderr
    assert "TABLE NAME:  sample." in ran.stderr
    assert value("SELECT count(*) FROM jobs") == 0


def test_who_is_no_member_may_not_enqueue(database: None) -> None:
    ledger.make_type("sample.count", number=["integer"])
    with role() as stranger:
        ran = refused(stranger, "SELECT harbor_enqueue_v1('sample.count', '[42]')")

    assert "42501: permission denied for function harbor_enqueue_v1" in ran.stderr
    assert value("SELECT count(*) FROM jobs") == 0
