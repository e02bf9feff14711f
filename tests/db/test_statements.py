"""A statement that takes long is told once, by its text and never by a value."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from db.session import transaction
from tests.processes import python, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import TextClause

pytestmark = pytest.mark.usefixtures("database")

AN_HOUR = 3_600_000
NAP = text("SELECT\n\n    pg_sleep(:seconds),   CAST(:word AS text)")
BOUND = {"seconds": 0.02, "word": "hunter2"}


@pytest.fixture(autouse=True)
def slow(restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says how many milliseconds a statement may take; at first one, so that every nap is slow."""

    def is_more_than(milliseconds: int) -> None:
        monkeypatch.setenv("HARBOR_SLOW_QUERY_MS", str(milliseconds))
        restart()

    is_more_than(1)
    return is_more_than


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """The lines that have been logged about something."""
    return lambda about: [line for line in caplog.messages if about in line]


def test_a_slow_statement_is_told_once_on_one_line_with_its_rows(told: Callable[[str], list[str]]) -> None:
    with transaction() as session:
        session.execute(NAP, BOUND)

    [line] = told("pg_sleep")
    assert line.startswith("query.slow statement='SELECT pg_sleep(%(seconds)s), CAST(%(word)s AS text)' milliseconds=")
    assert line.endswith("outcome='done' rows=1")
    assert float(line.partition("milliseconds=")[2].split()[0]) >= 20


def test_a_statement_that_takes_no_longer_than_told_is_not(
    slow: Callable[[int], None], told: Callable[[str], list[str]]
) -> None:
    slow(AN_HOUR)
    with transaction() as session:
        session.execute(NAP, BOUND)

    assert told("query.slow") == []


@pytest.mark.parametrize(
    ("statement", "seen"), [(NAP, False), (text("SELECT pg_sleep(:seconds), 'hunter2', :word"), True)]
)
def test_a_value_is_told_only_when_it_is_written_into_the_statement(
    caplog: pytest.LogCaptureFixture, statement: TextClause, seen: bool
) -> None:
    with transaction() as session:
        session.execute(statement, BOUND)

    assert ("hunter2" in caplog.text) is seen


def test_a_slow_statement_that_failed_is_told_with_its_error_and_no_value(
    told: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, restart: Callable[[], None]
) -> None:
    monkeypatch.setenv("HARBOR_STATEMENT_TIMEOUT_MS", "20")
    restart()

    with pytest.raises(OperationalError), transaction() as session:
        session.execute(NAP, {**BOUND, "seconds": 20})

    [line] = told("pg_sleep")
    assert line.endswith("outcome='QueryCanceled'")
    assert "hunter2" not in line


def test_one_statement_for_many_values_is_told_once(told: Callable[[str], list[str]]) -> None:
    with transaction() as session:
        session.execute(NAP, [BOUND] * 3)

    assert len(told("pg_sleep")) == 1


def test_a_long_statement_is_cut(told: Callable[[str], list[str]]) -> None:
    with transaction() as session:
        session.execute(text(f"SELECT pg_sleep(0.02), {', '.join(['1'] * 1_000)}"))

    [line] = told("pg_sleep")
    assert len(line) < 700
    assert "…' milliseconds=" in line


@pytest.mark.parametrize(
    ("then", "outcome"), [("RETURN NULL", "done"), ("RAISE EXCEPTION USING ERRCODE = '23514'", "CheckViolation")]
)
def test_a_slow_commit_is_told_like_a_statement(told: Callable[[str], list[str]], then: str, outcome: str) -> None:
    at_commit = f"""
        CREATE TEMPORARY TABLE late (id int) ON COMMIT DROP;
        CREATE FUNCTION pg_temp.nap() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN PERFORM pg_sleep(0.02); {then}; END $$;
        CREATE CONSTRAINT TRIGGER nap AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION pg_temp.nap();
        INSERT INTO late VALUES (1)"""

    with suppress(IntegrityError), transaction() as session:
        session.connection().exec_driver_sql(at_commit)

    [line] = told("statement='COMMIT'")
    assert line.endswith(f"outcome='{outcome}'")


UNCONFIGURED = """
from sqlalchemy import text
from db.session import transaction
with transaction() as session:
    session.execute(text("SELECT pg_sleep(0.02)"))
print("[]")
"""


def test_a_process_without_a_log_tells_on_stderr_and_leaves_stdout_to_its_answer() -> None:
    answer = run(python("-c", UNCONFIGURED), os.environ)

    assert answer.stdout == "[]\n", answer.stderr
    assert "query.slow statement='SELECT pg_sleep(0.02)'" in answer.stderr
