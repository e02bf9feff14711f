"""Every key of this bench with its target."""

from __future__ import annotations

from typing import Final

from bench.measure import Goal

RELAY: Final = Goal("relay_vs_send_task", "ledger rows/s that a relay publishes ÷ one send_task per row", 5)
BULK: Final = Goal("enqueue_bulk", "rows/s of one transaction with 1,000 jobs ÷ 1,000 apply_async", 8)
COST: Final = Goal(
    "enqueue_cost_ms", "what one enqueue adds to a transaction that writes one row", 0.7, unit="ms", better="less"
)
VS_CELERY: Final = Goal("end_to_end_vs_celery", "jobs/s, exactly once, ÷ bare Celery's, at least once", 0.6)
VS_PROCRASTINATE: Final = Goal("end_to_end_vs_procrastinate", "jobs/s, exactly once, ÷ Procrastinate's", 0.5)
VS_PGQUEUER: Final = Goal("end_to_end_vs_pgqueuer", "jobs/s, exactly once, ÷ pgqueuer's", 0.2)
LATENCY_P50: Final = Goal("latency_p50_ms", "commit to the task's start, idle, median", 50, unit="ms", better="less")
LATENCY_P99: Final = Goal(
    "latency_p99_ms", "commit to the task's start, idle, 99 of 100", 150, unit="ms", better="less"
)
BACKLOG: Final = Goal(
    "relay_backlog_growth", "relay rows/s with 1M rows, waiting or in a paused queue, the worse, ÷ with 10k", 0.8
)
IDLE: Final = Goal(
    "idle_cost", "CPU of one relay and one Beat with nothing to do, of a core", 5, unit="%", better="less"
)
