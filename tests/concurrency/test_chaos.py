"""Everything that can be done to holds, at once: no deadlock, and the books add up at every moment."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import pytest

from db import inventory
from tasks.reservations import sweep as sweep_all
from tests.concurrency.books import Audit, audit, failures
from tests.concurrency.crowd import crowd
from tests.concurrency.guards import LOCK_ORDER, replace_in_reserve
from tests.concurrency.shop import DEADLOCK, buy, buy_in_batches, sweep
from tests.db.sql import change, value
from tests.factories import make_variant, make_variants
from tests.processes import wait_until

pytestmark = pytest.mark.usefixtures("environ", "patience")

_SECONDS = 20 * int(os.environ.get("HARBOR_TEST_ROUNDS", "1"))
_CONTROL_SECONDS = 30  # A broken order deadlocks within two seconds; PostgreSQL takes one to notice.
_END_SECONDS = 60

_CLIENT_PROCESSES = 4
_CLIENTS_EACH = 6
_BATCHERS = 1
_SWEEPERS = 3
_VARIANTS = 6
_STOCK = 12  # Fewer than 24 buyers of one to three units want at a time, so that many come up short.

# What a buyer may be told in a shop like this. Everything else is a failure.
_EXPECTED = {
    "reserved",
    "reserved again",
    "batched",
    "reserved in a batch",
    "extended",
    "kept a part",
    "confirmed",
    "answered",
    "answered again",
    "paid late",
    "refunded",
    "released",
    "taken back",
    "InsufficientStock",
    "KeepsTooMuch",
    "OrderAlreadyReserved",
    "OrderContended",
    "PaymentMismatch",
    "ReservationConfirmed",
    "ReservationExpired",
    "ReservationReleased",
}


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with something else as well must not make a long queue look like a fault."""
    monkeypatch.setenv("HARBOR_LOCK_TIMEOUT_MS", "25000")


@dataclass
class _Outcome:
    """What the buyers and the sweepers counted, and what the auditor saw."""

    bought: Counter[str]
    swept: Counter[str]
    audit: Audit

    @property
    def deadlocks(self) -> tuple[int, int]:
        """How many the processes met, and how many the server counted."""
        met = self.bought[DEADLOCK] + self.swept[DEADLOCK]
        return met, int(value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))


def _run(seconds: float) -> _Outcome:
    variant_ids = make_variants(_VARIANTS, stock=_STOCK)
    with crowd(_CLIENT_PROCESSES + _BATCHERS + _SWEEPERS + 1) as busy:
        buyers = [busy.start(buy, variant_ids, _CLIENTS_EACH, threads=_CLIENTS_EACH) for _ in range(_CLIENT_PROCESSES)]
        buyers += [busy.start(buy_in_batches, variant_ids) for _ in range(_BATCHERS)]
        sweepers = [busy.start(sweep) for _ in range(_SWEEPERS)]
        auditor = busy.start(audit)
        # A member that meets a deadlock stops the others.
        busy.stop.wait(seconds)
        busy.stop.set()
        outcome = _Outcome(
            sum((buyer.result(_END_SECONDS) for buyer in buyers), Counter()),
            sum((sweeper.result(_END_SECONDS) for sweeper in sweepers), Counter()),
            auditor.result(_END_SECONDS),
        )
    # A connection adds to the server's statistics when it ends.
    wait_until(lambda: not value("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^crowd-'"), 10)
    return outcome


def _holds(state: str) -> int:
    return int(value("SELECT count(*) FROM stock_reservations WHERE state = :state", state=state))


def test_24_buyers_and_3_sweepers_never_deadlock_and_the_books_always_add_up() -> None:
    outcome = _run(_SECONDS)

    unswept = _holds("expired") - outcome.swept["expired"]  # Closed by buyers who needed the units.
    open_holds = "SELECT count(*) FROM stock_reservations WHERE state = 'held' AND expires_at > now()"
    wait_until(lambda: not value(open_holds), 5)
    finished = sweep_all(timedelta(seconds=10)).finished
    print(outcome, unswept)  # noqa: T201 - shown when it fails

    assert outcome.deadlocks == (0, 0)
    assert outcome.audit.failures == []
    assert set(outcome.bought) <= _EXPECTED
    assert set(outcome.swept) == {"expired"}
    assert finished
    assert _holds("held") == 0
    assert _holds("confirmed") == outcome.bought["confirmed"] + outcome.bought["paid late"]
    assert value("SELECT count(*) FROM required_refunds") == outcome.bought["refunded"]
    assert failures() == []
    assert inventory.reconcile().broken == []
    _assert_it_was_busy(outcome, unswept)


_BUSY = {
    "reserved": 10,
    "reserved again": 1,
    "reserved in a batch": 0.5,
    "extended": 0.5,
    "kept a part": 0.5,
    "confirmed": 2,
    "released": 1,
    "paid late": 0.5,
    "refunded": 0.5,
    "answered again": 0.5,
}


def _assert_it_was_busy(outcome: _Outcome, unswept: int) -> None:
    """A run in which little happened would prove little."""
    for name, per_second in _BUSY.items():
        assert outcome.bought[name] > per_second * _SECONDS, name
    assert outcome.bought["InsufficientStock"] > 2 * _SECONDS
    assert outcome.swept["expired"] > _SECONDS
    assert unswept > _SECONDS
    assert outcome.audit.looks > 2 * _SECONDS


def test_with_unsorted_locks_it_deadlocks() -> None:
    replace_in_reserve(LOCK_ORDER, "ORDER BY random() FOR NO KEY UPDATE")

    outcome = _run(_CONTROL_SECONDS)

    met, counted = outcome.deadlocks
    assert met > 0
    assert counted > 0
    assert outcome.audit.failures == []


def test_with_locks_kept_while_waiting_for_due_holds_it_deadlocks() -> None:
    # What the savepoint prevents: a buyer who is short goes on to wait for a hold that a sweeper has, and that sweeper
    # waits for the buyer's variants.
    locked_first = "PERFORM 1 FROM variants v WHERE v.id = ANY (p_variant_ids) ORDER BY v.id FOR NO KEY UPDATE;"
    first_comment = "-- An order that cannot succeed writes nothing and locks nothing."
    replace_in_reserve(first_comment, f"{locked_first}\n  {first_comment}")

    outcome = _run(_CONTROL_SECONDS)

    met, counted = outcome.deadlocks
    assert met > 0
    assert counted > 0


def test_the_auditor_sees_a_single_missing_unit() -> None:
    variant_id = make_variant(stock=5)
    before = failures()
    change("UPDATE variants SET stock_qty = stock_qty - 1 WHERE id = :id", id=variant_id)

    after = failures()

    assert before == []
    assert [row["id"] for row in after] == [variant_id]
