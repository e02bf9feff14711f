"""The shop of the demo and its customers: scarce, repeatable, in the trace's order, never waiting for each other."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from threading import Thread

import pytest

from db import inventory
from db.session import transaction
from demo.agenda import Agenda
from demo.catalogue import open_shop, opening_stock
from demo.generate import generate
from demo.rows import LARGEST_INTEGER
from demo.shoppers import intent, paced
from demo.trace import Trace, parse

HEADER = "order_id,sku,qty,ordered_at,unit_price"


@pytest.fixture(scope="module")
def made_up() -> Trace:
    return generate(3, orders=120)


def test_every_sku_has_less_than_is_asked_for_some_have_none_and_most_have_something(made_up: Trace) -> None:
    asked: Counter[str] = Counter()
    for order in made_up.orders:
        asked.update(order.lines)

    stock = opening_stock(made_up, seed=1)

    assert stock.keys() == made_up.prices.keys()
    assert all(0 <= stock[sku] < asked[sku] for sku in asked)
    assert all(stock[sku] == 0 for sku in stock.keys() - asked.keys())
    with_stock = sum(units > 0 for units in stock.values())
    assert 0.7 * len(stock) < with_stock < len(stock)


def test_the_seed_decides_the_stock(made_up: Trace) -> None:
    assert opening_stock(made_up, seed=1) == opening_stock(made_up, seed=1)
    assert opening_stock(made_up, seed=1) != opening_stock(made_up, seed=2)


@pytest.mark.usefixtures("environ")
def test_the_opening_stock_is_on_sale_and_in_the_ledger_however_much_was_asked_for() -> None:
    rows = [f"{number},HBR-MUG-01,{LARGEST_INTEGER},2026-01-05T09:00Z,9" for number in range(5)]
    trace = parse([HEADER, *rows, "9,HBR-MUG-02,1,2026-01-05T09:00Z,9"], "the test's rows")

    with transaction() as session:
        variant_ids = open_shop(session, trace, seed=1)
    with transaction() as session:
        stock = {sku: session.get_one(inventory.Variant, number).stock_qty for sku, number in variant_ids.items()}

    assert stock == {"HBR-MUG-01": LARGEST_INTEGER, "HBR-MUG-02": 0}
    assert inventory.reconcile().broken == []


def test_seven_in_ten_confirm_one_releases_two_walk_away_and_the_seed_decides_who() -> None:
    endings = Counter(intent(1, f"order-{number}").ending for number in range(10_000))

    assert {ending: round(count / 10_000, 2) for ending, count in endings.items()} == pytest.approx(
        {"confirm": 0.7, "release": 0.1, "walk away": 0.2}, abs=0.015
    )
    assert intent(1, "order-1") == intent(1, "order-1")
    assert intent(1, "order-1") != intent(2, "order-1")


def test_the_replay_keeps_the_trace_order_and_fills_its_window(made_up: Trace) -> None:
    events = list(paced(made_up, window_seconds=40))

    assert len(events) == len(made_up.orders) + len(made_up.returns)
    assert all(before.ordered_at <= after.ordered_at for (_, before), (_, after) in pairwise(events))
    assert all(before < after for (before, _), (after, _) in pairwise(events))
    assert math.isclose(events[-1][0], 40)


def test_a_night_without_orders_does_not_stop_the_replay() -> None:
    trace = parse(
        [HEADER, *(f"{day},A1,1,2026-01-0{day}T09:{minute}Z,1" for day in (5, 6) for minute in ("00", "05"))],
        "the test's rows",
    )
    one_day = parse([HEADER, *(f"{m},A1,1,2026-01-05T09:{m}Z,1" for m in ("00", "05", "20"))], "the test's rows")

    night = [at for at, _ in paced(trace, 100)]
    quarter_of_an_hour = [at for at, _ in paced(one_day, 100)]

    assert len(night) == 2
    assert quarter_of_an_hour[2] - quarter_of_an_hour[1] < 80


def test_the_agenda_serves_those_who_come_back_before_a_backlog_and_ends_when_nothing_can_follow() -> None:
    done: list[str] = []

    def first() -> None:
        done.append("first")
        agenda.come_back(0, lambda: done.append("back"))

    agenda = Agenda([(0, first), (0, lambda: done.append("second"))])

    for deed in agenda.deeds():
        deed()

    assert done == ["first", "back", "second"]


def test_a_closed_agenda_sends_those_home_who_wait() -> None:
    agenda = Agenda([(3_600, lambda: None)])
    waiting = Thread(target=lambda: list(agenda.deeds()))
    waiting.start()

    agenda.close()
    waiting.join(timeout=10)

    assert not waiting.is_alive()
