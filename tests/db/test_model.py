"""Any sequence of calls gives what a few dictionaries say it must: what is held, what is free, who is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from db import inventory
from db.errors import HarborError, InsufficientStock, PaymentToRefund, StockTooLow, VariantArchived
from db.inventory import Variant
from db.reservations import Hold, HoldRequest, RefundRequired, deadline, late, many, resolve, sale, units
from db.session import transaction
from tests.db.holds import (
    broken,
    confirmed,
    extended,
    kept,
    paid,
    released,
    reserved,
    reserved_many,
    swept,
)
from tests.db.model import NEW, Expected, Model
from tests.db.sql import make_due, rows
from tests.factories import make_variant

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

VARIANTS: Final = 3
places = st.integers(0, VARIANTS - 1)
some = st.integers(0, 50)
orders = st.sampled_from(["order-1", "order-2", "order-3", "order-4", "order-5"])
baskets = st.dictionaries(places, st.integers(1, 4), min_size=1)
payments = st.integers(1, 12).map("payment-{}".format)


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

    def some_hold(self, place: int) -> int | None:
        """Any hold; every other time one that is held, since most have ended after a while."""
        held = [key for key, hold in self.model.holds.items() if hold.state == "held"] if place % 2 else []
        holds = sorted(held or self.model.holds)
        return holds[place % len(holds)] if holds else None

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
        self.variants = [make_variant(stock=5) for _ in range(VARIANTS)]
        self.model = Model(received=dict.fromkeys(self.variants, 5), returned=dict.fromkeys(self.variants, 0))

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

    @rule(place=some)
    def extend(self, place: int) -> None:
        if (reservation_id := self.some_hold(place)) is not None:
            told = answer(lambda: extended(reservation_id))
            assert type(told) is (self.model.ended(reservation_id) or Hold)

    @rule(place=some)
    def release(self, place: int) -> None:
        if (reservation_id := self.some_hold(place)) is not None:
            told = answer(lambda: released(reservation_id))
            hold = self.model.holds[reservation_id]
            assert type(told) is (Hold if hold.state == "released" else self.model.ended(reservation_id) or Hold)
            if hold.open:
                hold.state = "released"

    @rule(place=some, basket=baskets, fits=st.booleans())
    def keep(self, place: int, basket: dict[int, int], fits: bool) -> None:
        if (reservation_id := self.some_hold(place)) is not None:
            keep = self.lines(basket)
            if fits:
                lines = self.model.holds[reservation_id].lines
                keep = {one: min(qty, lines[one]) for one, qty in keep.items() if one in lines} or lines
            expected = self.model.keep(reservation_id, keep)
            assert type(answer(lambda: kept(reservation_id, keep))) is (expected or Hold)
            if expected is None:
                self.model.holds[reservation_id].lines = keep

    @rule(place=some, payment_ref=payments)
    def confirm(self, place: int, payment_ref: str) -> None:
        if (reservation_id := self.some_hold(place)) is not None:
            told = answer(lambda: confirmed(reservation_id, payment_ref))
            if payment_ref in self.model.refunds and self.model.holds[reservation_id].state != "confirmed":
                assert type(told) is PaymentToRefund
                return
            expected = self.model.confirm(reservation_id, payment_ref)
            assert type(told) is (expected or Hold)
            if expected is None:
                self.sell(reservation_id, payment_ref)

    def sell(self, reservation_id: int, payment_ref: str) -> None:
        self.model.holds[reservation_id].state = "confirmed"
        self.model.sales[payment_ref] = reservation_id

    @rule(place=some, payment_ref=payments)
    def pay_late(self, place: int, payment_ref: str) -> None:
        if (reservation_id := self.some_hold(place)) is None:
            return
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

    @rule(place=some)
    def let_time_pass(self, place: int) -> None:
        if (reservation_id := self.some_hold(place)) is not None:
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


_HOLDS = """SELECT id, order_id, state, expires_at <= statement_timestamp(), revived_from FROM stock_reservations"""
_LINES = "SELECT reservation_id, variant_id, qty - released_qty FROM stock_reservation_lines WHERE qty > released_qty"
_UNITS = """
SELECT v.id, v.stock_qty, (SELECT coalesce(sum(l.qty - l.released_qty), 0) FROM stock_reservation_lines l
                             JOIN stock_reservations r ON r.id = l.reservation_id
                            WHERE l.variant_id = v.id AND r.state = 'held'),
       coalesce(-sum(m.qty) FILTER (WHERE m.kind = 'sale'), 0),
       coalesce(sum(m.qty) FILTER (WHERE m.kind = 'take_back'), 0),
       sum(m.qty) FILTER (WHERE m.kind IN ('receive', 'adjust'))
  FROM variants v JOIN stock_movements m ON m.variant_id = v.id GROUP BY v.id"""


def _settings(**more: Any) -> settings:
    return settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], **more)


def test_any_sequence_of_calls_keeps_every_promise(database: None) -> None:
    run_state_machine_as_test(Shop, settings=_settings(max_examples=30, stateful_step_count=40))


_DEFECTS: dict[str, tuple[ModuleType, str, str, str]] = {
    "an end gives back also what was given back before": (units, "_UNITS", "sum(qty - released_qty)", "sum(qty)"),
    "a sale sells also what was given back before": (sale, "_SALES", "released_qty - qty,", "-qty,"),
    "an extension revives what is over": (deadline, "_EXTEND", " AND expires_at > statement_timestamp()", ""),
    "a smaller hold is still the one of the first wish": (
        resolve,
        "_KEEP",
        "SET request_hash = :request_hash",
        "SET id = id",
    ),
    "a late payment takes what the hold had at first": (late, "_LINES_AT_ITS_END", "qty - released_qty AS qty", "qty"),
    "a batch does not see what is due": (many, "_DUE_UNITS", "state = 'held'", "false"),
}


@pytest.mark.parametrize(("home", "name", "right", "wrong"), _DEFECTS.values(), ids=_DEFECTS)
def test_a_defect_does_not_escape_it(
    database: None, monkeypatch: pytest.MonkeyPatch, home: ModuleType, name: str, right: str, wrong: str
) -> None:
    statement = getattr(home, name).text
    assert statement.count(right) == 1
    monkeypatch.setattr(home, name, text(statement.replace(right, wrong)))
    # The same examples each time, and the first that fails is enough.
    hunt = _settings(
        max_examples=200,
        stateful_step_count=40,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Shop, settings=hunt)
