"""Jobs per second from enqueue to effect: Harbor, and each rival with the same number of processes that run jobs.

What a process is: Celery and Harbor have a worker with prefork children, which run the tasks, and its main process,
which does not; Harbor has a relay besides. Procrastinate and pgqueuer have processes with an event loop, which do
everything. Two of each, then, are three, four, two and two processes in all.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from bench.jobs import harbor, race
from bench.jobs.goals import VS_CELERY, VS_PGQUEUER, VS_PROCRASTINATE
from bench.jobs.rivals import celery_side, pgqueuer_side, procrastinate_side
from bench.measure import Result, ratios, take_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.jobs.side import Starts
    from bench.jobs.size import Size

RIVALS: Final[tuple[Starts, ...]] = (celery_side.working, procrastinate_side.working, pgqueuer_side.working)
_GOALS: Final = {"celery": VS_CELERY, "procrastinate": VS_PROCRASTINATE, "pgqueuer": VS_PGQUEUER}


def run_jobs(size: Size) -> list[Result]:
    """Measure Harbor and all rivals."""
    speeds = measure((harbor.working, *RIVALS), size)
    ours = speeds.pop("harbor")
    return [
        Result(
            _GOALS[rival],
            ratios(ours, theirs),
            f"{median(ours):,.0f} jobs/s, {rival} {median(theirs):,.0f}",
            {"jobs_per_s": median(ours), f"{rival}_jobs_per_s": median(theirs), "workers": size.workers},
        )
        for rival, theirs in speeds.items()
    ]


def measure(starts: Sequence[Starts], size: Size) -> dict[str, list[float]]:
    """Return the jobs per second of each side by its name; a round each is run first and does not count."""
    with race.sides(starts, workers=size.workers, jobs=size.race_jobs) as turns:
        return take_turns(turns, rounds=size.race_rounds, warm_ups=1, unit="jobs/s")
