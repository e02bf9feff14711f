"""A hold's last moment: who comes in time gets it all, who comes too late is told so, and nobody gets half of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from db import reservations
from db.reservations import Hold, HoldRequest
from db.session import transaction
from tasks.reservations import sweep
from tests.concurrency.books import failures
from tests.concurrency.crowd import crowd
from tests.concurrency.meeting import TOO_LATE, act_at_the_end, sweep_at_the_end
from tests.db.sql import rows
from tests.factories import make_variant, stock_of

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.usefixtures("environ")

_ROUNDS = 200
_QTY = 3
_DEADLINE_SECONDS = 60

# How each hold stands after all is over: its state, and how many of its units were given back before its end.
_STANDS = {
    "confirmed": ("confirmed", 0),
    "extended": ("held", 0),
    "released": ("released", 0),
    "kept one": ("expired", _QTY - 1),
    TOO_LATE: ("expired", 0),
}
_GONE = {"confirmed": _QTY, "extended": _QTY}


@dataclass
class _Met:
    """What the one that acted was told of each hold, how each stands now, and what else there is to see."""

    told: list[str]
    stands: list[tuple[str, int]]
    swept: int
    stock: int

    @property
    def lies(self) -> list[str]:
        """What was told of holds that stand otherwise."""
        return [told for told, stands in zip(self.told, self.stands, strict=True) if stands != _STANDS[_plainly(told)]]


def _plainly(told: str) -> str:
    return told.removesuffix(", carelessly")


def _held(variant_id: int) -> list[int]:
    wanted = [HoldRequest(f"order-{number}", {variant_id: _QTY}) for number in range(_ROUNDS)]
    with transaction() as session:
        answers: Sequence[object] = reservations.reserve_many(session, wanted)
    return sorted(hold.id for hold in answers if isinstance(hold, Hold))


def _meet(act: str) -> _Met:
    variant_id = make_variant(stock=_QTY * _ROUNDS)
    reservation_ids = _held(variant_id)
    with crowd(2) as two:
        actor = two.start(act_at_the_end, reservation_ids, act)
        sweeper = two.start(sweep_at_the_end, _ROUNDS)
        told, swept = actor.result(_DEADLINE_SECONDS), sweeper.result(_DEADLINE_SECONDS)
    swept += sweep(timedelta(seconds=10)).holds
    stands = rows(
        """SELECT r.state, l.released_qty FROM stock_reservations r
             JOIN stock_reservation_lines l ON l.reservation_id = r.id ORDER BY r.id"""
    )
    return _Met(told, [(state, released_qty) for state, released_qty in stands], swept, stock_of(variant_id))


@pytest.mark.parametrize("act", ["confirmed", "extended", "released", "kept one"])
def test_at_the_end_of_a_hold_its_caller_and_a_sweep_tell_the_same_story(act: str) -> None:
    met = _meet(act)

    in_time = met.told.count(act)
    assert min(in_time, met.told.count(TOO_LATE)) >= _ROUNDS // 10
    assert met.lies == []
    assert met.swept == [state for state, _ in met.stands].count("expired")
    assert met.stock == _QTY * _ROUNDS - _GONE.get(act, 0) * in_time
    assert failures() == []


@pytest.mark.parametrize("act", ["confirmed", "extended", "released", "kept one"])
def test_by_looking_first_and_writing_then_they_do_not(act: str) -> None:
    met = _meet(f"{act}, carelessly")

    assert met.lies != [] or failures() != []
