"""What a long history costs the sweep: the holds that ended stay in the table, and must not make those that end slower.

Promise: both sides sweep the same number of due holds of the same kind, in databases that differ in their past alone;
after each sweep every due hold has expired once, and every unit is back on sale once.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import database
from bench.crowd import crowd
from bench.measure import Goal, Result, check, ratios, take_turns
from bench.reservations import rows
from bench.reservations.rows import PLENTY, Counts
from db import reservations
from db.session import transaction
from tasks import reservations as tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.reservations.size import Size
    from tasks.reservations import Swept

IDLE: Final = Goal("expire_idle_ms", "a sweep that finds nothing due among 1M ended holds", 5, unit="ms", better="less")
GROWTH: Final = Goal("expire_growth", "cost of a swept hold among 1M ended holds ÷ among none", 1.2, better="less")

_BUDGET: Final = timedelta(minutes=5)  # Never the limit: every due hold is to be swept.


@dataclass(frozen=True, slots=True)
class Past:
    """What a database has behind it."""

    ended_holds: int
    variants: int


@dataclass(frozen=True, slots=True)
class Due:
    """Holds to sweep in the database `name`, by the task's own sweep. Without `variant_ids` it starts from no past."""

    name: str
    holds: int
    sweep: Callable[[timedelta], Swept]
    variants: int
    variant_ids: Sequence[int] | None = None


# ---- these run in a process that uses one database alone -------------------------------------------------------------


def write(_: int, past: Past) -> list[int]:
    """Write a past, and return the ids of the variants."""
    return rows.load_stock(past.variants, PLENTY, ended_holds=past.ended_holds)


def find_nothing(_: int, sweeps: int) -> list[float]:
    """Sweep so often with nothing due, and return the milliseconds that each took."""
    took_ms = []
    for _again in range(sweeps):
        began = time.perf_counter()
        with transaction() as session:
            closed = reservations.expire_due(session)
        took_ms.append((time.perf_counter() - began) * 1_000)
        check(f"harbor expired {closed} holds that were not due", right=closed == 0)
    return took_ms


def cost(_: int, due: Due) -> float:
    """Sweep due holds and return what each cost, in microseconds."""
    rows.load_due_holds(due.holds, due.variant_ids or rows.load_stock(due.variants, PLENTY, ended_holds=0))
    before = rows.counts()
    began = time.perf_counter()
    swept = due.sweep(_BUDGET)
    seconds = time.perf_counter() - began
    check(f"{due.name} counted {swept.holds} of {due.holds} holds", right=swept.finished and swept.holds == due.holds)
    rows.check_counts(due.name, Counts(0, 0, before.expired_holds + due.holds))
    return seconds * 1_000_000 / due.holds


# ---- what is measured ------------------------------------------------------------------------------------------------


def expire_after_years(size: Size) -> list[Result]:
    """Measure sweeps, idle and not, in a database with a history, beside one without."""
    with ExitStack() as stack:
        # The process of a crowd uses the database that this one uses when the crowd starts.
        old = stack.enter_context(crowd(1))
        (variant_ids,) = old.do(write, Past(size.ended_holds, size.variants))
        (idle_ms,) = old.do(find_nothing, size.idle_sweeps)
        stack.enter_context(database.another())
        new = stack.enter_context(crowd(1))
        old_due = Due("old", size.growth_due_holds, tasks.sweep, size.variants, variant_ids)
        new_due = Due("new", size.growth_due_holds, tasks.sweep, size.variants)
        costs = take_turns(
            {"old": lambda: old.do(cost, old_due)[0], "new": lambda: new.do(cost, new_due)[0]},
            rounds=size.growth_rounds,
            warm_ups=1,
            unit="µs/hold",
        )
    ours, least = median(costs["old"]), median(costs["new"])
    extra = {"us_per_hold": ours, "us_per_hold_among_none": least}
    return [
        # The first one plans its statement and wakes the connection; a worker has done that long ago.
        Result(IDLE, idle_ms[1:], f"among {size.ended_holds:,} ended holds"),
        Result(GROWTH, ratios(costs["old"], costs["new"]), f"{ours:.1f} µs/hold, among none {least:.1f}", extra),
    ]
