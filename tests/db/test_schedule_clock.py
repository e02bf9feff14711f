"""What becomes of ticks when Beats were away, a schedule was paused, or the database's clock was put right."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from db import schedule
from db.schedule import Ticked
from db.session import transaction
from tests.db.sql import change, recorded, value
from tests.schedules import at, jobs_of, make, tick, ticks

pytestmark = pytest.mark.usefixtures("database")


def test_late_ticks_are_caught_up_with_and_those_that_do_not_run_say_why() -> None:
    make(misfire_grace_seconds=25)

    tick(50)

    assert ticks() == [(10, "misfire"), (20, "misfire"), (30, "superseded"), (40, "superseded"), (50, "job")]


def test_what_is_due_during_a_pause_never_runs_also_when_no_beat_was_there() -> None:
    make()
    with transaction() as session:
        assert schedule.pause(session, "counts")
    tick(10)
    with transaction() as session:
        assert not schedule.pause(session, "counts")
    # From here on by the database's clock.
    change("UPDATE schedules SET last_due_at = statement_timestamp() - interval '30 s'")
    with transaction() as session:
        assert schedule.resume(session, "counts")
        assert not schedule.resume(session, "counts")
    with transaction() as session:
        schedule.tick(session, "counts")

    assert {what for _, what in ticks()} == {"paused"}
    assert len(ticks()) == 4
    assert jobs_of() == []


def test_a_long_outage_is_worked_off_in_parts_and_still_only_the_newest_tick_runs() -> None:
    make(every=1.0, misfire_grace_seconds=1_500)

    parts = [tick(2_500), tick(2_500), tick(2_500), tick(2_500)]

    assert [(part.decided, len(part.task_ids), part.more) for part in parts if part] == [
        (1_000, 0, True),
        (1_000, 0, True),
        (500, 1, False),
        (0, 0, False),
    ]
    assert [what for _, what in ticks()] == ["misfire"] * 999 + ["superseded"] * 1_500 + ["job"]


def test_a_part_of_an_outage_sends_few_statements() -> None:
    make(every=1.0, catch_up="all", misfire_grace_seconds=3_600)

    with recorded() as sent:
        ticked = tick(2_000)

    assert ticked is not None
    assert len(ticked.task_ids) == 1_000
    # The row's lock, the jobs, the ticks, and how far it came.
    assert len(sent) == 4


def test_a_clock_that_was_set_back_a_little_runs_nothing_again_and_goes_on() -> None:
    make()
    tick(60)
    tick(61)

    for moment in (30, 10.5, 40, 59.9, 60, 65):
        tick(moment)
    tick(70)

    assert ticks()[-2:] == [(60, "job"), (70, "job")]
    assert len(jobs_of()) == 2


def test_a_clock_that_was_far_ahead_stops_nothing_when_it_is_put_right() -> None:
    make()
    a_day = 86_400.0
    tick(10)
    while (ticked := tick(a_day)) and ticked.more:
        pass
    tick(a_day + 10)
    assert tick(20.5) == Ticked(more=True)

    for moment in (20.6, 30.1, 40.1):
        tick(moment)

    assert ticks() == [(10, "job"), (20, "misfire"), (30, "job"), (40, "job")]


def test_a_daily_schedule_does_not_run_again_when_the_clock_is_set_back_by_an_hour() -> None:
    make(every=None, crontab="0 13 * * *")
    tick(3_600)

    for moment in (1.0, 1_800.0, 3_599.0, 3_600.0, 3_700.0):
        tick(moment)
    tick(86_400 + 3_600)

    assert ticks() == [(3_600, "job"), (86_400 + 3_600, "job")]


def test_the_outlook_says_when_each_is_due_next() -> None:
    make()
    make("daily", every=None, crontab="0 4 * * *", timezone="Europe/Berlin")
    tick(10)

    with transaction() as session:
        seen = {one.name: one for one in schedule.outlook(session, at(15))}

    assert seen["counts"].next_due_at == at(20)
    assert seen["daily"].next_due_at == datetime(2026, 11, 22, 3, tzinfo=UTC)
    assert not seen["counts"].is_due


def test_without_a_beat_a_schedule_is_overdue() -> None:
    make()
    make("later", every=None, crontab="0 0 1 1 *")
    change("UPDATE schedules SET last_due_at = statement_timestamp() - interval '1 h' WHERE name = 'counts'")
    change("UPDATE schedules SET last_due_at = statement_timestamp() WHERE name = 'later'")

    with transaction() as session:
        late = [one.name for one in schedule.overdue(session)]
    while value("SELECT last_due_at < statement_timestamp() - interval '11 s' FROM schedules WHERE name = 'counts'"):
        with transaction() as session:
            schedule.tick(session, "counts")
    with transaction() as session:
        after = schedule.overdue(session)

    assert late == ["counts"]
    assert after == []
