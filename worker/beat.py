"""Beat: Celery's own command with a scheduler that keeps its schedules, and each tick, in the database.

Any number of them run side by side, and none leads: whichever comes first decides a tick, in one transaction with its
job, and the others find it decided. One that is killed, frozen or cut off leaves nothing undone that the next look of
another, at most a second later, does not do. No file is kept, and nothing is published: that is the relay's work.

What becomes of late, missed and overlapping ticks is said in db/schedule.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog
from celery.beat import Scheduler
from celery.schedules import crontab
from celery.schedules import schedule as interval
from celery.signals import beat_init
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from db import engine, schedule
from db.errors import HarborError, InvalidSchedule
from db.schedule.crontab import Crontab, CrontabError
from db.session import transaction

if TYPE_CHECKING:
    from celery import Celery

    from db.schedule import Declaration, Outlook

log = structlog.get_logger()

_LONGEST_PAUSE_SECONDS: Final = 5.0
_LONGEST_SCHEDULE_PAUSE_SECONDS: Final = 60.0
_LEAST_SLEEP_SECONDS: Final = 0.005  # Woken a moment too early, it would otherwise spin until the time has come.
_ENTRY: Final = ("task", "schedule", "args", "kwargs", "options")
_POLICIES: Final = ("overlap", "catch_up", "misfire_grace_seconds", "timezone")


@beat_init.connect
def _start(**_: Any) -> None:
    engine.configure(application_name="harbor-beat", concurrency=1)
    log.info("beat.started")


class LedgerScheduler(Scheduler):
    """Celery's scheduler without a heap, a file and a publisher: what is due is asked of the database each time.

    Args:
        app: its `beat_schedule` is what code declares.
        rest: Celery's own; a file name is of no use here.
    """

    def __init__(self, app: Celery, **rest: Any) -> None:
        self._declared: list[Declaration] = []
        self._refused: list[str] = []
        self._synced = False
        self._failures = 0
        self._troubled: dict[str, _Trouble] = {}
        super().__init__(app, **rest)

    def setup_schedule(self) -> None:
        """Read what code declares. A schedule that makes no sense is told of, and does not stop the others."""
        for name, entry in self.app.conf.beat_schedule.items():
            try:
                self._declared.append(declaration(name, entry, str(self.app.timezone)))
            except HarborError as error:
                self._refused.append(name)
                log.error("schedule.refused", schedule=name, error=str(error))  # noqa: TRY400 - the error says it all

    def tick(self, now: datetime | None = None, **_: Any) -> float:  # type: ignore[override]
        """Decide what is due, and return how many seconds to wait before the next look. Nothing is raised.

        Args:
            now: the present moment; the database's clock unless given.
        """
        try:
            if not self._synced:
                self._sync()
            pause_seconds = self._tick(now)
        except Exception as error:
            # Celery's loop would end with whatever is raised here, and Beat with it.
            self._failures += 1
            longest_seconds = min(_LONGEST_PAUSE_SECONDS, 0.25 * 2**self._failures)
            pause_seconds = random.uniform(0.1, longest_seconds)  # noqa: S311 - jitter
            # Of an error that the database explains, the kind is enough; any other is a defect.
            told = None if isinstance(error, SQLAlchemyError) else error
            log.warning(
                "beat.failed", error=type(error).__name__, again_in_seconds=round(pause_seconds, 2), exc_info=told
            )
            return pause_seconds
        if self._failures:
            log.info("beat.resumed")
        self._failures = 0
        return pause_seconds

    @property
    def info(self) -> str:
        """What Celery's banner says about where schedules are kept."""
        return "    . schedules -> the database"

    def _sync(self) -> None:
        """Write what code declares; done once, as soon as the database can be reached."""
        with transaction() as session:
            kept = schedule.keep(session, self._declared, self._refused)
        self._synced = True
        if kept.written or kept.dropped:
            log.info("schedules.written", written=kept.written, dropped=kept.dropped)
        for name in kept.taken:
            log.error("schedule.name_taken", schedule=name, error="an operator has added one of this name, which stays")

    def _tick(self, now: datetime | None) -> float:
        with transaction() as session:
            seen = schedule.outlook(session, now)
        # Beats that look at the same moment begin at different ends.
        due = [one for one in seen if one.error is not None or one.is_due]
        random.shuffle(due)
        more = [self._decide(one, now) for one in due]
        if any(more):
            return 0.0
        waits = [(one.next_due_at - one.now).total_seconds() for one in seen if one.next_due_at and not one.is_due]
        return max(_LEAST_SLEEP_SECONDS, min([*waits, float(self.max_interval or 1)]))

    def _decide(self, one: Outlook, now: datetime | None) -> bool:
        """Decide a schedule's due ticks; returns whether there are more.

        Raises:
            SQLAlchemyError: the database cannot be reached. Other troubles of a schedule are its own.
        """
        trouble = self._troubled.get(one.name, _Trouble())
        if trouble.until > time.monotonic():
            return False
        try:
            with transaction() as session:
                ticked = schedule.tick(session, one.name, now)
        except Exception as error:
            if isinstance(error, SQLAlchemyError) and _is_away(error):
                raise
            self._troubled[one.name] = trouble.worse()
            told = str(error) if isinstance(error, HarborError) else type(error).__name__
            log.error("schedule.failed", schedule=one.name, error=told, again_in_seconds=trouble.worse().seconds)  # noqa: TRY400
            return False
        self._troubled.pop(one.name, None)
        if ticked is not None and ticked.decided:
            log.debug("schedule.ticked", schedule=one.name, ticks=ticked.decided, jobs=len(ticked.task_ids))
        return ticked is not None and ticked.more


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A schedule that cannot be decided is tried again after a pause, which doubles; its ticks wait meanwhile."""

    seconds: float = 0.5
    until: float = 0.0

    def worse(self) -> _Trouble:
        seconds = min(_LONGEST_SCHEDULE_PAUSE_SECONDS, self.seconds * 2)
        return _Trouble(seconds, time.monotonic() + seconds)


def _is_away(error: SQLAlchemyError) -> bool:
    """Return whether the server was not reached, or was lost: it gave no code, or the connection is gone."""
    if not isinstance(error, DBAPIError):
        return True
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) is None


def declaration(name: str, entry: object, timezone: str = "UTC") -> Declaration:
    """Return what an entry of `beat_schedule` declares.

    Args:
        name: the schedule's.
        entry: task, schedule (crontab, timedelta or a number of seconds), args, kwargs, and options: those of `enqueue`
            and the policies overlap, catch_up, misfire_grace_seconds and timezone.
        timezone: of a crontab that says none.

    Raises:
        InvalidSchedule: something about it is wrong or unknown; the message names the schedule and the field.
    """
    if not isinstance(entry, dict):
        raise InvalidSchedule(name=name, field="entry", problem="must be a dictionary")
    if unknown := sorted(set(entry) - set(_ENTRY)):
        raise InvalidSchedule(
            name=name, field=str(unknown[0]), problem=f"is no part of a schedule; there are {', '.join(_ENTRY)}"
        )
    options = entry.get("options") or {}
    if not isinstance(options, dict):
        raise InvalidSchedule(name=name, field="options", problem="must be a dictionary")
    options = dict(options)
    policies: dict[str, Any] = {key: options.pop(key) for key in _POLICIES if key in options}
    allowed = (*_POLICIES, *schedule.JOB_OPTIONS)
    if unknown := sorted(set(options) - set(allowed)):
        raise InvalidSchedule(
            name=name, field=f"options.{unknown[0]}", problem=f"is unknown; there are {', '.join(allowed)}"
        )
    return schedule.Declaration(
        name,
        entry.get("task", ""),
        args=entry.get("args") or (),
        kwargs=entry.get("kwargs") or {},
        options=options,
        **{"timezone": timezone, **policies, **_rule(name, entry.get("schedule"))},
    )


def _rule(name: str, told: object) -> dict[str, Any]:
    """Turn what Celery takes for a schedule into the columns that say so."""
    if isinstance(told, crontab):
        return {"crontab": _text(told)}
    if isinstance(told, interval):
        return {"every_seconds": told.seconds}
    if isinstance(told, timedelta):
        return {"every_seconds": told.total_seconds()}
    if isinstance(told, (int, float)) and not isinstance(told, bool):
        return {"every_seconds": told}
    raise InvalidSchedule(name=name, field="schedule", problem="must be a crontab, a timedelta or a number of seconds")


def _text(told: Any) -> str:
    """Return a crontab of Celery as five fields: as they were written where both read them alike, else as numbers.

    Celery also takes numbers, sets, ranges that go round the end, and steps beyond the range.
    """
    fields = (
        _field(told._orig_minute, told.minute, range(60), "{} * * * *", "minutes"),  # noqa: SLF001 - as its repr does
        _field(told._orig_hour, told.hour, range(24), "* {} * * *", "hours"),  # noqa: SLF001
        _field(told._orig_day_of_month, told.day_of_month, range(1, 32), "* * {} * *", "days"),  # noqa: SLF001
        _field(told._orig_month_of_year, told.month_of_year, range(1, 13), "* * * {} *", "months"),  # noqa: SLF001
        _field(told._orig_day_of_week, told.day_of_week, range(7), "* * * * {}", "weekdays"),  # noqa: SLF001
    )
    return " ".join(fields)


def _field(written: object, numbers: set[int], every: range, line: str, name: str) -> str:
    try:
        if getattr(Crontab.parse(line.format(written)), name) == numbers:
            return str(written)
    except CrontabError:
        pass
    return "*" if numbers == set(every) else ",".join(map(str, sorted(numbers)))
