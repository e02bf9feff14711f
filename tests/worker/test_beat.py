"""Harbor's scheduler: any number of Beats run each tick once, and nothing that happens ends a Beat."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.schedules import crontab
from freezegun import freeze_time
from structlog.testing import capture_logs

from db import schedule
from db.schedule import Declaration
from db.session import transaction
from tests import ledger
from tests.db.conftest import database, restart, shared
from tests.db.sql import change, rows, value
from tests.schedules import START, at, since_start
from worker.beat import LedgerScheduler

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["database", "restart", "shared"]

COUNT: dict[str, Any] = {"task": "sample.count", "schedule": 10.0}


def beat(**entries: Any) -> LedgerScheduler:
    """A Beat of an app that declares these."""
    app = Celery("sample", set_as_current=False)
    app.conf.beat_schedule = entries
    app.conf.beat_max_loop_interval = 1
    return LedgerScheduler(app)


def schedules(column: str = "name") -> list[Any]:
    return [found for (found,) in rows(f"SELECT {column} FROM schedules ORDER BY name")]


@pytest.mark.usefixtures("database")
def test_a_beat_writes_what_code_declares_and_keeps_what_operators_did() -> None:
    ledger.make_type()
    with transaction() as session:
        schedule.add(session, Declaration("by hand", "sample.count", every_seconds=60))
    beat(first=COUNT, second=COUNT).tick()
    with transaction() as session:
        schedule.pause(session, "second")

    beat(second={**COUNT, "schedule": 20.0}, third=COUNT).tick()

    assert schedules() == ["by hand", "second", "third"]
    assert schedules("every_seconds") == [60, 20, 10]
    assert schedules("paused") == [False, True, False]
    assert schedules("source") == ["operator", "code", "code"]


@pytest.mark.usefixtures("database")
def test_a_schedule_that_makes_no_sense_is_told_of_and_stops_no_other() -> None:
    ledger.make_type()
    beat(good=COUNT, bad=COUNT).tick()

    with capture_logs() as logged:
        beat(good=COUNT, bad={**COUNT, "options": {"overlapp": "skip"}}).tick()

    (told,) = [line for line in logged if line["event"] == "schedule.refused"]
    assert told["schedule"] == "bad"
    assert "options.overlapp is unknown" in told["error"]
    # What was declared before stays as it was.
    assert schedules() == ["bad", "good"]


@pytest.mark.usefixtures("database")
def test_the_name_of_an_operators_schedule_is_not_taken_over() -> None:
    ledger.make_type()
    with transaction() as session:
        schedule.add(session, Declaration("mine", "sample.count", every_seconds=60))

    with capture_logs() as logged:
        beat(mine=COUNT).tick()

    assert [line["schedule"] for line in logged if line["event"] == "schedule.name_taken"] == ["mine"]
    assert schedules("every_seconds") == [60]


@pytest.mark.usefixtures("database")
def test_a_schedule_whose_rule_changes_starts_anew() -> None:
    ledger.make_type()
    beat(it={**COUNT, "schedule": crontab(minute=0, hour=0, day_of_month=1, month_of_year=1)}).tick()
    change("UPDATE schedules SET created_at = created_at - interval '1 year', last_due_at = NULL")

    beat(it={**COUNT, "schedule": 0.5}).tick()

    assert value("SELECT count(*) FROM schedule_ticks") <= 1


@pytest.mark.usefixtures("database")
def test_what_an_operator_changes_is_seen_at_the_next_look() -> None:
    ledger.make_type()
    running = beat()
    assert running.tick(START) == 1.0

    with transaction() as session:
        schedule.add(session, Declaration("late addition", "sample.count", every_seconds=10))
    since_start("late addition")
    wait_seconds = running.tick(at(9.75))
    running.tick(at(10))

    assert wait_seconds == pytest.approx(0.25)
    assert value("SELECT count(*) FROM jobs") == 1


@pytest.mark.usefixtures("database")
def test_two_beats_run_each_of_ten_thousand_ticks_once() -> None:
    ledger.make_type()
    entries = {name: {**COUNT, "schedule": 1.0, "options": {"catch_up": "all"}} for name in "abcde"}
    beats = [beat(**entries), beat(**entries)]
    beats[0].tick()
    for name in entries:
        since_start(name)
    ends = 2_000

    def run(one: LedgerScheduler, seed: int) -> None:
        """Look at moments that are a random step apart, as one of two machines that are more or less busy."""
        steps, moment = random.Random(seed), 0.0
        while moment < ends:
            moment = min(ends, moment + steps.uniform(0.5, 40))
            while one.tick(at(moment)) == 0.0:
                pass

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, beats, (1, 2)))
    for one in beats:
        one.tick(at(ends))

    per_schedule = rows(
        "SELECT schedule, count(*), count(DISTINCT task_id), min(due_at), max(due_at) FROM schedule_ticks GROUP BY 1"
    )
    assert sorted(per_schedule) == [(name, ends, ends, at(1), at(ends)) for name in "abcde"]
    assert value("SELECT count(*) FROM jobs") == 5 * ends == 10_000
    assert value("SELECT count(*) FROM jobs j JOIN schedule_ticks t USING (task_id)") == 10_000


@pytest.mark.usefixtures("database")
def test_a_schedule_that_cannot_be_decided_stops_no_other_and_is_made_up_for() -> None:
    ledger.make_type()
    running = beat(broken={**COUNT, "task": "sample.unknown", "options": {"catch_up": "all"}}, sound=COUNT)
    running.tick()
    since_start("broken")
    since_start("sound")

    with capture_logs() as logged:
        running.tick(at(10))
        running.tick(at(10))
    failed = [line for line in logged if line["event"] == "schedule.failed"]
    ledger.make_type("sample.unknown")
    running._troubled.clear()
    running.tick(at(20))

    # Once, and then again after a pause.
    assert [line["schedule"] for line in failed] == ["broken"]
    assert "task is unknown" in failed[0]["error"]
    assert sorted(rows("SELECT schedule, count(*) FROM schedule_ticks GROUP BY 1")) == [("broken", 2), ("sound", 2)]


@pytest.mark.usefixtures("database")
def test_a_row_that_says_no_rule_stops_no_other() -> None:
    ledger.make_type()
    running = beat(broken=COUNT, sound=COUNT)
    running.tick()
    since_start("sound")
    change("UPDATE schedules SET timezone = 'Europe/Atlantis' WHERE name = 'broken'")

    with capture_logs() as logged:
        running.tick(at(10))

    assert [line["schedule"] for line in logged if line["event"] == "schedule.failed"] == ["broken"]
    assert rows("SELECT schedule FROM schedule_ticks") == [("sound",)]


def test_a_database_that_is_away_at_the_start_or_later_ends_no_beat(
    restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.make_type()
    running = beat(it=COUNT)

    with monkeypatch.context() as away, capture_logs() as logged:
        away.setenv("HARBOR_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
        restart()
        pauses = [running.tick() for _ in range(3)]
    restart()
    running.tick()
    since_start("it")
    change(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    running.tick(at(10))
    running.tick(at(10))

    assert [line["event"] for line in logged] == ["beat.failed"] * 3
    assert all(0 < pause <= 5 for pause in pauses)
    assert value("SELECT count(*) FROM jobs") == 1


@pytest.mark.usefixtures("database")
def test_a_database_that_has_no_tables_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    change("ALTER TABLE schedules RENAME TO not_yet")
    running = beat(it=COUNT)
    try:
        pause = running.tick()
    finally:
        change("ALTER TABLE not_yet RENAME TO schedules")

    assert pause > 0
    assert running.tick() > 0
    assert schedules() == ["it"]


@pytest.mark.usefixtures("database")
def test_the_clock_of_a_beats_machine_decides_nothing() -> None:
    ledger.make_type()
    running = beat(it={**COUNT, "schedule": 3_600.0})
    running.tick()

    with freeze_time(datetime.now(UTC) + timedelta(days=30)):
        running.tick()

    assert value("SELECT count(*) FROM schedule_ticks") <= 1


def test_a_beat_looks_again_within_a_second(app: Celery) -> None:
    assert LedgerScheduler(app, lazy=True).max_interval == 1


def test_a_beat_keeps_no_file_and_sends_nothing_itself(app: Celery) -> None:
    lazy = LedgerScheduler(app, lazy=True, schedule_filename="celerybeat-schedule")

    assert app.conf.beat_scheduler == "worker.beat:LedgerScheduler"
    assert lazy.schedule == {}
    assert "the database" in lazy.info
