"""A wrong job is refused, the field is named and nothing is written: in Python and in SQL alike, from one table."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from db import jobs
from db.errors import InvalidArgument, InvalidJob
from db.inventory import Product
from db.jobs import JobRequest, kinds
from db.session import transaction
from db.settings import settings
from tests import ledger
from tests.conftest import str_url
from tests.db.sql import value
from tests.db.wrong_jobs import BOTH, ONLY_PYTHON, ONLY_SQL, TASK, Wrong


@pytest.fixture(autouse=True)
def known(database: None) -> None:
    """A task that SQL knows and this process does not, so that SQL is what checks its arguments."""
    ledger.make_type(TASK, reservation_id=["integer"], payment_ref=["string"])


def by_enqueue(wrong: Wrong) -> tuple[str, str]:
    with pytest.raises(InvalidJob) as refused, transaction() as session:
        jobs.enqueue(session, wrong.task, *wrong.args, **wrong.kwargs, **wrong.options)
    assert str(refused.value) == "Job {task}: {field} {problem}.".format(**refused.value.ids)
    return refused.value.ids["field"], refused.value.ids["problem"]


def by_enqueue_many(wrong: Wrong) -> tuple[str, str]:
    good = JobRequest(TASK, (42, "pay-1"))
    with pytest.raises(InvalidJob) as refused, transaction() as session:
        jobs.enqueue_many(session, [good, JobRequest(wrong.task, wrong.args, wrong.kwargs, **wrong.options)])
    place, _, named = refused.value.ids["field"].partition(".")
    assert place == "jobs[1]"
    return named, refused.value.ids["problem"]


def by_sql(wrong: Wrong) -> tuple[str, str]:
    told = [json.dumps(each) for each in (wrong.args, wrong.kwargs, wrong.options)]
    return _refused("SELECT harbor_enqueue_v1(%s, %s, %s, %s)", wrong.task, *told)


def by_sql_many(wrong: Wrong) -> tuple[str, str]:
    good = {"task": TASK, "args": [42, "pay-1"]}
    told = {"task": wrong.task, "args": wrong.args, "kwargs": wrong.kwargs, "options": wrong.options}
    return _refused("SELECT harbor_enqueue_many_v1(%s)", json.dumps([good, told]))


def _refused(statement: str, *told: str) -> tuple[str, str]:
    url = make_url(settings().database_url.get_secret_value()).set(drivername="postgresql")
    with psycopg.connect(str_url(url)) as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute(statement, told)
    diag = refused.value.diag
    assert diag.sqlstate == "22X10"
    assert diag.column_name is not None
    assert diag.message_detail is not None
    assert diag.message_primary is not None
    assert diag.message_primary.endswith(f"job {diag.table_name}: {diag.column_name} {diag.message_detail}")
    return diag.column_name, diag.message_detail


@pytest.mark.parametrize("wrong", [*BOTH, *ONLY_PYTHON], ids=lambda wrong: wrong.id[:70])
def test_python_refuses_a_wrong_job_and_names_the_field(wrong: Wrong) -> None:
    for refusal in (by_enqueue, by_enqueue_many):
        named, problem = refusal(wrong)

        assert (named, wrong.problem in problem) == (wrong.named, True), problem
    assert value("SELECT count(*) FROM jobs") == 0


@pytest.mark.parametrize("wrong", [*BOTH, *ONLY_SQL], ids=lambda wrong: wrong.id[:70])
def test_sql_refuses_a_wrong_job_and_names_the_field(wrong: Wrong) -> None:
    for refusal in (by_sql, by_sql_many):
        named, problem = refusal(wrong)

        assert (named, wrong.problem in problem) == (wrong.named, True), problem
    assert value("SELECT count(*) FROM jobs") == 0


def test_an_orm_object_is_refused_by_the_name_of_its_argument() -> None:
    row = Product(sku="HBR-MUG-01", name="Harbor mug", price_cents=1290)

    told: list[tuple[tuple[Any, ...], dict[str, Any], str]]
    told = [((42, row), {}, "args[1]"), ((42,), {"payment_ref": row}, "payment_ref")]
    for args, kwargs, named in told:
        with pytest.raises(InvalidArgument) as refused, transaction() as session:
            jobs.enqueue(session, TASK, *args, **kwargs)
        with pytest.raises(InvalidArgument) as refused_in_batch, transaction() as session:
            jobs.enqueue_many(session, [JobRequest(TASK, args, kwargs)])
        assert refused.value.ids == {"task": TASK, "argument": named}
        assert refused_in_batch.value.ids == {"task": TASK, "argument": f"jobs[0].{named}"}

    assert value("SELECT count(*) FROM jobs") == 0


@pytest.mark.parametrize(
    ("request_", "named", "problem"),
    [
        (None, "jobs[1]", "must be a JobRequest"),
        (TASK, "jobs[1]", "must be a JobRequest"),
        (JobRequest(TASK, args=7), "jobs[1].args", "must be a list or a tuple"),  # type: ignore[arg-type]
        (JobRequest(TASK, args="42"), "jobs[1].args", "must be a list or a tuple"),
        (JobRequest(TASK, kwargs=["a"]), "jobs[1].kwargs", "must be a mapping"),  # type: ignore[arg-type]
        (JobRequest(TASK, kwargs=None), "jobs[1].kwargs", "must be a mapping"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_request_is_refused_by_its_place(request_: Any, named: str, problem: str) -> None:
    with pytest.raises(InvalidJob) as refused, transaction() as session:
        jobs.enqueue_many(session, [JobRequest(TASK, (42, "pay-1")), request_])

    assert (refused.value.ids["field"], refused.value.ids["problem"]) == (named, problem)


@pytest.mark.parametrize(
    ("told", "named", "problem"),
    [
        ('{"task": "sample.pay"}', "jobs", "must be a list of objects"),
        ("null", "jobs", "must be a list of objects"),
        ("[7]", "jobs", "must be a list of objects"),
        ('[{"task": "sample.pay", "arguments": [1]}]', "arguments", "is no part of a job"),
        ('[{"args": [1]}]', "task", "must be the name of a task"),
        ('[{"task": 7}]', "task", "must be the name of a task"),
    ],
)
def test_sql_refuses_what_is_no_batch(told: str, named: str, problem: str) -> None:
    assert _refused("SELECT harbor_enqueue_many_v1(%s)", told) == (named, problem)


def test_a_number_that_python_could_not_read_back_is_refused() -> None:
    answer = _refused("SELECT harbor_enqueue_v1(%s, %s)", TASK, '[1e4300, "pay-1"]')

    assert answer == ("args", "and kwargs hold a number of more than 4300 digits")
    assert ledger.row(ledger.put(TASK, 10**4_299, "pay-1")).args == [10**4_299, "pay-1"]


def test_where_the_task_is_declared_its_parameters_name_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    def pay(reservation_id: int, payment_ref: str) -> None:
        """Take what TASK takes."""

    monkeypatch.setattr(kinds, "_declared", dict(kinds._declared))
    jobs.declare(TASK, pay)

    with pytest.raises(InvalidJob, match="reservation_id is not JSON"), transaction() as session:
        jobs.enqueue(session, TASK, object(), "pay-1")
    with pytest.raises(InvalidJob, match="payment_ref holds a NUL"), transaction() as session:
        jobs.enqueue(session, TASK, 42, "pay\0")
    with pytest.raises(InvalidArgument, match="payment_ref"), transaction() as session:
        jobs.enqueue(session, TASK, 42, Product(sku="HBR-MUG-01", name="Harbor mug", price_cents=1290))


@pytest.mark.parametrize("told", ["pay\\u0000", "NaN", '"\\ud83d"'])
def test_what_is_not_json_sql_cannot_even_say(told: str) -> None:
    url = make_url(settings().database_url.get_secret_value()).set(drivername="postgresql")
    with psycopg.connect(str_url(url)) as connection, pytest.raises(psycopg.DataError):
        connection.execute("SELECT harbor_enqueue_v1(%s, %s::jsonb)", (TASK, f"[{told}]"))


def test_a_refusal_repeats_no_value() -> None:
    with pytest.raises(InvalidJob) as refused, transaction() as session:
        jobs.enqueue(session, TASK, "secret-1", payment_ref="secret-2", dedupe_key="secret-3" * 40)

    assert "secret" not in f"{refused.value}{refused.value.ids}{refused.value.__cause__}"


def test_the_transaction_goes_on_from_a_savepoint_after_a_refusal() -> None:
    with transaction() as session:
        with pytest.raises(InvalidJob), session.begin_nested():
            jobs.enqueue(session, TASK, "42", "pay-1")
        jobs.enqueue(session, TASK, 42, "pay-1")

    assert value("SELECT count(*) FROM jobs") == 1
