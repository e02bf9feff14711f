"""Taking holds: many processes after one hot variant, and many with whole baskets.

Promise: before a rate counts, both sides have sold the same few last units without overselling; and after each round
every order that was told it has a hold has one, for exactly its units.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Final

from bench.crowd import crowd
from bench.measure import Goal, Result, check, ratios, take_turns
from bench.reservations import rival, rows
from bench.reservations.rows import PLENTY, Counts
from db import reservations
from db.errors import InsufficientStock
from db.session import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.crowd import Crowd
    from bench.reservations.size import Size

HOT: Final = Goal("reserve_hot_8", "orders/s on one hot variant, 8 processes, ÷ rival", "ratio", 2)
BASKET: Final = Goal("reserve_basket", "20-line orders/s over 2,000 variants, 8 processes, ÷ rival", "ratio", 8)

_SELL_OUT_SECONDS: Final = 30  # Far more than a right side needs; a wrong one may go on for ever.


def reserve(order_id: str, lines: Mapping[int, int]) -> bool:
    """Hold units for an order as a service of Harbor's does; return whether there were enough."""
    try:
        with transaction() as session:
            reservations.reserve(session, order_id, lines)
    except InsufficientStock:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Shop:
    """What is for sale, and how many different variants an order has. `scarce_units` is stock that sells out soon."""

    variants: int
    lines: int
    scarce_units: int


@dataclass(frozen=True, slots=True)
class Shift:
    """What every process of a crowd is told: reserve random orders one after the other, for `seconds`."""

    reserve: Callable[[str, Mapping[int, int]], bool]
    variant_ids: Sequence[int]
    lines: int
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Shopped:
    """What a process did in its shift."""

    orders: int
    units: int
    sold_out: bool
    seconds: float
    cpu_seconds: float


def shop(number: int, shift: Shift) -> Shopped:
    """Reserve orders until the shift is over or one cannot be had. Runs in every process of a crowd."""
    random = Random(f"{shift.seed}/{number}")
    orders = units = 0
    sold_out = False
    began, cpu_began = time.perf_counter(), time.process_time()
    while not sold_out and time.perf_counter() - began < shift.seconds:
        lines = {variant_id: random.randint(1, 3) for variant_id in random.sample(shift.variant_ids, shift.lines)}
        if shift.reserve(f"{number}-{orders}", lines):
            orders += 1
            units += sum(lines.values())
        else:
            sold_out = True
    return Shopped(orders, units, sold_out, time.perf_counter() - began, time.process_time() - cpu_began)


class _Side:
    """One side of a comparison of `reserve`: how it reserves, and what it has used per order so far."""

    def __init__(self, name: str, reserve: Callable[[str, Mapping[int, int]], bool], shop: Shop, people: Crowd) -> None:
        self.name = name
        self.cpu_ms: list[float] = []
        self._reserve = reserve
        self._shop = shop
        self._people = people
        self._seed = 0

    def sell_out(self) -> None:
        """Sell until nobody can buy, with everybody after the same last units. Only its checks matter."""
        done = self._open(self._shop.scarce_units, _SELL_OUT_SECONDS)
        check(f"{self.name} did not sell out in {_SELL_OUT_SECONDS} s", right=all(each.sold_out for each in done))

    def sell(self, seconds: float) -> float:
        """Sell plenty and return the orders per second of all processes together."""
        done = self._open(PLENTY, seconds)
        check(f"{self.name} refused an order although stock was plenty", right=not any(each.sold_out for each in done))
        orders = sum(each.orders for each in done)
        check(f"{self.name} reserved nothing", right=orders > 0)
        self.cpu_ms.append(sum(each.cpu_seconds for each in done) * 1_000 / orders)
        return sum(each.orders / each.seconds for each in done)

    def _open(self, units: int, seconds: float) -> list[Shopped]:
        self._seed += 1  # Another day, other orders; but in the same round the same for both sides.
        ids = rows.load_stock(self._shop.variants, units)
        done = self._people.do(shop, Shift(self._reserve, ids, self._shop.lines, seconds, self._seed))
        held = Counts(sum(each.orders for each in done), sum(each.units for each in done), expired_holds=0)
        rows.check_counts(self.name, held)
        return done


def _reserve_side_by_side(goal: Goal, shop: Shop, size: Size) -> list[Result]:
    with crowd(size.processes) as people:
        ours, theirs = _Side("harbor", reserve, shop, people), _Side("rival", rival.reserve, shop, people)
        for side in (ours, theirs):
            side.sell_out()
        rates = take_turns(
            {side.name: partial(side.sell, size.seconds) for side in (ours, theirs)},
            rounds=size.reserve_rounds,
            warm_ups=1,
            unit="orders/s",
        )
    our_rate, their_rate = median(rates["harbor"]), median(rates["rival"])
    extra = {
        "orders_per_s": our_rate,
        "rival_orders_per_s": their_rate,
        "client_cpu_ms_per_order": median(ours.cpu_ms),
        "rival_client_cpu_ms_per_order": median(theirs.cpu_ms),
    }
    note = f"{our_rate:,.0f} orders/s, rival {their_rate:,.0f}"
    return [Result(goal, ratios(rates["harbor"], rates["rival"]), note, extra)]


def reserve_hot(size: Size) -> list[Result]:
    """Measure orders of one line that all want the same variant."""
    return _reserve_side_by_side(HOT, Shop(variants=1, lines=1, scarce_units=200), size)


def reserve_basket(size: Size) -> list[Result]:
    """Measure orders of 20 lines over all variants."""
    return _reserve_side_by_side(BASKET, Shop(size.variants, lines=20, scarce_units=10), size)
