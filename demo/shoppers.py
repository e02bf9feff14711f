"""Eight shoppers who replay a trace: what they ask of Harbor, and how often it gave which answer.

Promise: each order is asked for once, everything a shopper does is drawn from the seed and the order's own id, and no
answer goes uncounted: one that nobody expected is kept by name. A database that goes away is waited for, and what it
has not committed is asked for again.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from random import Random
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from psycopg.errors import DeadlockDetected
from sqlalchemy.exc import DBAPIError

from db import inventory, jobs, reservations
from db.errors import InsufficientStock, ReservationExpired, TooManyVariants
from demo.agenda import Agenda
from demo.survive import transact
from demo.tasks import FOLLOW_UP
from demo.trace import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

    from sqlalchemy.orm import Session

    from demo.trace import Return, Trace

T = TypeVar("T")

SHOPPERS: Final = 8
HOLD: Final = timedelta(seconds=3)
# Of those who got a hold; the others walk away and never come back.
CONFIRM, RELEASE = 0.7, 0.1
# How long a customer thinks. The last tenth of the hold is left for the way back.
THINKING_SECONDS = (0.2, 2.7)

# The trace's own rhythm, but nights and quiet hours are cut to a quarter of an hour, and rows of one minute, which do
# not say in which second they came, are ten seconds apart.
LONGEST_GAP: Final = timedelta(minutes=15)
SHORTEST_GAP: Final = timedelta(seconds=10)


class Intent(NamedTuple):
    """What the customer of one order will do when there is a hold, and after how many seconds."""

    ending: str
    thinking_seconds: float


def intent(seed: int, order_id: str) -> Intent:
    """Return what this customer does, the same in every run: "confirm", "release" or "walk away"."""
    rng = Random(f"{seed} {order_id}")
    drawn = rng.random()
    ending = "confirm" if drawn < CONFIRM else "release" if drawn < CONFIRM + RELEASE else "walk away"
    return Intent(ending, rng.uniform(*THINKING_SECONDS))


def paced(trace: Trace, window_seconds: float) -> Iterator[tuple[float, Order | Return]]:
    """Yield orders and returns in trace order, each with its moment within a window of so many seconds."""
    everything: list[Order | Return] = [*trace.orders, *trace.returns]
    events = sorted(everything, key=lambda event: event.ordered_at)
    moment, moments = timedelta(), []
    for event, before in zip(events, (events[0], *events), strict=False):
        moment += max(SHORTEST_GAP, min(LONGEST_GAP, event.ordered_at - before.ordered_at))
        moments.append(moment)
    for event, at in zip(events, moments, strict=True):
        yield at / moment * window_seconds, event


class Tally:
    """How often each thing happened; many threads write, one reads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def count(self, what: str, times: int = 1) -> None:
        """Count so many more of `what`."""
        with self._lock:
            self._counts[what] += times

    def fail(self, error: Exception) -> None:
        """Keep an error that nobody expected, by its kind and the first line of its message."""
        cause = error.orig if isinstance(error, DBAPIError) else None
        with self._lock:
            self._counts["deadlocks"] += isinstance(cause, DeadlockDetected)
            told = str(cause or error).partition("\n")[0]
            self._errors[f"{type(cause or error).__name__}: {told}"] += 1

    @property
    def counts(self) -> Counter[str]:
        """Return a copy of all counts."""
        with self._lock:
            return self._counts.copy()

    @property
    def errors(self) -> Counter[str]:
        """Return a copy of the unexpected errors."""
        with self._lock:
            return self._errors.copy()


class Shoppers:
    """Threads that replay a trace for the length of a `with` block; `finished` says when they are through."""

    def __init__(self, trace: Trace, variant_ids: Mapping[str, int], *, seed: int, window_seconds: float) -> None:
        self.tally = Tally()
        self._variant_ids = variant_ids
        self._seed = seed
        self._agenda = Agenda(
            (at, partial(self._order, event) if isinstance(event, Order) else partial(self._take_back, event))
            for at, event in paced(trace, window_seconds)
        )
        self._pool = ThreadPoolExecutor(SHOPPERS, thread_name_prefix="shopper")
        self._shopping: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._shopping = [self._pool.submit(self._shop) for _ in range(SHOPPERS)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._agenda.close()
        self._pool.shutdown()

    @property
    def finished(self) -> bool:
        """Return whether every order has been answered and every customer who meant to come back has."""
        return all(shopper.done() for shopper in self._shopping)

    def _shop(self) -> None:
        for deed in self._agenda.deeds():
            try:
                deed()
            except Exception as error:  # noqa: BLE001 - it is kept, shown in the report and fails the demo
                self.tally.fail(error)

    def _order(self, order: Order) -> None:
        lines = {self._variant_ids[sku]: qty for sku, qty in order.lines.items()}
        try:
            hold = self._transact(lambda session: reservations.reserve(session, order.order_id, lines, hold=HOLD))
        except InsufficientStock:
            self.tally.count("sold_out")
        except TooManyVariants:
            self.tally.count("refused")
        else:
            self.tally.count("holds")
            self._leave(order, hold.id)
        finally:
            self.tally.count("orders")

    def _leave(self, order: Order, reservation_id: int) -> None:
        ending, thinking_seconds = intent(self._seed, order.order_id)
        deeds: dict[str, Callable[[], None]] = {
            "confirm": partial(self._confirm, reservation_id, sum(order.lines.values())),
            "release": partial(self._release, reservation_id),
        }
        if ending in deeds:
            self._agenda.come_back(thinking_seconds, deeds[ending])

    def _confirm(self, reservation_id: int, units: int) -> None:
        def sell(session: Session) -> None:
            reservations.confirm(session, reservation_id, f"demo-payment-{reservation_id}")
            jobs.enqueue(session, FOLLOW_UP, reservation_id)

        try:
            self._transact(sell)
        except ReservationExpired:
            self.tally.count("late_confirms")
        else:
            self.tally.count("confirmed")
            self.tally.count("sold_units", units)

    def _release(self, reservation_id: int) -> None:
        try:
            self._transact(lambda session: reservations.release(session, reservation_id))
        except ReservationExpired:
            self.tally.count("late_releases")
        else:
            self.tally.count("released")

    def _take_back(self, back: Return) -> None:
        variant_id, reason = self._variant_ids[back.sku], f"order {back.order_id}"
        self._transact(lambda session: inventory.take_back(session, variant_id, back.qty, reason=reason))
        self.tally.count("returns")

    def _transact(self, deed: Callable[[Session], T]) -> T:
        return transact(deed, over=lambda: self._agenda.closed, count=self.tally.count)
