"""What libraries repeat is left out of the log; what Harbor tells is a line with fields, and shows no argument."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter

import pytest

from tests.processes import python, run

LOG = """
import logging
from db.settings import settings
from worker.logging import configure
configure(settings())
logging.getLogger({name!r}).log({level}, "spoken")
"""


def spoken(servers: dict[str, str], name: str, level: int) -> bool:
    """Whether a process of Harbor lets a library's line through."""
    answer = run(python("-c", LOG.format(name=name, level=level)), {**os.environ, **servers})
    assert answer.returncode == 0, answer.stderr
    return "spoken" in answer.stderr


@pytest.mark.parametrize(
    ("name", "quiet", "loud"),
    [
        ("celery.app.trace", logging.INFO, logging.WARNING),
        ("celery.beat", logging.INFO, logging.WARNING),
        ("flower.inspector", logging.WARNING, logging.ERROR),
    ],
)
def test_what_libraries_repeat_is_left_out_and_what_matters_is_not(
    servers: dict[str, str], name: str, quiet: int, loud: int
) -> None:
    assert not spoken(servers, name, quiet)
    assert spoken(servers, name, loud)


ASK = """
from sqlalchemy import text
from db.session import transaction
from db.settings import settings
from tasks.declare import task
from worker.celery import app
from worker.logging import configure

configure(settings())

@task("sample.ask")
def ask(seconds):
    with transaction() as session:
        for _ in range(3):
            session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})

app.tasks["sample.ask"].apply(args=(0.0123,), task_id="run-1")
"""


@pytest.mark.parametrize(
    ("slow_ms", "repeated", "events"),
    [
        ("1", "2", {"query.slow": 3, "task.repeats_a_statement": 1}),
        ("1", "3", {"query.slow": 3}),
        ("3600000", "2", {"task.repeats_a_statement": 1}),
    ],
)
def test_what_a_task_asks_of_the_database_is_told_with_its_run_and_no_argument(
    servers: dict[str, str], slow_ms: str, repeated: str, events: dict[str, int]
) -> None:
    told = {"HARBOR_ENV": "prod", "HARBOR_SLOW_QUERY_MS": slow_ms, "HARBOR_REPEATED_STATEMENTS": repeated}

    answer = run(python("-c", ASK), {**os.environ, **servers, **told})

    lines = [json.loads(line) for line in answer.stderr.splitlines()]
    naps = [line for line in lines if "pg_sleep" in line.get("statement", "")]
    assert Counter(line["event"] for line in naps) == events
    assert {(line["task"], line["task_id"], line["level"]) for line in naps} == {("sample.ask", "run-1", "warning")}
    assert [line["statements"] for line in lines if line["event"] == "task.ran"] == [3]
    assert "0.0123" not in answer.stderr
    assert answer.stdout == ""
