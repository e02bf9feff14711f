from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from db import jobs
from db.errors import SettingsError
from db.jobs import many
from db.session import transaction
from tests.cli.terminal import Terminal
from tests.db.sql import value
from tests.ledger import (
    buried,
    claimed,
    fill,
    lease,
    make_type,
    operator_actions,
    put,
    state,
)

if TYPE_CHECKING:
    from uuid import UUID

    from tests.cli.conftest import Harbor


@pytest.fixture(autouse=True)
def _types(database: None) -> None:
    make_type()
    make_type("sample.pay", queue="bulk", reservation_id=["integer"], payment_ref=["string"])


def dead(error: str = "no such payment") -> UUID:
    return buried("sample.pay", 42, "pay-secret", error=error)


# ---- many ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], [str(uuid4()), "--task", "sample.pay"]])
@pytest.mark.parametrize("command", ["retry", "cancel", "bury"])
def test_either_ids_or_a_filter_have_to_be_given(harbor: Harbor, command: str, options: list[str]) -> None:
    answer = harbor("jobs", command, *options)

    assert answer.code == 2
    assert answer.err.startswith("harbor: say which jobs: their ids, or a filter (--task,")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("retry --state done", "'done' is not one of 'dead', 'cancelled'"),
        ("bury --state running", "'running' is not one of 'ready', 'published'"),
        ("cancel --older-than 10", "must be like 90s, 10m, 2h or 3d"),
        ("cancel --older-than 99999d", "at most 36500d"),
        ("cancel --newer-than -5m", "must be like 90s, 10m, 2h or 3d"),
    ],
)
def test_a_filter_that_makes_no_sense_is_an_error_of_usage(harbor: Harbor, command: str, says: str) -> None:
    answer = harbor("jobs", *command.split())

    assert answer.code == 2
    assert says in answer.err


def test_without_anybody_to_ask_nothing_is_done_unless_told_so(harbor: Harbor) -> None:
    fill(1_234, "dead")

    asked = harbor("jobs", "retry", "--task", "sample.count")
    before = value("SELECT count(*) FROM jobs WHERE state = 'dead'"), operator_actions()
    told = harbor("jobs", "retry", "--task", "sample.count", "--yes", "--actor", "ada")

    assert asked.code == 2
    assert asked.err == "harbor: Retry 1,234 dead jobs of sample.count? Nobody can be asked here; say --yes.\n"
    assert before == (1_234, [])
    assert (told.code, told.out) == (0, "1,234 jobs are ready again.\n")
    filtered = {"task": "sample.count", "states": ["dead"]}
    assert operator_actions() == [
        ("ada", "jobs.retry", "sample.count", {"filter": filtered, "asked": 1_234, "moved": 1_234})
    ]


def test_the_question_says_all_that_the_filter_does(harbor: Harbor) -> None:
    put()
    lease()
    put()

    answer = harbor("jobs", "bury", "--queue", "default", "--newer-than", "2h")

    question = "Bury 2 jobs in queue default, newer than 2 h (1 published, 1 ready)?"
    assert answer.err == f"harbor: {question} Nobody can be asked here; say --yes.\n"


def test_a_filter_that_takes_nothing_does_nothing(harbor: Harbor) -> None:
    assert harbor("jobs", "retry", "--task", "sample.count").out == "No such jobs are dead.\n"
    assert harbor("jobs", "bury", "--queue", "bulk", "--yes", "--json").json() == {
        "asked": 0,
        "moved": 0,
        "more": False,
    }
    assert operator_actions() == []


def test_what_is_left_out_is_told(harbor: Harbor) -> None:
    for _ in range(2):
        taken = claimed(dedupe_key="k")
        with transaction() as session:
            jobs.bury(session, taken, "for good")

    answer = harbor("jobs", "retry", "--state", "dead", "--yes")

    assert answer.out == (
        "1 job is ready again.\n1 were left out: they have moved on, or a live job has their dedupe_key.\n"
    )


def test_a_command_that_fails_midway_has_a_true_record(harbor: Harbor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "BATCH", 2)
    fill(5, "dead")
    move_batch, batches = many.move_batch, []

    def fail_at_third(*arguments: Any) -> int:
        batches.append(arguments)
        done = move_batch(*arguments)
        if len(batches) == 3:
            raise SettingsError(variable="IT", problem="failed")
        return done

    monkeypatch.setattr(many, "move_batch", fail_at_third)
    answer = harbor("jobs", "retry", "--state", "dead", "--yes")

    assert answer.code == 1
    ((_, _, _, details),) = operator_actions()
    assert (details["asked"], details["moved"]) == (5, 4)
    assert value("SELECT count(*) FROM jobs WHERE state = 'ready'") == 4


# ---- on a terminal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "code", "then"), [("y\n", 0, "ready"), ("\n", 1, "dead")])
def test_on_a_terminal_the_count_is_asked_back(answer: str, code: int, then: str) -> None:
    task_id = dead()
    terminal = Terminal("jobs", "retry", "--task", "sample.pay")

    terminal.until("Retry 1 dead job of sample.pay? [y/N]")
    assert state(task_id) == "dead"
    terminal.type(answer)

    assert terminal.end() == code
    assert state(task_id) == then
    assert ("Nothing was done." in terminal.text) is (then == "dead")
