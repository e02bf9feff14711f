"""Taking holds: many processes after one hot variant, many with whole baskets, a queue that is drained in batches."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Final

from bench.crowd import crowd
from bench.measure import Goal, Result, ratios, take_turns
from bench.reservations import rival
from bench.reservations.shoppers import Shop, Side
from db import reservations
from db.errors import InsufficientStock
from db.reservations import Hold, HoldRequest
from db.session import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.reservations.shoppers import Orders
    from bench.reservations.size import Size

HOT: Final = Goal("reserve_hot_8", "orders/s on one hot variant, 8 processes, ÷ rival", 2.2)
HOT_64: Final = Goal("reserve_hot_64", "orders/s on one hot variant, 64 processes that take a slot, ÷ 8 without", 0.6)
MANY_HOT: Final = Goal(
    "reserve_many_hot", "reservations/s on one hot variant in batches of 100, 8 processes, ÷ rival's orders/s", 25
)
BASKET: Final = Goal("reserve_basket", "20-line orders/s over 2,000 variants, 8 processes, ÷ rival", 8)

HOT_SHOP: Final = Shop(variants=1, lines=1, scarce_units=200)


# ---- how an order is placed; each is found by its name in the processes of a crowd -----------------------------------


def reserve(order_id: str, lines: Mapping[int, int]) -> bool:
    """Hold units for an order as a service of Harbor's does; return whether there were enough."""
    try:
        with transaction() as session:
            reservations.reserve(session, order_id, lines)
    except InsufficientStock:
        return False
    return True


def reserve_in_turn(order_id: str, lines: Mapping[int, int]) -> bool:
    """Do the same from one of the few places before a hot variant."""
    with reservations.slot(min(lines)):
        return reserve(order_id, lines)


def reserve_many(orders: Orders) -> Sequence[bool]:
    """Hold units for many orders in one transaction; say for each whether there were enough."""
    requests = [HoldRequest(order_id, lines) for order_id, lines in orders.items()]
    with transaction() as session:
        answers = reservations.reserve_many(session, requests)
    for answer in answers:
        if not isinstance(answer, Hold | InsufficientStock):
            raise answer
    return [isinstance(answer, Hold) for answer in answers]


def one_by_one(place: Callable[[str, Mapping[int, int]], bool], orders: Orders) -> Sequence[bool]:
    """Place orders one after the other."""
    return [place(order_id, lines) for order_id, lines in orders.items()]


# ---- what is measured ------------------------------------------------------------------------------------------------


def reserve_hot(size: Size) -> list[Result]:
    """Measure orders of one line that all want the same variant."""
    return _against_rival(HOT, HOT_SHOP, size)


def reserve_basket(size: Size) -> list[Result]:
    """Measure orders of 20 lines over all variants."""
    return _against_rival(BASKET, Shop(size.variants, lines=20, scarce_units=10), size)


def _against_rival(goal: Goal, shop: Shop, size: Size) -> list[Result]:
    with crowd(size.processes) as people:
        ours = Side("harbor", partial(one_by_one, reserve), shop, people)
        theirs = Side("rival", partial(one_by_one, rival.reserve), shop, people)
        rates = _rates([ours, theirs], size.reserve_rounds, size)
    our_rate, their_rate = median(rates["harbor"]), median(rates["rival"])
    extra = {
        "orders_per_s": our_rate,
        "rival_orders_per_s": their_rate,
        "client_cpu_ms_per_order": median(ours.cpu_ms),
        "rival_client_cpu_ms_per_order": median(theirs.cpu_ms),
    }
    note = f"{our_rate:,.0f} orders/s, rival {their_rate:,.0f}"
    return [Result(goal, ratios(rates["harbor"], rates["rival"]), note, extra)]


def reserve_many_hot(size: Size) -> list[Result]:
    """Measure orders that all want the same variant and are placed a batch at a time."""
    with crowd(size.processes) as people:
        batches = replace(HOT_SHOP, scarce_units=HOT_SHOP.scarce_units * size.batch, batch=size.batch)
        ours = Side("harbor", reserve_many, batches, people)
        theirs = Side("rival", partial(one_by_one, rival.reserve), HOT_SHOP, people)
        rates = _rates([ours, theirs], size.hot_rounds, size)
    our_rate, their_rate = median(rates["harbor"]), median(rates["rival"])
    extra = {
        "orders_per_s": our_rate,
        "rival_orders_per_s": their_rate,
        "client_cpu_ms_per_order": median(ours.cpu_ms),
    }
    note = f"{our_rate:,.0f} reservations/s, rival {their_rate:,.0f} orders/s"
    return [Result(MANY_HOT, ratios(rates["harbor"], rates["rival"]), note, extra)]


def reserve_hot_by_many(size: Size) -> list[Result]:
    """Measure whether as many are sold when many times more people want the same variant."""
    with ExitStack() as stack:
        few, many = (stack.enter_context(crowd(number)) for number in (size.processes, size.hot_processes))
        in_turn, at_once = partial(one_by_one, reserve_in_turn), partial(one_by_one, reserve)
        sides = [
            Side("harbor", in_turn, HOT_SHOP, many),
            Side("few", at_once, HOT_SHOP, few),
            Side("no slot", at_once, HOT_SHOP, many),
        ]
        rates = _rates(sides, size.hot_rounds, size)
    rate, few_rate, collapsed = (median(rates[side.name]) for side in sides)
    extra = {
        "orders_per_s": rate,
        "few_orders_per_s": few_rate,
        "no_slot_orders_per_s": collapsed,
        "no_slot_ratio": median(ratios(rates["no slot"], rates["few"])),
        "client_cpu_ms_per_order": median(sides[0].cpu_ms),
        "few_client_cpu_ms_per_order": median(sides[1].cpu_ms),
    }
    note = f"{rate:,.0f} orders/s, few {few_rate:,.0f}; many without a slot {collapsed:,.0f}"
    return [Result(HOT_64, ratios(rates["harbor"], rates["few"]), note, extra)]


def _rates(sides: Sequence[Side], rounds: int, size: Size) -> dict[str, list[float]]:
    """Let each side sell out, which has to be right, and then return its orders per second, round by round."""
    for side in sides:
        side.sell_out()
    return take_turns(
        {side.name: partial(side.sell, size.seconds) for side in sides}, rounds=rounds, warm_ups=1, unit="orders/s"
    )
