from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from db import schedule
from db.schedule import Declaration
from db.session import transaction
from tests.db.sql import change, rows, value

if TYPE_CHECKING:
    from tests.cli.conftest import Harbor

pytestmark = pytest.mark.usefixtures("database")

NIGHTLY = ("schedule", "add", "nightly", "inventory.reconcile", "--crontab", "0 3 * * *", "--timezone", "Europe/Berlin")


def declared(name: str = "reconcile") -> str:
    """A schedule as celeryconfig declares it."""
    with transaction() as session:
        schedule.keep(session, [Declaration(name, "inventory.reconcile", every_seconds=300)])
    return name


def actions() -> list[tuple[Any, ...]]:
    return rows("SELECT actor, action, subject FROM operator_actions ORDER BY id")


def names() -> list[str]:
    return [name for (name,) in rows("SELECT name FROM schedules ORDER BY name")]


def let_tick(name: str) -> None:
    """Let the last 10 minutes be decided by a Beat."""
    change("UPDATE schedules SET last_due_at = statement_timestamp() - interval '10 min' WHERE name = :name", name=name)
    with transaction() as session:
        schedule.tick(session, name)


def test_a_schedule_is_added_listed_and_removed(harbor: Harbor) -> None:
    added = harbor(*NIGHTLY, "--overlap", "skip", "--kwargs", '{"after": 7}', "--priority", 3, "--json").json()
    listed = harbor("schedule", "list", "--json").json()
    table = harbor("schedule", "list").out
    removed = harbor("schedule", "remove", "nightly")

    assert listed == [added]
    assert {name: added[name] for name in ("crontab", "timezone", "overlap", "kwargs", "options", "source")} == {
        "crontab": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "overlap": "skip",
        "kwargs": {"after": 7},
        "options": {"priority": 3},
        "source": "operator",
    }
    assert "0 3 * * * Europe/Berlin" in table
    assert removed.out == "Schedule nightly is removed.\n"
    assert harbor("schedule", "list").out == "No schedules.\n"


def test_the_list_shows_the_last_tick_and_what_became_of_it(harbor: Harbor) -> None:
    name = declared()
    before = harbor("schedule", "list", "--json").json()[0]
    let_tick(name)
    ran = harbor("schedule", "list").out
    harbor("schedule", "pause", name)
    let_tick(name)
    left_out = harbor("schedule", "list").out

    assert before["last_due_at"] is None
    assert "every 300 s" in ran
    assert "job ready" in ran
    assert ", paused" in left_out


def test_a_tick_that_was_left_out_says_why(harbor: Harbor) -> None:
    name = declared()
    harbor("schedule", "pause", name)

    let_tick(name)

    assert "skipped: paused" in harbor("schedule", "list").out
    assert harbor("schedule", "list", "--json").json()[0]["last_skipped"] == "paused"


def test_overdue_schedules_are_exit_code_1(harbor: Harbor) -> None:
    name = declared()
    fine = harbor("schedule", "list", "--overdue")
    change("UPDATE schedules SET last_due_at = statement_timestamp() - interval '1 h'")

    late = harbor("schedule", "list", "--overdue")

    assert (fine.code, fine.out) == (0, "No schedules are overdue.\n")
    assert late.code == 1
    assert name in late.out
    assert ", overdue" in late.out


def test_run_now_enqueues_a_job_and_is_no_tick(harbor: Harbor) -> None:
    name = declared()

    answer = harbor("schedule", "run-now", name, "--json").json()

    assert rows("SELECT task_id::text, task FROM jobs") == [(answer["task_id"], "inventory.reconcile")]
    assert value("SELECT count(*) FROM schedule_ticks") == 0


def test_a_schedule_is_paused_and_goes_on(harbor: Harbor) -> None:
    name = declared()

    said = [harbor("schedule", command, name).out for command in ("pause", "pause", "resume", "resume")]

    for line, says in zip(said, ("is paused;", "was paused already;", "goes on;", "was not paused;"), strict=True):
        assert line.startswith(f"Schedule {name} (every 300 s) {says}")
    assert value("SELECT paused FROM schedules") is False


def test_what_people_do_is_written_down_with_who_did_it(harbor: Harbor) -> None:
    harbor(*NIGHTLY, "--actor", "ada")
    for command in ("pause", "pause", "resume", "run-now", "remove"):
        harbor("schedule", command, "nightly", "--actor", "ada")

    assert actions() == [
        ("ada", f"schedule.{what}", "nightly") for what in ("add", "pause", "resume", "run-now", "remove")
    ]


def test_what_was_refused_is_not_written_down(harbor: Harbor) -> None:
    harbor("schedule", "remove", declared(), "--actor", "ada")

    assert actions() == []


def test_a_declared_schedule_is_not_removed_and_the_answer_says_what_can_be_done(harbor: Harbor) -> None:
    answer = harbor("schedule", "remove", declared())

    assert answer.code == 1
    assert "is declared in celeryconfig.beat_schedule: take it out there, or pause it." in answer.err
    assert names() == ["reconcile"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--crontab", "0 0 30 2 *"], 2, "'--crontab': never comes: day-of-month 30 is in no month of 2."),
        (["--crontab", "60 * * * *"], 2, "'--crontab': minute '60' is not from 0 to 59."),
        (["--crontab", "@daily"], 2, "'--crontab': has 1 fields and needs 5"),
        (["--crontab", "0 3 * * *", "--timezone", "Berlin"], 2, "'--timezone': 'Berlin' is no time zone"),
        (["--every", "0"], 2, "'--every': must be from 0.1"),
        (["--every", "15x"], 2, "'--every': must be seconds, or like 90s, 10m, 2h or 3d, and was '15x'."),
        (["--every", "nan"], 2, "'--every': must be from 0.1"),
        ([], 2, "'--every' or '--crontab': give one of them."),
        (["--every", "5", "--crontab", "* * * * *"], 2, "'--every' or '--crontab': give one of them."),
        (["--every", "5", "--misfire-grace-seconds", "0"], 2, "'--misfire-grace-seconds': must be from 1"),
        (["--every", "5", "--kwargs", '{"befor": 1}'], 1, "befor is no parameter of the task"),
        (["--every", "5", "--priority", "10"], 2, "'--priority': must be from 0, the first, to 9"),
        (["--every", "5", "--args", "7"], 2, "'--args': must be a JSON list like '[42]'."),
        (["--every", "5", "--kwargs", "after=7"], 2, "'--kwargs': must be a JSON object like"),
        (["--every", "5", "--overlap", "maybe"], 2, "'--overlap'"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_added(
    harbor: Harbor, options: list[str], code: int, says: str
) -> None:
    answer = harbor("schedule", "add", "new", "inventory.reconcile", *options)

    assert answer.code == code
    assert says in answer.err
    assert names() == []


def test_a_task_that_is_unknown_is_refused(harbor: Harbor) -> None:
    answer = harbor("schedule", "add", "new", "inventory.reconcil", "--every", "5")

    assert answer.code == 1
    assert answer.err == "harbor: Job inventory.reconcil: task is unknown.\n"
    assert names() == []


def test_times_are_told_with_a_unit_or_in_seconds(harbor: Harbor) -> None:
    for name, every in (("a", "15m"), ("b", "900")):
        harbor("schedule", "add", name, "inventory.reconcile", "--every", every, "--expires", "2h")

    assert rows("SELECT every_seconds, options FROM schedules") == [(900.0, {"expires": 7_200.0})] * 2


def test_a_name_is_given_once(harbor: Harbor) -> None:
    harbor(*NIGHTLY)

    answer = harbor(*NIGHTLY)

    assert answer.code == 1
    assert "Schedule nightly exists already" in answer.err


@pytest.mark.parametrize("command", ["remove", "pause", "resume", "run-now"])
def test_a_schedule_that_does_not_exist_is_said_so(harbor: Harbor, command: str) -> None:
    answer = harbor("schedule", command, "nothing")

    assert answer.code == 1
    assert answer.err == "harbor: Schedule nothing does not exist.\n"


@pytest.mark.parametrize("command", ["", " list", " add", " remove", " pause", " resume", " run-now"])
def test_help_teaches_by_an_example(harbor: Harbor, command: str) -> None:
    answer = harbor("schedule", *command.split(), "--help")

    assert answer.code == 0
    assert f"harbor schedule{command}" in answer.out.partition("Example")[2]
