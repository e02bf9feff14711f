"""Who enqueues while everything falls over: threads that keep their own books of what they committed.

With each job a row is written into `chaos_wanted`, in the same transaction. So that row says whether a COMMIT whose
answer was lost took place.
"""

from __future__ import annotations

import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from db import jobs
from db.session import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from sqlalchemy.orm import Session

_PAUSE_SECONDS = (0.05, 0.35)
_KEYS = 3
_END_SECONDS = 60

_WANT = text("""
INSERT INTO chaos_wanted (key, task_id, ordering_key, delay_seconds) VALUES (:key, :task_id, :ordering_key, :delay)""")


@dataclass
class Books:
    """The keys of what a producer enqueued, by what it was told at the end of the transaction."""

    committed: list[str] = field(default_factory=list)
    rolled_back: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    """The transaction failed somewhere; its COMMIT may have taken place."""

    def add(self, other: Books) -> None:
        """Take over what another one holds."""
        self.committed += other.committed
        self.rolled_back += other.rolled_back
        self.unsure += other.unsure

    def __str__(self) -> str:
        return f"{len(self.committed)} committed, {len(self.rolled_back)} rolled back, {len(self.unsure)} unsure"


class _Regret(Exception):
    """Raised by a producer that has changed its mind."""


@dataclass
class Producer:
    """One that enqueues in all the ways that there are."""

    number: int
    draw: random.Random
    books: Books = field(default_factory=Books)
    _count: int = 0

    def produce(self) -> None:
        """Do one transaction."""
        shape = self.draw.choices((self._one, self._several, self._regret, self._savepoint), weights=(6, 2, 2, 2))[0]
        committed: list[str] = []
        try:
            with transaction() as session:
                shape(session, committed)
        except _Regret:
            self.books.rolled_back += committed
        except SQLAlchemyError:
            self.books.unsure += committed
        else:
            self.books.committed += committed

    def _one(self, session: Session, committed: list[str]) -> None:
        self._enqueue(session, committed)

    def _several(self, session: Session, committed: list[str]) -> None:
        # Keys that a transaction holds until its end, taken in two orders, would be a deadlock of this test's own.
        for _ in range(3):
            self._enqueue(session, committed, keyed=False)

    def _regret(self, session: Session, committed: list[str]) -> None:
        self._enqueue(session, committed)
        raise _Regret

    def _savepoint(self, session: Session, committed: list[str]) -> None:
        regretted: list[str] = []
        savepoint = session.begin_nested()
        self._enqueue(session, regretted)
        savepoint.rollback()
        self.books.rolled_back += regretted
        self._enqueue(session, committed, keyed=False)

    def _enqueue(self, session: Session, keys: list[str], *, keyed: bool = True) -> None:
        self._count += 1
        key = f"{self.number}-{self._count}"
        keys.append(key)
        task, args, options = self._job(key, keyed=keyed)
        task_id = jobs.enqueue(session, task, *args, **options)
        want(session, key, task_id, ordering_key=options.get("ordering_key"), delay=options.get("delay"))

    def _job(self, key: str, *, keyed: bool) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        place = self.draw.randrange(_KEYS)
        plain: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("chaos.effect", (key, 0.1), {}),
            ("chaos.effect", (key, self.draw.uniform(0, 0.3)), {"priority": self.draw.randrange(10)}),
            ("chaos.effect", (key,), {"delay": self.draw.uniform(0, 3)}),
            ("chaos.steps", (key,), {}),
            ("chaos.flaky", (key,), {}),
        ]
        if not keyed:
            return self.draw.choice(plain)
        long: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [("chaos.long", (key,), {})]
        several: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("chaos.effect", (key, 0.05), {"dedupe_key": f"dedupe {place}"}),
            ("chaos.steps", (key,), {"dedupe_key": f"dedupe {place}"}),
            ("chaos.effect", (key, 0.02), {"ordering_key": f"shared {place}"}),
            ("chaos.steps", (key,), {"ordering_key": f"own {self.number}"}),
        ]
        return self.draw.choice(plain * 4 + several * 3 + long)


def enqueue_slow(books: Books, count: int, pause_seconds: float) -> None:
    """Enqueue so many jobs that are in the middle of their transaction for so long."""
    keys = [f"slow-{number}" for number in range(count)]
    with transaction() as session:
        for key in keys:
            want(session, key, jobs.enqueue(session, "chaos.effect", key, pause_seconds))
    books.committed += keys


def want(
    session: Session, key: str, task_id: UUID | None, *, ordering_key: str | None = None, delay: float | None = None
) -> None:
    """Write down that this transaction wants an effect."""
    told = {"key": key, "task_id": task_id, "ordering_key": ordering_key, "delay": delay or 0}
    session.execute(_WANT, told)


@contextmanager
def producing(seed: int, produce: list[Callable[[], object]], trouble: threading.Event) -> Iterator[None]:
    """Call each of these again and again, in a thread of its own, for the length of the block.

    `trouble` is set when one raises, and the error is raised at the end of the block.
    """
    over = threading.Event()
    raised: list[BaseException] = []

    def work(number: int, call: Callable[[], object]) -> None:
        draw = random.Random(seed + number)
        try:
            while not over.wait(draw.uniform(*_PAUSE_SECONDS)):
                call()
        except BaseException as error:  # noqa: BLE001 - raised below
            raised.append(error)
            trouble.set()

    threads = [threading.Thread(target=work, args=told, name="producer") for told in enumerate(produce)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(_END_SECONDS)
    if raised:
        raise raised[0]
