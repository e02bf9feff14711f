"""Five-field crontab text, and when it comes next in a time zone.

    minute  hour  day-of-month  month  day-of-week
    0-59    0-23  1-31          1-12   0-6, Sunday is 0 (and 7)

A field is `*`, a number, a range `9-17`, a step `*/15` or `9-17/2`, or a list of these with commas; months and days of
the week also have their names (`jan`, `mon`). As in Celery, and unlike in cron, a day has to match day-of-month and
day-of-week both.

Times are those of the wall clock. Where daylight saving skips an hour nothing that lies in it comes that day, and where
it repeats one its times come once, in the first of the two.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

_HORIZON_YEARS: Final = 41  # 29 February falls on each day of the week within 40 years, those around 2100 included.
_LONGEST_FEBRUARY: Final = 2024
_PART: Final = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)
_MONTHS: Final = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS: Final = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


class CrontabError(ValueError):
    """A crontab text that means nothing, or never comes; `str` says why."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: its name, its least and greatest number, and the names that stand for numbers."""

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()

    def parse(self, text: str) -> frozenset[int]:
        """Return the numbers that a text stands for. Raises CrontabError."""
        return frozenset(number for part in text.split(",") for number in self._part(part))

    def _part(self, text: str) -> range:
        found = _PART.fullmatch(text.lower())
        if found is None:
            raise CrontabError(f"{self.name} {text!r} is none of *, 5, 1-5, */5, 1-5/2 or a list of these")
        star, first, last, step = found.groups()
        if step is not None and not star and last is None:
            raise CrontabError(f"{self.name} {text!r} has a step without a range; {first}-{self.most}/{step} has one")
        low = self.least if star else self._number(first)
        # A range that ends on a Sunday ends with the seventh day.
        high = self.most if star else 7 if last in {"sun", "7"} and self is _WEEKDAY else self._number(last or first)
        if low > high:
            raise CrontabError(f"{self.name} {text!r} ends before it begins")
        size = int(step or 1)
        if not 1 <= size <= max(high - low, 1):
            raise CrontabError(f"{self.name} {text!r} has a step that is not from 1 to {max(high - low, 1)}")
        return range(low, high + 1, size)

    def _number(self, text: str) -> int:
        if text.isdecimal() and len(text) <= 2:  # noqa: PLR2004 - no field has more digits
            number = 0 if text == "7" and self is _WEEKDAY else int(text)
            if self.least <= number <= self.most:
                return number
        elif text in self.names:
            return self.names.index(text) + self.least
        names = f", or {self.names[0]} to {self.names[-1]}" if self.names else ""
        raise CrontabError(f"{self.name} {text!r} is not from {self.least} to {self.most}{names}")


_WEEKDAY: Final = _Field("day-of-week", 0, 6, tuple(_DAYS))
_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31),
    _Field("month", 1, 12, tuple(_MONTHS)),
    _WEEKDAY,
)


@dataclass(frozen=True, slots=True)
class Crontab:
    """The numbers of the five fields; Sunday is 0."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Crontab:
        """Read five fields. Raises CrontabError, which names the field, also for a day that no month has."""
        words = text.split()
        if len(words) != len(_FIELDS):
            raise CrontabError(f"has {len(words)} fields and needs 5: {', '.join(field.name for field in _FIELDS)}")
        minutes, hours, days, months, weekdays = (field.parse(word) for field, word in zip(_FIELDS, words, strict=True))
        if not any(min(days) <= monthrange(_LONGEST_FEBRUARY, month)[1] for month in months):
            raise CrontabError(f"never comes: day-of-month {words[2]} is in no month of {words[3]}")
        return cls(minutes, hours, days, months, frozenset(day % 7 for day in weekdays))

    def after(self, moment: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """Yield, in UTC and ascending, the times after a moment, for as long as there are any within 41 years."""
        lowest = _lowest_wall_time(moment, zone)
        for midnight in self._days(lowest):
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    wall = midnight + timedelta(hours=hour, minutes=minute)
                    if wall < lowest:
                        continue
                    # Of a time that is repeated, fold=0 is the first.
                    due = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
                    if due > moment and due.astimezone(zone).replace(tzinfo=None) == wall:
                        yield due

    def _days(self, lowest: datetime) -> Iterator[datetime]:
        """Yield midnight, on the wall clock, of each day that matches."""
        for year in range(lowest.year, lowest.year + _HORIZON_YEARS):
            for month in sorted(self.months):
                if (year, month) < (lowest.year, lowest.month):
                    continue
                for day in sorted(self.days):
                    if day > monthrange(year, month)[1]:
                        break
                    midnight = datetime(year, month, day)  # noqa: DTZ001 - a wall clock has no zone
                    if midnight.isoweekday() % 7 in self.weekdays and midnight.date() >= lowest.date():
                        yield midnight


def _lowest_wall_time(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return a time of the wall clock before which nothing comes after `moment`.

    The hand may be set back within the next day, and then what comes after the moment shows an earlier time.
    """
    there, tomorrow = moment.astimezone(zone), (moment + timedelta(days=1)).astimezone(zone)
    lowest = min(there.replace(tzinfo=None), tomorrow.replace(tzinfo=None) - timedelta(days=1))
    return lowest.replace(second=0, microsecond=0)
