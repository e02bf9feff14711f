"""Shoppers: the processes of a crowd that reserve as fast as they can, and the proof that none was told a lie.

Promise: before a rate counts, a side has sold the last few units to processes that all want them without overselling;
and after each round every order that was told it has a hold has one, for exactly its units.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from bench.measure import check
from bench.reservations import rows
from bench.reservations.rows import PLENTY, Counts

if TYPE_CHECKING:
    from bench.crowd import Crowd

Orders = Mapping[str, Mapping[int, int]]
"""Order id to its lines: variant id to units."""

Reserve = Callable[[Orders], Sequence[bool]]
"""Holds units for orders, each all or nothing, and says for each whether there were enough."""

_SELL_OUT_SECONDS: Final = 30  # Far more than a right side needs; a wrong one may go on for ever.


@dataclass(frozen=True, slots=True)
class Shop:
    """What is for sale, and how it is bought.

    Attributes:
        variants: how many there are.
        lines: how many different ones an order has.
        scarce_units: stock of each that sells out soon.
        most_units: an order takes 1 to so many of each.
        batch: how many orders a process asks for at a time.
    """

    variants: int
    lines: int
    scarce_units: int
    most_units: int = 3
    batch: int = 1


@dataclass(frozen=True, slots=True)
class Shift:
    """What every process of a crowd is told: reserve random orders one batch after the other, for `seconds`."""

    reserve: Reserve
    variant_ids: Sequence[int]
    shop: Shop
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
    asked = orders = units = 0
    began, cpu_began = time.perf_counter(), time.process_time()
    while orders == asked and time.perf_counter() - began < shift.seconds:
        wanted = {f"{number}-{asked + place}": _basket(random, shift) for place in range(shift.shop.batch)}
        taken = [lines for lines, reserved in zip(wanted.values(), shift.reserve(wanted), strict=True) if reserved]
        asked, orders = asked + len(wanted), orders + len(taken)
        units += sum(qty for lines in taken for qty in lines.values())
    return Shopped(orders, units, orders < asked, time.perf_counter() - began, time.process_time() - cpu_began)


def _basket(random: Random, shift: Shift) -> Mapping[int, int]:
    chosen = random.sample(shift.variant_ids, shift.shop.lines)
    return {variant_id: random.randint(1, shift.shop.most_units) for variant_id in chosen}


class Side:
    """One side of a comparison: how it reserves, in which crowd, and what an order has cost its processes so far."""

    def __init__(self, name: str, reserve: Reserve, shop: Shop, people: Crowd) -> None:
        self.name = name
        self.cpu_ms: list[float] = []
        self._reserve = reserve
        self._shop = shop
        self._people = people
        self._seed = 0

    def sell_out(self) -> tuple[Sequence[int], Counts]:
        """Sell until nobody can buy, with everybody after the same last units. Return what was for sale, and sold."""
        ids, done, held = self._open(self._shop.scarce_units, _SELL_OUT_SECONDS)
        check(f"{self.name} did not sell out in {_SELL_OUT_SECONDS} s", right=all(each.sold_out for each in done))
        return ids, held

    def sell(self, seconds: float) -> float:
        """Sell plenty and return the orders per second of all processes together."""
        _, done, _ = self._open(PLENTY, seconds)
        check(f"{self.name} refused an order although stock was plenty", right=not any(each.sold_out for each in done))
        orders = sum(each.orders for each in done)
        check(f"{self.name} reserved nothing", right=orders > 0)
        self.cpu_ms.append(sum(each.cpu_seconds for each in done) * 1_000 / orders)
        return sum(each.orders / each.seconds for each in done)

    def _open(self, units: int, seconds: float) -> tuple[Sequence[int], list[Shopped], Counts]:
        self._seed += 1  # Another day, other orders; but in the same round the same for both sides.
        ids = rows.load_stock(self._shop.variants, units)
        done = self._people.do(shop, Shift(self._reserve, ids, self._shop, seconds, self._seed))
        held = Counts(sum(each.orders for each in done), sum(each.units for each in done), expired_holds=0)
        rows.check_counts(self.name, held)
        return ids, done, held
