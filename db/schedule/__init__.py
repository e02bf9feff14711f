"""Periodic jobs: what is due when, kept in the database, and each tick written in one transaction with its job.

    outlook, tick                      what a Beat does: see when each schedule is due, and decide its due ticks
    keep                               make the schedules those that code declares
    add, remove, pause, resume         what an operator does
    run_now                            enqueue a schedule's job besides its ticks
    listed, show, overdue              what there is to know

Promise: a due time makes at most one job, with any number of Beats, and none is passed over without a word. A tick is
the row (schedule, due_at), which is unique; it commits together with its job, or with the reason why it made none.

Due times are those in (last_due_at, now], by the database's clock; a new schedule starts at its creation. An interval
counts from the Unix epoch, so that all Beats agree on it. Of the due times

1. while the schedule is paused, all are left out as `paused`;
2. those older than `misfire_grace_seconds` (600) are left out as `misfire`;
3. of the rest `catch_up` says which run: `latest` (the default) the newest, the others are left out as `superseded`;
   `all` all of them; `skip` the newest if it is no more than 10 s late, the others are left out;
4. with `overlap` `skip` those are left out as `overlap` that come while the job of the schedule's newest tick that made
   one has not ended. A job that has expired before it was started counts as ended.

After an outage up to 1,000 ticks are decided in one transaction, the oldest first. A clock that is set back by less
than a minute, or by less than two ticks, is waited for: nothing runs a second time. When it is set back further, what
was decided of the time that has not come is forgotten, and that alone may run again when its time does come: otherwise
a clock that was once a year ahead would stop everything for a year.
"""

from db.schedule.declaration import CATCH_UP, JOB_OPTIONS, OVERLAP, Declaration
from db.schedule.keep import Kept, add, keep, pause, remove, resume, run_now
from db.schedule.policy import ON_TIME_SECONDS, Policy
from db.schedule.read import OVERDUE_SECONDS, ListedSchedule, listed, overdue, show
from db.schedule.rule import Every, Rule, Wall, due_times, next_due, rule_of
from db.schedule.schedule import Schedule, ScheduleTick
from db.schedule.tick import MOST_TICKS, Outlook, Ticked, outlook, tick

__all__ = [
    "CATCH_UP",
    "JOB_OPTIONS",
    "MOST_TICKS",
    "ON_TIME_SECONDS",
    "OVERDUE_SECONDS",
    "OVERLAP",
    "Declaration",
    "Every",
    "Kept",
    "ListedSchedule",
    "Outlook",
    "Policy",
    "Rule",
    "Schedule",
    "ScheduleTick",
    "Ticked",
    "Wall",
    "add",
    "due_times",
    "keep",
    "listed",
    "next_due",
    "outlook",
    "overdue",
    "pause",
    "remove",
    "resume",
    "rule_of",
    "run_now",
    "show",
    "tick",
]
