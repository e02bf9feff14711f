"""Sides that do their work wrong, each in one way: the bench has to refuse a number for every one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from bench.reservations import reserve, rival
from db.session import transaction
from tasks import reservations as tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from bench.reservations.shoppers import Orders
    from tasks.reservations import Swept

_right_reserve = rival.reserve
_right_reserve_many = reserve.reserve_many
_right_rival_sweep = rival.sweep
_right_sweep = tasks.sweep


def _put_on_sale(units: int) -> None:
    with transaction() as session:
        session.execute(
            text("UPDATE variants SET stock_qty = stock_qty + :units WHERE id = (SELECT min(id) FROM variants)"),
            {"units": units},
        )


def reserve_and_sell_again(order_id: str, lines: Mapping[int, int]) -> bool:
    """Oversell: the units of one held order are put back on sale."""
    reserved = _right_reserve(order_id, lines)
    if order_id == "0-0":
        _put_on_sale(1)
    return reserved


def reserve_nothing(order_id: str, lines: Mapping[int, int]) -> bool:
    return not order_id.endswith("-3")


def reserve_many_and_tell_less(orders: Orders) -> Sequence[bool]:
    """Take units for an order that is told there were none."""
    reserved = dict(zip(orders, _right_reserve_many(orders), strict=True))
    return [taken and order_id != "0-0" for order_id, taken in reserved.items()]


def grant_what_is_sold_out(order_id: str, lines: Mapping[int, int]) -> bool:
    return order_id == "refused-0-0" or _right_reserve(order_id, lines)


def refuse_and_put_on_sale(order_id: str, lines: Mapping[int, int]) -> bool:
    reserved = _right_reserve(order_id, lines)
    if order_id == "refused-0-0":
        _put_on_sale(1)
    return reserved and not order_id.startswith("refused")


def sweep_and_double(most: int) -> int:
    swept = _right_rival_sweep(most)
    _put_on_sale(1)
    return swept


def sweep_one_less(most: int) -> int:
    _right_rival_sweep(most - 1)
    return most


def sweep_and_forget_a_unit(budget: timedelta) -> Swept:
    swept = _right_sweep(budget)
    _put_on_sale(-1)
    return swept
