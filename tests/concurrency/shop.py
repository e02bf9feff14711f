"""A busy shop in a nutshell: buyers who want everything in any order, sweepers, and an auditor who never looks away."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db import inventory, reservations
from db.errors import HarborError
from db.session import snapshot, transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from db.reservations import Hold
    from tests.concurrency.crowd import Member

DEADLOCK = "DeadlockDetected"

_SWEEP_LIMIT = 25
_SWEEP_PAUSE_SECONDS = 0.1  # Long enough that buyers find due holds which no sweeper has closed yet.
_AUDIT_PAUSE_SECONDS = 0.05
_SHARED_ORDERS = 0.1  # Part of the orders that several buyers send at the same time under the same id.
_SHARED_SECONDS = 0.25

_T = TypeVar("_T")


@dataclass
class _Buyer:
    """One client with a connection, a mind and a count of his own."""

    name: str
    variant_ids: list[int]
    member: Member
    dice: random.Random
    counts: Counter[str] = field(default_factory=Counter)

    def shop(self) -> Counter[str]:
        while not self.member.stop.is_set():
            self._order()
        return self.counts

    def _order(self) -> None:
        order_id, lines = self._wish()
        lasts = timedelta(milliseconds=self.dice.uniform(50, 500))

        def reserve(session: Session) -> Hold:
            return reservations.reserve(session, order_id, lines, hold=lasts)

        hold = self._try("reserved", reserve)
        if hold is None:
            return
        if self.dice.random() < 0.2:
            again = self._try("reserved again", reserve)
            assert again is None or again.id == hold.id or _state(hold.id) != "held", "two holds of one order"
        end = self.dice.random()
        if end < 0.35:
            self._pay(hold, lines)
        elif end < 0.55:
            self._try("released", lambda session: reservations.release(session, hold.id))

    def _wish(self) -> tuple[str, dict[int, int]]:
        """One to four lines in random order; an order that others send too has the same lines for all."""
        if self.dice.random() < _SHARED_ORDERS:
            order_id = f"shared-{int(time.time() / _SHARED_SECONDS)}"
            dice = random.Random(order_id)
        else:
            order_id = f"{self.name}-{sum(self.counts.values())}"
            dice = self.dice
        chosen = dice.sample(self.variant_ids, dice.randint(1, 4))
        return order_id, {variant_id: dice.randint(1, 3) for variant_id in chosen}

    def _pay(self, hold: Hold, lines: dict[int, int]) -> None:
        """Confirm, and send everything back afterwards, so that the shop never runs dry."""
        payment_ref = f"payment-{self.name}-{sum(self.counts.values())}"
        if self._try("confirmed", lambda session: reservations.confirm(session, hold.id, payment_ref)) is None:
            return
        for variant_id, qty in lines.items():
            self._try("taken back", partial(inventory.take_back, variant_id=variant_id, qty=qty))

    def _try(self, name: str, act: Callable[[Session], _T]) -> _T | None:
        """Do something in a transaction of its own and count how it went; anything that nobody expects is raised."""
        try:
            with transaction() as session:
                answer = act(session)
        except HarborError as refused:
            self.counts[type(refused).__name__] += 1
            return None
        except OperationalError as error:
            _note(self.member, self.counts, error)
            return None
        self.counts[name] += 1
        return answer


def _state(reservation_id: int) -> str:
    with transaction() as session:
        return session.get_one(reservations.StockReservation, reservation_id).state


def _note(member: Member, counts: Counter[str], error: OperationalError) -> None:
    """Count what the database refused, by name; a deadlock ends the run, since it has shown what there was to see."""
    kind = type(error.orig).__name__
    counts[kind] += 1
    if kind == DEADLOCK:
        member.stop.set()


def buy(member: Member, variant_ids: list[int], buyers: int) -> Counter[str]:
    """Let several buyers shop until they are told to stop; return how often what happened."""
    member.meet()
    crowd = [
        _Buyer(name, variant_ids, member, random.Random(name))
        for name in (f"buyer-{member.number}-{number}" for number in range(buyers))
    ]
    with ThreadPoolExecutor(buyers) as threads:
        return sum(threads.map(_Buyer.shop, crowd), Counter())


def sweep(member: Member) -> Counter[str]:
    """Sweep until told to stop; return how many holds were closed."""
    counts: Counter[str] = Counter()
    member.meet()
    while not member.stop.wait(_SWEEP_PAUSE_SECONDS):
        try:
            with transaction() as session:
                closed = reservations.expire_due(session, _SWEEP_LIMIT)
        except OperationalError as error:
            _note(member, counts, error)
        else:
            counts["expired"] += closed
    return counts


@dataclass
class Audit:
    """How often the books were read, and each time they did not add up."""

    looks: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


def audit(member: Member) -> Audit:
    """Read the books again and again until told to stop."""
    found = Audit()
    member.meet()
    while not member.stop.wait(_AUDIT_PAUSE_SECONDS):
        found.looks += 1
        found.failures += failures()
    return found


_BOOKS = text("""
SELECT * FROM (
  SELECT v.id, v.stock_qty,
         (SELECT coalesce(sum(m.qty), 0) FROM stock_movements m WHERE m.variant_id = v.id) AS moved,
         (SELECT coalesce(-sum(m.qty), 0) FROM stock_movements m
           WHERE m.variant_id = v.id AND m.kind = 'sale') AS sales,
         coalesce(sum(l.qty - l.released_qty) FILTER (WHERE r.state = 'held'), 0) AS held,
         coalesce(sum(l.qty - l.released_qty) FILTER (WHERE r.state = 'confirmed'), 0) AS confirmed
    FROM variants v
    LEFT JOIN stock_reservation_lines l ON l.variant_id = v.id
    LEFT JOIN stock_reservations r ON r.id = l.reservation_id
   GROUP BY v.id) books
 WHERE stock_qty < 0 OR stock_qty + held <> moved OR confirmed <> sales
""")


def failures() -> list[dict[str, Any]]:
    """Every variant whose units do not add up at one moment, counted from the rows and not by Harbor's own function."""
    with snapshot() as session:
        return [dict(row) for row in session.execute(_BOOKS).mappings()]
