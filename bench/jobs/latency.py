"""How long a job waits in an idle system: from its transaction's commit to the moment its worker has claimed it."""

from __future__ import annotations

import math
import random
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from bench.jobs import effects, harbor, race
from bench.jobs.goals import LATENCY_P50, LATENCY_P99
from bench.jobs.harbor_app import TASK
from bench.measure import Result, check
from db import jobs
from db.session import transaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from bench.jobs.effects import Effects
    from bench.jobs.harbor import HarborSide
    from bench.jobs.size import Size

# Longer than a job takes, and not in step with a relay that looks every 50 ms.
_SHORTEST_PAUSE_SECONDS: Final = 0.03
_LONGEST_PAUSE_SECONDS: Final = 0.13

_NOW: Final = text("SELECT clock_timestamp()")
_STARTED: Final = text(
    "SELECT task_id, started_at FROM jobs WHERE task_id = ANY(:ids) AND state = 'done' AND attempt = 1"
)


def run_latency(size: Size) -> list[Result]:
    """Measure single jobs, one now and one then, with one relay and one worker that have nothing else to do."""
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harbor-bench-")))
        rows = stack.enter_context(effects.connected())
        rows.reset(0)
        with harbor.working(workers=size.workers, logs=logs) as side:
            race.wait_until_ready(side)
            rounds = [_waits_ms(side, rows, size.latency_jobs) for _ in range(size.latency_rounds + 1)][1:]
    note = f"{size.latency_jobs} jobs a round"
    return [
        Result(goal, [percentile(waits, percent) for waits in rounds], note)
        for goal, percent in ((LATENCY_P50, 50), (LATENCY_P99, 99))
    ]


def _waits_ms(side: HarborSide, rows: Effects, count: int) -> list[float]:
    """Return how long each of so many jobs waited, in milliseconds."""
    rows.reset(count)
    committed = dict(_enqueue(row_id) for row_id in range(1, count + 1))
    race.finish(side, rows, count)
    with transaction() as session:
        started: dict[UUID, datetime] = {
            row.task_id: row.started_at for row in session.execute(_STARTED, {"ids": list(committed)})
        }
    check(f"harbor ran {len(started)} of {count} jobs, each at its first attempt", right=len(started) == count)
    return [(started[task_id] - moment).total_seconds() * 1_000 for task_id, moment in committed.items()]


def _enqueue(row_id: int) -> tuple[UUID, datetime]:
    """Enqueue a job, and return its id and a moment just before its commit, by the clock that says when it started.

    The commit itself, a millisecond or so, is thereby part of the wait: it is seen before whoever made it is told.
    """
    time.sleep(random.uniform(_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS))
    with transaction() as session:
        task_id = jobs.enqueue(session, TASK, row_id)
        return task_id, session.execute(_NOW).scalar_one()


def percentile(numbers: Sequence[float], percent: float) -> float:
    """Return the smallest of `numbers` that at least `percent` of them do not exceed: one that was measured.

    Args:
        numbers: at least one.
        percent: above 0, and 100 at most.
    """
    return sorted(numbers)[math.ceil(len(numbers) * percent / 100) - 1]
