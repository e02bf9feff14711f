"""Crontab text: what it means, when it comes on the wall clock, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from db.errors import InvalidSchedule
from db.schedule import rule_of
from db.schedule.crontab import Crontab, CrontabError

BERLIN, NEW_YORK, LORD_HOWE = map(ZoneInfo, ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe"))


def times(text: str, after: str, zone: ZoneInfo | str = "UTC", count: int = 3) -> list[str]:
    """The next times in UTC, without the seconds, after a moment that is told in UTC."""
    zone = ZoneInfo(zone) if isinstance(zone, str) else zone
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    return [f"{due:%Y-%m-%d %H:%M}" for due in islice(Crontab.parse(text).after(moment, zone), count)]


@pytest.mark.parametrize(
    ("text", "coming"),
    [
        ("* * * * *", ["2026-02-27 23:59", "2026-02-28 00:00", "2026-02-28 00:01"]),
        ("*/20 * * * *", ["2026-02-28 00:00", "2026-02-28 00:20", "2026-02-28 00:40"]),
        ("30 4 * * *", ["2026-02-28 04:30", "2026-03-01 04:30", "2026-03-02 04:30"]),
        ("0 9-17/4 * * mon-fri", ["2026-03-02 09:00", "2026-03-02 13:00", "2026-03-02 17:00"]),
        ("5,50 23 * * *", ["2026-02-28 23:05", "2026-02-28 23:50", "2026-03-01 23:05"]),
        ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00", "2036-02-29 00:00"]),
        ("0 0 29 feb mon", ["2044-02-29 00:00"]),
        ("0 0 31 * *", ["2026-03-31 00:00", "2026-05-31 00:00", "2026-07-31 00:00"]),
        ("0 12 * * SAT-sun", ["2026-02-28 12:00", "2026-03-01 12:00", "2026-03-07 12:00"]),
        ("0 12 * * 7", ["2026-03-01 12:00", "2026-03-08 12:00", "2026-03-15 12:00"]),
        ("0 12 * * 0", ["2026-03-01 12:00", "2026-03-08 12:00", "2026-03-15 12:00"]),
        # Both have to match: Friday the 13th.
        ("0 0 13 * fri", ["2026-03-13 00:00", "2026-11-13 00:00", "2027-08-13 00:00"]),
        ("0 0 1 jan-mar,dec *", ["2026-03-01 00:00", "2026-12-01 00:00", "2027-01-01 00:00"]),
    ],
)
def test_a_crontab_comes_at_these_times(text: str, coming: list[str]) -> None:
    assert times(text, "2026-02-27 23:58:30", count=len(coming)) == coming


def test_a_time_that_is_now_is_not_after_now() -> None:
    assert times("30 4 * * *", "2026-02-27 04:30", count=1) == ["2026-02-28 04:30"]
    assert times("30 4 * * *", "2026-02-27 04:29:59", count=1) == ["2026-02-27 04:30"]


@pytest.mark.parametrize(
    ("zone", "text", "after", "coming"),
    [
        # Berlin goes from 2:00 to 3:00 on 29 March 2026 (1:00 UTC): 2:30 does not come that day.
        (BERLIN, "30 2 * * *", "2026-03-28 00:00", ["2026-03-28 01:30", "2026-03-30 00:30", "2026-03-31 00:30"]),
        (BERLIN, "0 * * * *", "2026-03-28 23:30", ["2026-03-29 00:00", "2026-03-29 01:00", "2026-03-29 02:00"]),
        (BERLIN, "0 3 * * *", "2026-03-28 03:00", ["2026-03-29 01:00", "2026-03-30 01:00", "2026-03-31 01:00"]),
        # And from 3:00 back to 2:00 on 25 October 2026 (1:00 UTC): 2:30 comes once, the first time.
        (BERLIN, "30 2 * * *", "2026-10-24 12:00", ["2026-10-25 00:30", "2026-10-26 01:30", "2026-10-27 01:30"]),
        (BERLIN, "30 2 * * *", "2026-10-25 00:30", ["2026-10-26 01:30", "2026-10-27 01:30", "2026-10-28 01:30"]),
        (BERLIN, "30 2 * * *", "2026-10-25 01:10", ["2026-10-26 01:30", "2026-10-27 01:30", "2026-10-28 01:30"]),
        (BERLIN, "*/30 * * * *", "2026-10-25 00:15", ["2026-10-25 00:30", "2026-10-25 02:00", "2026-10-25 02:30"]),
        (BERLIN, "*/30 * * * *", "2026-10-25 01:15", ["2026-10-25 02:00", "2026-10-25 02:30", "2026-10-25 03:00"]),
        # New York: 8 March 2026 at 7:00 UTC, and 1 November at 6:00 UTC.
        (NEW_YORK, "15 2 * * *", "2026-03-07 00:00", ["2026-03-07 07:15", "2026-03-09 06:15", "2026-03-10 06:15"]),
        (NEW_YORK, "15 1 * * *", "2026-10-31 12:00", ["2026-11-01 05:15", "2026-11-02 06:15", "2026-11-03 06:15"]),
        (NEW_YORK, "0 0 * * *", "2026-10-31 12:00", ["2026-11-01 04:00", "2026-11-02 05:00", "2026-11-03 05:00"]),
        # Lord Howe moves its clocks by half an hour: forward at 2:00 on 4 October 2026, back at 2:00 on 5 April.
        (LORD_HOWE, "15 2 * * *", "2026-10-02 18:00", ["2026-10-04 15:15", "2026-10-05 15:15", "2026-10-06 15:15"]),
        (LORD_HOWE, "*/15 * * * *", "2026-10-03 15:10", ["2026-10-03 15:15", "2026-10-03 15:30", "2026-10-03 15:45"]),
        (LORD_HOWE, "45 1 * * *", "2026-04-04 00:00", ["2026-04-04 14:45", "2026-04-05 15:15", "2026-04-06 15:15"]),
        (LORD_HOWE, "*/15 * * * *", "2026-04-04 14:40", ["2026-04-04 14:45", "2026-04-04 15:30", "2026-04-04 15:45"]),
    ],
)
def test_a_skipped_hour_does_not_come_and_a_repeated_one_comes_once(
    zone: ZoneInfo, text: str, after: str, coming: list[str]
) -> None:
    assert times(text, after, zone) == coming


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, LORD_HOWE])
@pytest.mark.parametrize("text", ["*/10 * * * *", "30 2 * * *", "45 1 * * sun"])
def test_whichever_moment_one_asks_at_the_same_times_come_each_wall_time_once(zone: ZoneInfo, text: str) -> None:
    start, year = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    crontab = Crontab.parse(text)

    in_one_go = [due for due in islice(crontab.after(start, zone), 60_000) if due < year]
    walls = [due.astimezone(zone).replace(tzinfo=None) for due in in_one_go]

    assert in_one_go == sorted(set(in_one_go))
    assert walls == sorted(set(walls))
    for place, due in enumerate(in_one_go[:-1]):
        if due.astimezone(zone).utcoffset() != in_one_go[place + 1].astimezone(zone).utcoffset() or place % 997 == 0:
            assert next(crontab.after(due, zone)) == in_one_go[place + 1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has 0 fields and needs 5"),
        ("* * * *", "has 4 fields and needs 5: minute, hour, day-of-month, month, day-of-week"),
        ("@daily", "has 1 fields"),
        ("60 * * * *", "minute '60' is not from 0 to 59"),
        ("-1 * * * *", "minute '-1' is none of"),
        ("* 24 * * *", "hour '24' is not from 0 to 23"),
        ("* * 0 * *", "day-of-month '0' is not from 1 to 31"),
        ("* * * 13 *", "month '13' is not from 1 to 12, or jan to dec"),
        ("* * * * 8", "day-of-week '8' is not from 0 to 6, or sun to sat"),
        ("* * * * monday", "day-of-week 'monday' is not from"),
        ("mon * * * *", "minute 'mon' is not from 0 to 59"),
        ("5-1 * * * *", "minute '5-1' ends before it begins"),
        ("*/0 * * * *", "has a step that is not from 1 to 59"),
        ("*/90 * * * *", "has a step that is not from 1 to 59"),
        ("5/10 * * * *", "has a step without a range; 5-59/10 has one"),
        ("1,,2 * * * *", "minute '' is none of"),
        ("1;2 * * * *", "minute '1;2' is none of"),
        ("٣ * * * *", "minute '٣' is none of"),
        ("0 0 30 2 *", "never comes: day-of-month 30 is in no month of 2"),
        ("0 0 31 4,6,9,11 *", "never comes"),
    ],
)
def test_nonsense_is_refused_with_the_field_and_the_reason(text: str, problem: str) -> None:
    with pytest.raises(CrontabError) as caught:
        Crontab.parse(text)

    assert problem in str(caught.value)


def test_a_time_that_only_ever_lies_in_a_skipped_hour_is_refused() -> None:
    with pytest.raises(InvalidSchedule, match="crontab never comes on the clocks of Europe/Berlin"):
        rule_of("odd", None, "30 2 25-31 3 sun", "Europe/Berlin")

    assert rule_of("odd", None, "30 2 25-31 3 sun", "UTC") is not None
