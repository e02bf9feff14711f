"""When a schedule is due: every so many seconds, or by a crontab in a time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from db.errors import InvalidSchedule
from db.schedule.crontab import Crontab, CrontabError

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_EVERY_SECONDS: Final = 0.1
MOST_EVERY_SECONDS: Final = 366 * 86_400.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_REMEMBERED: Final = 16_384  # Schedules that a Beat looks at each second without reckoning anew.


@dataclass(frozen=True, slots=True)
class Every:
    """Due at each multiple of an interval since the Unix epoch, in whole microseconds: all replicas agree on it."""

    microseconds: int

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the due times after a moment, ascending."""
        count = (moment - _EPOCH) // _MICROSECOND // self.microseconds
        while True:
            count += 1
            yield _EPOCH + timedelta(microseconds=count * self.microseconds)


@dataclass(frozen=True, slots=True)
class Wall:
    """Due when the wall clock of a time zone shows a time of the crontab."""

    crontab: Crontab
    zone: ZoneInfo

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the due times after a moment, in UTC, ascending."""
        return self.crontab.after(moment, self.zone)


Rule = Every | Wall


@lru_cache(maxsize=_REMEMBERED)
def rule_of(name: str, every_seconds: float | None, crontab: str | None, timezone: str) -> Rule:
    """Return the rule that a schedule's columns say.

    Raises:
        InvalidSchedule: they say none; the message names the schedule and the field.
    """
    zone = _zone(name, timezone)
    if (every_seconds is None) == (crontab is None):
        raise InvalidSchedule(name=name, field="every", problem="and crontab: give one of them")
    if every_seconds is not None:
        return Every(_microseconds(name, every_seconds))
    try:
        rule = Wall(Crontab.parse(str(crontab)), zone)
    except CrontabError as error:
        raise InvalidSchedule(name=name, field="crontab", problem=str(error)) from None
    if next(rule.after(datetime.now(UTC)), None) is None:
        raise InvalidSchedule(name=name, field="crontab", problem=f"never comes on the clocks of {timezone}")
    return rule


def due_times(rule: Rule, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the due times in (after, until], ascending."""
    return takewhile(lambda due: due <= until, rule.after(after))


@lru_cache(maxsize=_REMEMBERED)
def next_due(rule: Rule, after: datetime) -> datetime | None:
    """Return the first due time after a moment."""
    return next(rule.after(after), None)


def _zone(name: str, timezone: object) -> ZoneInfo:
    try:
        return ZoneInfo(str(timezone))
    except (LookupError, ValueError, OSError):
        problem = f"{timezone!r} is no time zone that this machine knows, such as Europe/Berlin"
        raise InvalidSchedule(name=name, field="timezone", problem=problem) from None


def _microseconds(name: str, every_seconds: float) -> int:
    if not is_number(every_seconds) or not LEAST_EVERY_SECONDS <= every_seconds <= MOST_EVERY_SECONDS:
        problem = f"must be from {LEAST_EVERY_SECONDS} to {MOST_EVERY_SECONDS:.0f} seconds, and was {every_seconds!r}"
        raise InvalidSchedule(name=name, field="every", problem=problem)
    return round(every_seconds * 1_000_000)


def is_number(value: object) -> bool:
    """Return whether a value is a number, which a bool is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
