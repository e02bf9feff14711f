"""Refusing when a variant is sold out: what most of the buyers of a hot drop get.

Promise: each refusal counts only if it was one, and nothing was written, given or taken meanwhile.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from bench import database
from bench.crowd import crowd
from bench.measure import Goal, Result, check, ratios, take_turns
from bench.reservations import reserve, rows
from bench.reservations.shoppers import Side
from db.session import transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.reservations.size import Size

SOLD_OUT: Final = Goal("sold_out", "refusals/s of a sold out variant ÷ transactions/s of one SELECT, 8 processes", 0.35)

_SELECT: Final = text("SELECT 1")


@dataclass(frozen=True, slots=True)
class Asking:
    """What every process of a crowd is told: ask for one more unit, one order after the other, for `seconds`."""

    ask: Callable[[str, dict[int, int]], bool]
    variant_id: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What a process did: how often it asked, and how often it got what it asked for."""

    times: int
    granted: int
    seconds: float


def ask(number: int, told: Asking) -> Asked:
    """Ask until the time is over. Runs in every process of a crowd."""
    times = granted = 0
    began = time.perf_counter()
    while time.perf_counter() - began < told.seconds:
        granted += told.ask(f"refused-{number}-{times}", {told.variant_id: 1})
        times += 1
    return Asked(times, granted, time.perf_counter() - began)


def select_nothing(_order_id: str, _lines: dict[int, int]) -> bool:
    """Use a transaction as an order does, for one statement that does nothing."""
    with transaction() as session:
        session.execute(_SELECT)
    return False


def refuse(size: Size) -> list[Result]:
    """Measure refusals, as many as eight processes can get, beside transactions that do nothing."""
    with crowd(size.processes) as people:
        # One unit an order: the last one who is refused three may leave two.
        shop = replace(reserve.HOT_SHOP, most_units=1)
        ids, held = Side("harbor", partial(reserve.one_by_one, reserve.reserve), shop, people).sell_out()
        database.vacuum()

        def rate(name: str, asking: Callable[[str, dict[int, int]], bool]) -> float:
            done = people.do(ask, Asking(asking, ids[0], size.seconds))
            granted = sum(each.granted for each in done)
            check(f"{name} granted {granted} orders of a variant that is sold out", right=granted == 0)
            rows.check_counts(name, held)
            return sum(each.times / each.seconds for each in done)

        sides = {"harbor": partial(rate, "harbor", reserve.reserve), "empty": partial(rate, "empty", select_nothing)}
        rates = take_turns(sides, rounds=size.hot_rounds, warm_ups=1, unit="transactions/s")
    ours, empty = median(rates["harbor"]), median(rates["empty"])
    extra = {"refusals_per_s": ours, "empty_transactions_per_s": empty}
    note = f"{ours:,.0f} refusals/s, empty {empty:,.0f} transactions/s"
    return [Result(SOLD_OUT, ratios(rates["harbor"], rates["empty"]), note, extra)]
