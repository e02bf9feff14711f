"""Buyers in batches, buyers alone and sweepers, who want the same few orders and variants in any order: no deadlock."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db.errors import HarborError
from db.reservations import Hold, HoldRequest, units
from tests.db.holds import broken, released, reserved, reserved_many, swept
from tests.db.sql import value
from tests.factories import make_variants

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("database")

_THREADS = 4
_ROUNDS = 60
_BRIEFLY = timedelta(milliseconds=150)


class _Crowd:
    """Buyers in batches, alone, and sweepers, who all want the same few orders and variants in any order."""

    def __init__(self) -> None:
        self.variant_ids = make_variants(5, stock=6)
        dice = random.Random("wishes")
        self.wishes = [
            (f"order-{number}", {one: dice.randint(1, 2) for one in dice.sample(self.variant_ids, 3)})
            for number in range(10)
        ]
        self.stop = threading.Event()

    def run(self, rounds: int) -> Counter[str]:
        """Return how often what happened; who meets a deadlock stops the others."""
        with ThreadPoolExecutor(_THREADS) as threads:
            return sum(
                threads.map(lambda number: self._shop(random.Random(number), rounds), range(_THREADS)), Counter()
            )

    def _shop(self, dice: random.Random, rounds: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        for _ in range(rounds):
            if self.stop.is_set():
                break
            try:
                counts.update(self._round(dice))
            except OperationalError as error:
                counts[type(error.orig).__name__] += 1
                self.stop.set()
        return counts

    def _round(self, dice: random.Random) -> list[str]:
        wishes = [
            HoldRequest(order_id, dict(dice.sample(sorted(lines.items()), len(lines))), hold=_BRIEFLY)
            for order_id, lines in dice.sample(self.wishes, dice.randint(2, 6))
        ]
        answers = reserved_many(*wishes)
        did = [type(answer).__name__ for answer in answers]
        if dice.random() < 0.3:
            did.append(_tried(lambda: reserved(wishes[0].order_id, wishes[0].lines)))
        if dice.random() < 0.1:
            did.append(f"swept {swept() > 0}")
        ended = [answer for answer in answers if isinstance(answer, Hold) and dice.random() < 0.2]
        return did + [_tried(partial(released, hold.id)) for hold in ended]


def _tried(act: Callable[[], object]) -> str:
    try:
        act()
    except HarborError as refused:
        return type(refused).__name__
    return "done"


def test_hundreds_of_batches_in_any_order_never_deadlock_and_the_books_add_up() -> None:
    counts = _Crowd().run(_ROUNDS)
    print(counts)  # noqa: T201 - shown when it fails

    assert "DeadlockDetected" not in counts
    assert counts["Hold"] > _ROUNDS
    assert counts["InsufficientStock"] > 0
    assert counts["done"] > _ROUNDS
    assert value("SELECT count(*) FROM stock_reservations WHERE state = 'expired'") > 0
    assert broken() == []


def test_with_variants_locked_in_any_order_they_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    in_order = units._LOCK.text
    assert "ORDER BY id" in in_order
    monkeypatch.setattr(units, "_LOCK", text(in_order.replace("ORDER BY id", "ORDER BY random()")))

    counts = _Crowd().run(100 * _ROUNDS)

    assert counts["DeadlockDetected"] > 0
