"""The speed of jobs, from the transaction that enqueues one to the one that has its effect, next to its peers'.

Promise: after each round every job had its effect, exactly once where that is promised; a side that lost one gets no
number.
"""

from bench.jobs import backlog, end_to_end, enqueue, idle, latency
from bench.jobs.goals import (
    BACKLOG,
    BULK,
    COST,
    IDLE,
    LATENCY_P50,
    LATENCY_P99,
    RELAY,
    VS_CELERY,
    VS_PGQUEUER,
    VS_PROCRASTINATE,
)
from bench.jobs.size import FULL, QUICK, Size
from bench.measure import Measurement

MEASUREMENTS: tuple[Measurement[Size], ...] = (
    Measurement((RELAY,), enqueue.run_relay),
    Measurement((BULK,), enqueue.run_bulk),
    Measurement((COST,), enqueue.run_cost),
    Measurement((VS_CELERY, VS_PROCRASTINATE, VS_PGQUEUER), end_to_end.run_jobs),
    Measurement((LATENCY_P50, LATENCY_P99), latency.run_latency),
    Measurement((BACKLOG,), backlog.run_backlog),
    Measurement((IDLE,), idle.run_idle),
)

__all__ = ["FULL", "MEASUREMENTS", "QUICK", "Size"]
