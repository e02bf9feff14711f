"""The ledger stays small: what is over is removed when it has been kept for long enough."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from db.jobs import retention
from db.jobs.retention import BATCH, KEEP, Batch, Kept
from db.session import transaction
from tasks.declare import task

log = structlog.get_logger()

# Below the minute between two ticks, with room for the last batch.
PRUNE_BUDGET: Final = timedelta(seconds=40)


@task("jobs.prune", repeatable=True)
def prune() -> None:
    """Remove batch by batch what is old enough, until nothing is or the time budget is spent."""
    pruned = prune_all(PRUNE_BUDGET)
    if any(pruned.removed.values()):
        log.info("jobs.pruned", finished=pruned.finished, **{kept.value: n for kept, n in pruned.removed.items() if n})


@dataclass(slots=True)
class Pruned:
    """How many rows were removed, of what; `finished` says that nothing else was old enough."""

    removed: dict[Kept, int] = field(default_factory=lambda: dict.fromkeys(Kept, 0))
    finished: bool = False


def prune_all(budget: timedelta) -> Pruned:
    """Remove what is old enough, one batch per transaction and of each kind in turn, until `budget` has passed.

    In turn, so that a backlog of done jobs does not keep everything else from being removed.
    """
    ends = time.monotonic() + budget.total_seconds()
    pruned = Pruned()
    left: dict[Kept, Batch | None] = dict.fromkeys(KEEP)
    while left:
        for kept, after in list(left.items()):
            with transaction() as session:
                batch = retention.prune(session, kept, after, limit=BATCH)
            pruned.removed[kept] += batch.removed
            if batch.removed < BATCH:
                del left[kept]
            else:
                left[kept] = batch
        if time.monotonic() >= ends:
            break
    pruned.finished = not left
    return pruned
