"""The speed of holds: taking them on one hot variant, taking whole baskets, and giving back those that are due.

Promise: after each round the database is asked whether units were oversold, lost or given back twice; a side that did
any of it gets no number.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from bench import database, rival
from bench.measure import check
from db import reservations
from db.errors import InsufficientStock
from db.session import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.crowd import Crowd

Reserve = "Callable[[str, Mapping[int, int]], bool]"
PLENTY = 10_000_000


def reserve(order_id: str, lines: Mapping[int, int]) -> bool:
    """Harbor's side: hold units for an order as a service would, and return whether there were enough."""
    try:
        with transaction() as session:
            reservations.reserve(session, order_id, lines)
    except InsufficientStock:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Shopping:
    reserve: Callable[[str, Mapping[int, int]], bool]
    variant_ids: Sequence[int]
    lines: int
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Turn:
    orders: int
    units: int
    seconds: float
    cpu_seconds: float
    sold_out: int


def shop(number: int, told: Shopping) -> Turn:
    random = Random(told.seed * 1_000 + number)
    orders = units = sold_out = 0
    cpu = time.process_time()
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < told.seconds:
        lines = {v: random.randint(1, 3) for v in random.sample(told.variant_ids, told.lines)}
        if told.reserve(f"{told.seed}-{number}-{orders}", lines):
            orders += 1
            units += sum(lines.values())
        else:
            sold_out += 1
    return Turn(orders, units, elapsed, time.process_time() - cpu, sold_out)


def shopping_round(side: str, crowd: Crowd, reserve, variants: int, lines: int, seconds: float, seed: int):
    ids = database.stock(variants, PLENTY)
    turns = crowd.all(shop, Shopping(reserve, ids, lines, seconds, seed))
    orders = sum(t.orders for t in turns)
    database.check_units(side, held_orders=orders, held_units=sum(t.units for t in turns))
    return sum(t.orders / t.seconds for t in turns), sum(t.cpu_seconds for t in turns) / orders * 1e3
