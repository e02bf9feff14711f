"""Sides that do their work wrong, each in one way: the bench has to refuse a number for every one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from bench.reservations import rival
from db.session import transaction

if TYPE_CHECKING:
    from collections.abc import Mapping

_right_reserve = rival.reserve
_right_sweep = rival.sweep


def reserve_and_sell_again(order_id: str, lines: Mapping[int, int]) -> bool:
    """Oversell: the units of one held order are put back on sale."""
    reserved = _right_reserve(order_id, lines)
    if order_id == "0-3":
        with transaction() as session:
            session.execute(text("UPDATE variants SET stock_qty = stock_qty + 1 WHERE id = :id"), {"id": min(lines)})
    return reserved


def reserve_nothing(order_id: str, lines: Mapping[int, int]) -> bool:
    return not order_id.endswith("-3")


def sweep_and_double(most: int) -> int:
    swept = _right_sweep(most)
    with transaction() as session:
        session.execute(text("UPDATE variants SET stock_qty = stock_qty + 1 WHERE id = (SELECT min(id) FROM variants)"))
    return swept


def sweep_one_less(most: int) -> int:
    _right_sweep(most - 1)
    return most
