"""Any sequence of calls gives what a few dictionaries say it must: what is held, what is free, who is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from db import inventory, reservations
from db.errors import InsufficientStock, OrderAlreadyReserved, ReservationResolved, StockTooLow
from db.session import transaction
from tests.db.holds import broken, released, reserved, swept
from tests.db.sql import make_due, rows
from tests.factories import make_variants

if TYPE_CHECKING:
    from collections.abc import Callable

VARIANTS: Final = 3
places = st.integers(0, VARIANTS - 1)
orders = st.sampled_from(["order-1", "order-2", "order-3", "order-4", "order-5"])
baskets = st.dictionaries(places, st.integers(1, 4), min_size=1)


@dataclass
class Expected:
    """A hold as it must stand; `over` says that its time is."""

    order_id: str
    lines: dict[int, int]
    state: str = "held"
    over: bool = False

    @property
    def living(self) -> bool:
        return self.state == "confirmed" or (self.state == "held" and not self.over)

    @property
    def due(self) -> bool:
        return self.state == "held" and self.over


class Shop(RuleBasedStateMachine):
    """The database beside the dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.variants: list[int] = []
        self.moved: dict[int, int] = {}
        self.holds: dict[int, Expected] = {}
        self.payments = 0

    # ---- what the dictionaries say -----------------------------------------------------------------------------------

    def free(self, variant_id: int, *, with_due: bool = False) -> int:
        taken = [
            hold.lines.get(variant_id, 0)
            for hold in self.holds.values()
            if hold.state in {"held", "confirmed"} and not (with_due and hold.due)
        ]
        return self.moved[variant_id] - sum(taken)

    def living_hold_of(self, order_id: str) -> int | None:
        return next((key for key, hold in self.holds.items() if hold.order_id == order_id and hold.living), None)

    def some_hold(self, place: int) -> int | None:
        return sorted(self.holds)[place % len(self.holds)] if self.holds else None

    def notice_what_a_reclaim_closed(self) -> None:
        """A reclaim may close any hold that is due, and none that is not."""
        for reservation_id, state in rows("SELECT id, state FROM stock_reservations"):
            if self.holds[reservation_id].due and state == "expired":
                self.holds[reservation_id].state = "expired"

    # ---- what is done ------------------------------------------------------------------------------------------------

    @initialize()
    def open(self) -> None:
        with transaction() as session:
            session.connection().exec_driver_sql("DELETE FROM stock_reservations")
            session.connection().exec_driver_sql("DELETE FROM products")
        self.variants = make_variants(VARIANTS, stock=5)
        self.moved = dict.fromkeys(self.variants, 5)

    @rule(basket=baskets, order_id=orders)
    def reserve(self, basket: dict[int, int], order_id: str) -> None:
        lines = {self.variants[place]: qty for place, qty in basket.items()}
        living = self.living_hold_of(order_id)
        if living is not None and self.holds[living].lines == lines:
            assert reserved(order_id, lines).id == living
        elif living is not None:
            with pytest.raises(OrderAlreadyReserved):
                reserved(order_id, lines)
        elif short := sorted(one for one, qty in lines.items() if self.free(one, with_due=True) < qty):
            with pytest.raises(InsufficientStock) as refused:
                reserved(order_id, lines)
            assert refused.value.ids["variant_ids"] == short
        else:
            hold = reserved(order_id, lines)
            assert hold.id not in self.holds
            self.holds[hold.id] = Expected(order_id, lines)
            self.notice_what_a_reclaim_closed()

    def end(self, place: int, then: str, call: Callable[[int], object]) -> None:
        reservation_id = self.some_hold(place)
        if reservation_id is None:
            return
        hold = self.holds[reservation_id]
        if hold.state == "held" and not hold.over:
            call(reservation_id)
            hold.state = then
        elif not (then == hold.state == "released"):
            with pytest.raises(ReservationResolved):
                call(reservation_id)

    @rule(place=st.integers(0, 50))
    def confirm(self, place: int) -> None:
        self.payments += 1

        def pay(reservation_id: int) -> None:
            with transaction() as session:
                reservations.confirm(session, reservation_id, f"payment-{self.payments}")

        self.end(place, "confirmed", pay)

    @rule(place=st.integers(0, 50))
    def release(self, place: int) -> None:
        self.end(place, "released", released)

    @rule(place=st.integers(0, 50))
    def let_time_pass(self, place: int) -> None:
        reservation_id = self.some_hold(place)
        if reservation_id is not None:
            make_due(reservation_id)
            self.holds[reservation_id].over = True

    @rule(limit=st.integers(1, 5))
    def sweep(self, limit: int) -> None:
        due = [hold for hold in self.holds.values() if hold.due]

        assert swept(limit) == min(limit, len(due))
        self.notice_what_a_reclaim_closed()
        assert sum(hold.due for hold in due) == max(0, len(due) - limit)

    @rule(place=places, change=st.integers(-4, 4).filter(bool))
    def adjust(self, place: int, change: int) -> None:
        variant_id = self.variants[place]
        with transaction() as session:
            if self.free(variant_id) + change < 0:
                with pytest.raises(StockTooLow):
                    inventory.adjust(session, variant_id, change, reason="counted")
            else:
                inventory.adjust(session, variant_id, change, reason="counted")
                self.moved[variant_id] += change

    # ---- what must be so after each ----------------------------------------------------------------------------------

    @invariant()
    def stock_and_states_are_what_they_must_be(self) -> None:
        stock = dict(rows("SELECT id, stock_qty FROM variants"))
        states = dict(rows("SELECT id, state FROM stock_reservations"))

        assert stock == {variant_id: self.free(variant_id) for variant_id in self.variants}
        assert states == {reservation_id: hold.state for reservation_id, hold in self.holds.items()}
        assert broken() == []


def test_any_sequence_of_calls_keeps_every_promise(database: None) -> None:
    brief = settings(
        max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )

    run_state_machine_as_test(Shop, settings=brief)
