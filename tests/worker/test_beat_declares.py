"""What celeryconfig may declare as a schedule, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from celery.schedules import crontab
from celery.schedules import schedule as interval

from db.errors import InvalidSchedule
from db.schedule import Declaration
from tests.schedules import START
from worker.beat import declaration

if TYPE_CHECKING:
    from celery import Celery

COUNT: dict[str, Any] = {"task": "sample.count", "schedule": 10.0}


@pytest.mark.parametrize(
    ("told", "columns"),
    [
        (5.0, {"every_seconds": 5.0}),
        (300, {"every_seconds": 300}),
        (timedelta(minutes=2), {"every_seconds": 120.0}),
        (interval(run_every=timedelta(seconds=7)), {"every_seconds": 7.0}),
        (crontab(), {"crontab": "* * * * *"}),
        (crontab(minute=30, hour="4"), {"crontab": "30 4 * * *"}),
        (crontab(minute="*/15", day_of_week="mon-fri"), {"crontab": "*/15 * * * mon-fri"}),
        (crontab(minute=0, hour=[3, 15], day_of_month="1,15", month_of_year="jan"), {"crontab": "0 3,15 1,15 jan *"}),
        # What Celery reads and cron does not: a range round the end, a step beyond the range, a full day's name.
        (crontab(minute="*/60", hour="22-1", day_of_week="friday"), {"crontab": "0 0,1,22,23 * * 5"}),
        (crontab(minute="50-10/10", day_of_week="fri-mon"), {"crontab": "0,10,50 * * * 0,1,5,6"}),
        (crontab.from_string("0 0 1 6 *"), {"crontab": "0 0 1 6 *"}),
    ],
)
def test_celerys_own_syntax_is_understood(told: object, columns: dict[str, Any]) -> None:
    declared = declaration("it", {"task": "sample.count", "schedule": told})

    assert {name: getattr(declared, name) for name in columns} == columns


def test_options_are_those_of_enqueue_and_the_policies() -> None:
    options = {
        "overlap": "skip",
        "catch_up": "all",
        "misfire_grace_seconds": 60,
        "timezone": "Europe/Berlin",
        "expires": timedelta(seconds=30),
        "priority": 3,
    }

    declared = declaration("it", {**COUNT, "args": (1,), "kwargs": {"a": 2}, "options": options})

    assert declared == Declaration(
        "it",
        "sample.count",
        every_seconds=10.0,
        timezone="Europe/Berlin",
        args=(1,),
        kwargs={"a": 2},
        options={"expires": timedelta(seconds=30), "priority": 3},
        misfire_grace_seconds=60,
        catch_up="all",
        overlap="skip",
    )
    assert declared.columns()["options"] == '{"expires": 30.0, "priority": 3}'


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"options": {"overlapp": "skip"}}, "Schedule books: options.overlapp is unknown; there are overlap, "),
        ({"options": {"queue": "bulk"}}, "Schedule books: options.queue is unknown"),
        ({"options": {"countdown": 5}}, "Schedule books: options.countdown is unknown"),
        ({"relative": True}, "Schedule books: relative is no part of a schedule"),
        ({"options": {"overlap": "queue"}}, "Schedule books: overlap must be one of allow, skip, and was 'queue'"),
        ({"options": {"catch_up": "none"}}, "Schedule books: catch_up must be one of latest, all, skip"),
        ({"options": {"misfire_grace_seconds": 0}}, "Schedule books: misfire_grace_seconds must be from 1 to"),
        ({"options": {"timezone": "Europe/Atlantis"}}, "Schedule books: timezone 'Europe/Atlantis' is no time zone"),
        ({"options": {"expires": START}}, "Schedule books: options is not JSON"),
        ({"schedule": "5 s"}, "Schedule books: schedule must be a crontab, a timedelta or a number of seconds"),
        ({"schedule": 0}, "Schedule books: every must be from 0.1 to"),
        ({"schedule": timedelta(seconds=-1)}, "Schedule books: every must be from 0.1 to"),
        ({"schedule": True}, "Schedule books: schedule must be"),
        ({"task": ""}, "Schedule books: task must be the name of a task"),
        ({"args": "none"}, "Schedule books: args must be a list"),
        ({"kwargs": [1]}, "Schedule books: kwargs must be a dictionary"),
        ({"options": "overlap=skip"}, "Schedule books: options must be a dictionary"),
        ({"args": (object(),)}, "Schedule books: args is not JSON"),
        (
            {"schedule": crontab(minute="30", hour="2", day_of_month="25-31", month_of_year=3, day_of_week="sun"),
             "options": {"timezone": "Europe/Berlin"}},
            "Schedule books: crontab never comes on the clocks of Europe/Berlin",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name_and_key(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        declaration("books", {**COUNT, **entry})

    assert str(caught.value).startswith(says)


def test_every_schedule_of_celeryconfig_is_one_and_only_the_sweep_may_overlap(app: Celery) -> None:
    declared = [declaration(name, entry) for name, entry in app.conf.beat_schedule.items()]

    assert {one.task for one in declared} <= set(app.tasks)
    assert {one.name for one in declared if one.overlap != "skip"} == {"reservations-expire"}


@pytest.mark.parametrize("text", ["*/15 * * * *", "0 4 * * mon-fri", "30 2 1,15 * *"])
def test_in_utc_a_crontab_is_due_when_celery_says_so(text: str) -> None:
    celery_crontab: Any = crontab.from_string(text)
    rule = declaration("it", {**COUNT, "schedule": celery_crontab}).rule
    due = [moment for moment, _ in zip(rule.after(START), range(50), strict=False)]

    for before, after in pairwise(due):
        celery_crontab.nowfun = lambda before=before: before
        assert before + celery_crontab.remaining_estimate(before) == after
