"""The database beside the model: the same is done to both in any order, and both must say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import text

from db import inventory
from db.errors import HarborError, InsufficientStock, StockTooLow, VariantArchived
from db.inventory import Variant
from db.reservations import Hold, HoldRequest, RefundRequired
from db.session import transaction
from tests.db.holds import broken, confirmed, extended, kept, paid, released, reserved, reserved_many, swept
from tests.db.model import NEW, Expected, Model
from tests.db.sql import make_due, rows
from tests.factories import make_variant

if TYPE_CHECKING:
    from collections.abc import Callable

VARIANTS: Final = 3
STOCK: Final = 12
places = st.integers(0, VARIANTS - 1)
some = st.integers(0, 50)
orders = st.sampled_from(["order-1", "order-2", "order-3", "order-4", "order-5"])
baskets = st.dictionaries(places, st.integers(1, 3), min_size=1)
payments = st.integers(1, 12).map("payment-{}".format)
with_holds = precondition(lambda shop: shop.model.holds)


def answer(call: Callable[[], Any]) -> Any:
    """What a call returns, or the error that it raises."""
    try:
        return call()
    except HarborError as refused:
        return refused


class Shop(RuleBasedStateMachine):
    """The database beside the dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.variants: list[int] = []

    def lines(self, basket: dict[int, int]) -> dict[int, int]:
        return {self.variants[place]: qty for place, qty in basket.items()}

    def some_hold(self, place: int, *, lost: bool = False) -> int:
        """Any hold; three times of four one that is open, or that is `lost`, since most are not what a call is for."""
        fit = [key for key, hold in self.model.holds.items() if (not hold.living if lost else hold.open)]
        holds = sorted((place % 4 and fit) or self.model.holds)
        return holds[place % len(holds)]

    def notice_what_was_closed(self) -> None:
        """A sweep or a reclaim may close any hold that is due, and none that is not."""
        for reservation_id, state in rows("SELECT id, state FROM stock_reservations"):
            if self.model.holds[reservation_id].due and state == "expired":
                self.model.holds[reservation_id].state = "expired"

    # ---- what is done ------------------------------------------------------------------------------------------------

    @initialize()
    def open(self) -> None:
        with transaction() as session:
            for table in ("required_refunds", "stock_reservations", "stock_movements", "products"):
                session.execute(text(f"DELETE FROM {table}"))
        self.variants = [make_variant(stock=STOCK) for _ in range(VARIANTS)]
        self.model = Model(received=dict.fromkeys(self.variants, STOCK), returned=dict.fromkeys(self.variants, 0))

    def meet(self, order_id: str, lines: dict[int, int], told: Hold | HarborError) -> None:
        """Compare the answer to a wish with the model's, and let the model have the hold too."""
        expected = self.model.reserve(order_id, lines)
        if isinstance(expected, type):
            assert type(told) is expected
            if expected in {InsufficientStock, VariantArchived}:
                assert told.ids["variant_ids"] == self.model.missing(lines)
        elif expected == NEW:
            assert isinstance(told, Hold)
            assert told.id not in self.model.holds
            self.model.holds[told.id] = Expected(order_id, lines)
        else:
            assert isinstance(told, Hold)
            assert told.id == expected

    @rule(basket=baskets, order_id=orders)
    def reserve(self, basket: dict[int, int], order_id: str) -> None:
        lines = self.lines(basket)
        self.meet(order_id, lines, answer(lambda: reserved(order_id, lines)))
        self.notice_what_was_closed()

    @rule(wishes=st.lists(st.tuples(orders, baskets), max_size=5))
    def reserve_many(self, wishes: list[tuple[str, dict[int, int]]]) -> None:
        requests = [HoldRequest(order_id, self.lines(basket)) for order_id, basket in wishes]
        for request, told in zip(requests, reserved_many(*requests), strict=True):
            self.meet(request.order_id, dict(request.lines), told)
        self.notice_what_was_closed()

    @with_holds
    @rule(place=some)
    def extend(self, place: int) -> None:
        reservation_id = self.some_hold(place)
        told = answer(lambda: extended(reservation_id))
        assert type(told) is (self.model.ended(reservation_id) or Hold)

    @with_holds
    @rule(place=some)
    def release(self, place: int) -> None:
        reservation_id = self.some_hold(place)
        told = answer(lambda: released(reservation_id))
        hold = self.model.holds[reservation_id]
        assert type(told) is (Hold if hold.state == "released" else self.model.ended(reservation_id) or Hold)
        if hold.open:
            hold.state = "released"

    @with_holds
    @rule(place=some, basket=baskets, fits=st.integers(0, 3))
    def keep(self, place: int, basket: dict[int, int], fits: int) -> None:
        reservation_id = self.some_hold(place)
        keep, lines = self.lines(basket), self.model.holds[reservation_id].lines
        if fits:
            keep = {one: min(qty, lines[one]) for one, qty in keep.items() if one in lines} or lines
        expected = self.model.keep(reservation_id, keep)
        assert type(answer(lambda: kept(reservation_id, keep))) is (expected or Hold)
        if expected is None:
            self.model.holds[reservation_id].lines = keep

    @with_holds
    @rule(place=some, payment_ref=payments)
    def confirm(self, place: int, payment_ref: str) -> None:
        reservation_id = self.some_hold(place)
        expected = self.model.confirm(reservation_id, payment_ref)
        assert type(answer(lambda: confirmed(reservation_id, payment_ref))) is (expected or Hold)
        if expected is None:
            self.sell(reservation_id, payment_ref)

    def sell(self, reservation_id: int, payment_ref: str) -> None:
        self.model.holds[reservation_id].state = "confirmed"
        self.model.sales[payment_ref] = reservation_id

    @with_holds
    @rule(place=some, payment_ref=payments)
    def pay_late(self, place: int, payment_ref: str) -> None:
        reservation_id = self.some_hold(place, lost=True)
        paid_for = self.model.holds[reservation_id]
        expected = self.model.pay(reservation_id, payment_ref)
        told = answer(lambda: paid(reservation_id, payment_ref))
        if isinstance(expected, type):
            assert type(told) is expected
        elif isinstance(told, RefundRequired):
            assert told.reason == expected
            self.model.refunds.setdefault(payment_ref, (reservation_id, told.reason))
        elif payment_ref not in self.model.sales:
            assert told.id == expected or (expected == NEW and told.id not in self.model.holds)
            hold = self.model.holds.setdefault(told.id, Expected(paid_for.order_id, dict(paid_for.lines)))
            hold.revived_from = reservation_id if told.id != reservation_id else None
            self.sell(told.id, payment_ref)
        else:
            assert told.id == expected
        self.notice_what_was_closed()

    @with_holds
    @rule(place=some)
    def let_time_pass(self, place: int) -> None:
        reservation_id = self.some_hold(place)
        make_due(reservation_id)
        self.model.holds[reservation_id].over = True

    @rule(limit=st.integers(1, 5))
    def sweep(self, limit: int) -> None:
        due = [hold for hold in self.model.holds.values() if hold.due]

        assert swept(limit) == min(limit, len(due))
        self.notice_what_was_closed()
        assert sum(hold.due for hold in due) == max(0, len(due) - limit)

    @rule(place=places, change=st.integers(-4, 4).filter(bool))
    def adjust(self, place: int, change: int) -> None:
        variant_id = self.variants[place]
        with transaction() as session:
            if self.model.free(variant_id) + change < 0:
                with pytest.raises(StockTooLow):
                    inventory.adjust(session, variant_id, change, reason="counted")
            else:
                inventory.adjust(session, variant_id, change, reason="counted")
                self.model.received[variant_id] += change

    @rule(place=places)
    def take_back(self, place: int) -> None:
        variant_id = self.variants[place]
        if self.model.units_in(variant_id, "confirmed") > self.model.returned[variant_id]:
            with transaction() as session:
                inventory.take_back(session, variant_id, 1)
            self.model.returned[variant_id] += 1

    @precondition(lambda shop: len(shop.model.holds) > 5)
    @rule()
    def archive(self) -> None:
        with transaction() as session:
            inventory.archive(session, session.get_one(Variant, self.variants[-1]).product_id)
        self.model.archived.add(self.variants[-1])

    # ---- what must be so after each ----------------------------------------------------------------------------------

    @invariant()
    def every_hold_is_as_it_must_be(self) -> None:
        found = {
            reservation_id: Expected(order_id, {}, state, over, revived_from)
            for reservation_id, order_id, state, over, revived_from in rows(_HOLDS)
        }
        for reservation_id, variant_id, qty in rows(_LINES):
            found[reservation_id].lines[variant_id] = qty

        assert found == self.model.holds
        assert dict(rows("SELECT payment_ref, id FROM stock_reservations WHERE payment_ref <> ''")) == self.model.sales
        refunds = rows("SELECT payment_ref, reservation_id, reason FROM required_refunds")
        assert {payment_ref: (paid_for, reason) for payment_ref, paid_for, reason in refunds} == self.model.refunds

    @invariant()
    def every_unit_is_somewhere_once(self) -> None:
        found = {variant_id: units for variant_id, *units in rows(_UNITS)}

        for variant_id in self.variants:
            stock, held, sold, returned, received = found[variant_id]
            assert stock + held + sold - returned == received == self.model.received[variant_id]
            assert stock == self.model.free(variant_id)
            assert (sold, returned) == (self.model.units_in(variant_id, "confirmed"), self.model.returned[variant_id])
        assert broken() == []


_HOLDS = "SELECT id, order_id, state, expires_at <= statement_timestamp(), revived_from FROM stock_reservations"
_LINES = "SELECT reservation_id, variant_id, qty - released_qty FROM stock_reservation_lines WHERE qty > released_qty"
_UNITS = """
SELECT v.id, v.stock_qty, (SELECT coalesce(sum(l.qty - l.released_qty), 0) FROM stock_reservation_lines l
                             JOIN stock_reservations r ON r.id = l.reservation_id
                            WHERE l.variant_id = v.id AND r.state = 'held'),
       coalesce(-sum(m.qty) FILTER (WHERE m.kind = 'sale'), 0),
       coalesce(sum(m.qty) FILTER (WHERE m.kind = 'take_back'), 0),
       sum(m.qty) FILTER (WHERE m.kind IN ('receive', 'adjust'))
  FROM variants v JOIN stock_movements m ON m.variant_id = v.id GROUP BY v.id"""
