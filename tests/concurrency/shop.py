"""A busy shop in a nutshell: buyers who want everything in any order and pay when they like, and sweepers."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import OperationalError

from db import inventory, reservations
from db.errors import HarborError
from db.reservations import Hold, HoldRequest, RefundRequired
from db.session import transaction
from tests.db.holds import sales_of, state_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from tests.concurrency.crowd import Member

DEADLOCK = "DeadlockDetected"

_SWEEP_LIMIT = 25
_SWEEP_PAUSE_SECONDS = 0.1  # Long enough that buyers find due holds which no sweeper has closed yet.
_SHARED_ORDERS = 0.1  # Part of the orders that several buyers send at the same time under the same id.
_SHARED_SECONDS = 0.25
_BATCH = 12

_T = TypeVar("_T")


@dataclass
class _Buyer:
    """One client with a connection, a mind and a count of his own."""

    name: str
    variant_ids: list[int]
    member: Member
    dice: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    unpaid: list[Hold] = field(default_factory=list)
    numbers: count[int] = field(default_factory=count)

    def shop(self) -> Counter[str]:
        while not self.member.stop.is_set():
            self._order()
        return self.counts

    def _order(self) -> None:
        wish = self._wish()

        def reserve(session: Session) -> Hold:
            return reservations.reserve(session, wish.order_id, wish.lines, hold=wish.hold)

        hold = self._try("reserved", reserve)
        if hold is None:
            return
        if self.dice.random() < 0.2:
            again = self._try("reserved again", reserve)
            assert again is None or again.id == hold.id or state_of(hold.id) != "held", "two holds of one order"
        self._change_my_mind(hold, dict(wish.lines))
        self._end(hold)

    def _wish(self) -> HoldRequest:
        """One to four lines in random order; an order that others send too has the same lines for all."""
        if self.dice.random() < _SHARED_ORDERS:
            order_id = f"shared-{int(time.time() / _SHARED_SECONDS)}"
            dice = random.Random(order_id)
        else:
            order_id = self._new_name("order")
            dice = self.dice
        chosen = dice.sample(self.variant_ids, dice.randint(1, 4))
        lasts = timedelta(milliseconds=self.dice.uniform(50, 500))
        return HoldRequest(order_id, {variant_id: dice.randint(1, 3) for variant_id in chosen}, hold=lasts)

    def _new_name(self, of: str) -> str:
        return f"{of}-{self.name}-{next(self.numbers)}"

    def _change_my_mind(self, hold: Hold, lines: dict[int, int]) -> None:
        """Extend the hold, or give a part of it back, or neither."""
        chance = self.dice.random()
        if chance < 0.15:
            longer = timedelta(milliseconds=self.dice.uniform(50, 500))
            self._try("extended", lambda session: reservations.extend(session, hold.id, hold=longer))
        elif chance < 0.3:
            kept = self.dice.sample(sorted(lines), self.dice.randint(1, len(lines)))
            keep = {variant_id: self.dice.randint(1, lines[variant_id]) for variant_id in kept}
            self._try("kept a part", lambda session: reservations.release(session, hold.id, keep))

    def _end(self, hold: Hold) -> None:
        chance = self.dice.random()
        if chance < 0.35:
            self._pay(hold)
        elif chance < 0.5:
            self._try("released", lambda session: reservations.release(session, hold.id))
        if chance > 0.45:
            self.unpaid.append(hold)
        if chance > 0.85:
            self._pay_late(self.unpaid.pop(self.dice.randrange(len(self.unpaid))))

    def _pay(self, hold: Hold) -> None:
        payment_ref = self._new_name("payment")
        if self._try("confirmed", lambda session: reservations.confirm(session, hold.id, payment_ref)) is not None:
            self._send_back(hold.id)

    def _pay_late(self, hold: Hold) -> None:
        """Pay for a hold that may have ended long ago, at times twice, which has to be answered in the same way."""
        payment_ref = self._new_name("payment")

        def pay(session: Session) -> Hold | RefundRequired:
            answer = reservations.confirm_or_reacquire(session, hold.id, payment_ref)
            told.append("refunded" if isinstance(answer, RefundRequired) else "paid late")
            return answer

        told: list[str] = []
        answer = self._try("answered", pay)
        if answer is None:
            return
        self.counts[told[-1]] += 1
        if self.dice.random() < 0.5:
            again = self._try("answered again", pay)
            assert again is None or again == answer, "two answers to one payment"
        if isinstance(answer, Hold):
            self._send_back(answer.id)

    def _send_back(self, reservation_id: int) -> None:
        """Return everything that was sold, so that the shop never runs dry."""
        for variant_id, qty in sales_of(reservation_id):
            self._try("taken back", partial(inventory.take_back, variant_id=variant_id, qty=-qty))

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


@dataclass
class _Batcher(_Buyer):
    """One who drains a queue: each order is a batch of a dozen."""

    def _order(self) -> None:
        wishes = [self._wish() for _ in range(self.dice.randint(2, _BATCH))]
        answers = self._try("batched", lambda session: reservations.reserve_many(session, wishes))
        for answer in answers or ():
            if isinstance(answer, Hold):
                self.counts["reserved in a batch"] += 1
                self._end(answer)
            else:
                self.counts[type(answer).__name__] += 1


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


def buy_in_batches(member: Member, variant_ids: list[int]) -> Counter[str]:
    """Buy a dozen orders at a time until told to stop; return how often what happened."""
    name = f"batcher-{member.number}"
    member.meet()
    return _Batcher(name, variant_ids, member, random.Random(name)).shop()


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
