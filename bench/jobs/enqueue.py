"""What it costs to put jobs in, many in one transaction or one beside other work, and to take them on to Redis.

The rivals do less: their message is no part of any transaction, and is lost with Redis.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

from bench import database
from bench.jobs import effects, ledger
from bench.jobs.goals import BULK, COST, RELAY
from bench.jobs.harbor_app import ADD_ONE_AS_SQL
from bench.jobs.publish import QUEUE, publishing
from bench.jobs.relaying import relay
from bench.measure import Result, check, ratios, take_turns
from db import jobs
from db.session import transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.jobs.effects import Effects
    from bench.jobs.publish import Publisher
    from bench.jobs.size import Size


def run_relay(size: Size) -> list[Result]:
    """Measure a relay beside one `send_task` per row."""
    with _prepared() as publisher:

        def relay_rows() -> float:
            ledger.empty()
            ledger.fill(QUEUE, size.relayed_rows)
            database.vacuum()
            return relay(publisher, size.relayed_rows, queue=QUEUE)

        turns = {"harbor": relay_rows, "send_task": lambda: publisher.send_task(size.published_rows)}
        rates = take_turns(turns, rounds=size.publish_rounds, warm_ups=1, unit="rows/s")
    ours, theirs = median(rates["harbor"]), median(rates["send_task"])
    extra = {"rows_per_s": ours, "send_task_rows_per_s": theirs}
    return [Result(RELAY, ratios(rates["harbor"], rates["send_task"]), f"{ours:,.0f} rows/s, {theirs:,.0f}", extra)]


def run_bulk(size: Size) -> list[Result]:
    """Measure one transaction with many jobs beside as many `apply_async`."""
    rows = size.published_rows
    with _prepared() as publisher:

        def enqueue_rows() -> float:
            ledger.empty()
            began = time.perf_counter()
            with transaction() as session:
                jobs.enqueue_many(session, [jobs.JobRequest(ledger.TASK) for _ in range(rows)])
            seconds = time.perf_counter() - began
            ledger.check_count("ready", rows)
            return rows / seconds

        turns = {"harbor": enqueue_rows, "apply_async": lambda: publisher.apply_async(rows)}
        rates = take_turns(turns, rounds=size.publish_rounds, warm_ups=1, unit="rows/s")
    ours, theirs = median(rates["harbor"]), median(rates["apply_async"])
    extra = {"rows_per_s": ours, "apply_async_rows_per_s": theirs}
    return [Result(BULK, ratios(rates["harbor"], rates["apply_async"]), f"{ours:,.0f} rows/s, {theirs:,.0f}", extra)]


def run_cost(size: Size) -> list[Result]:
    """Measure what one enqueue adds to a transaction that writes one row."""
    pairs = size.cost_pairs
    costs, plain_ms = [], []
    with effects.connected() as rows:
        ledger.declare()
        _pairs(rows, pairs)
        for _ in range(size.cost_rounds):
            plain, enqueuing = _pairs(rows, pairs)
            plain_ms.append(plain)
            costs.append(enqueuing - plain)
    extra = {"plain_transaction_ms": median(plain_ms)}
    return [Result(COST, costs, f"{median(plain_ms):.2f} ms without it", extra)]


def _pairs(rows: Effects, pairs: int) -> tuple[float, float]:
    """Return the median milliseconds of a transaction without and with an enqueue, which take turns."""
    rows.reset(2 * pairs)
    ledger.empty()
    took = [(_take_ms(2 * n + 1, enqueue=False), _take_ms(2 * n + 2, enqueue=True)) for n in range(pairs)]
    ledger.check_count("ready", pairs)
    counted = rows.counted()
    check(f"{counted.once} of {2 * pairs} transactions wrote their row", right=counted.once == 2 * pairs)
    plain, enqueuing = zip(*took, strict=True)
    return median(plain), median(enqueuing)


def _take_ms(row_id: int, *, enqueue: bool) -> float:
    began = time.perf_counter()
    with transaction() as session:
        session.execute(ADD_ONE_AS_SQL, {"id": row_id})
        if enqueue:
            jobs.enqueue(session, ledger.TASK)
    return (time.perf_counter() - began) * 1_000


@contextmanager
def _prepared() -> Iterator[Publisher]:
    """Yield a publisher, with a ledger that knows its task."""
    with publishing() as publisher:
        ledger.declare()
        yield publisher
