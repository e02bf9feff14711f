"""A round of the race: from before the first enqueue until the last job has had its effect, with warm, idle workers."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.jobs import effects
from bench.jobs.side import Promise
from bench.measure import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.jobs.effects import Effects
    from bench.jobs.side import Side, Starts

_START_SECONDS: Final = 60
_RUN_SECONDS: Final = 300  # Far more than a round needs.
_LOOK_SECONDS: Final = 0.02


@contextmanager
def sides(starts: Sequence[Starts], *, workers: int, jobs: int) -> Iterator[dict[str, Callable[[], float]]]:
    """Start each side with `workers` processes and yield, by its name, what runs a round of `jobs` and returns jobs/s.

    All are up for the length of the block; the caller lets them take turns.
    """
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harbor-bench-")))
        rows = stack.enter_context(effects.connected())
        rows.reset(0)
        running = [stack.enter_context(start(workers=workers, logs=logs)) for start in starts]
        for side in running:
            wait_until_ready(side)
        yield {side.name: partial(run, side, rows, jobs) for side in running}


def run(side: Side, rows: Effects, jobs: int) -> float:
    """Run a round and return the jobs per second.

    The end is when the last effect is there, seen from outside every 20 ms; what a side still has to write down then is
    not in its time, but is waited for, so that the next side has the machine for itself.

    Raises:
        CheckFailedError: a job was lost or, by a side that promises exactly once, repeated; or a process ended.
    """
    rows.reset(jobs)
    began = time.perf_counter()
    side.enqueue(range(1, jobs + 1))
    return jobs / (finish(side, rows, jobs) - began)


def wait_until_ready(side: Side) -> None:
    """Wait until all workers of a side wait for jobs. Raises CheckFailedError when they do not."""
    _wait(side, side.ready, seconds=_START_SECONDS)


def finish(side: Side, rows: Effects, jobs: int) -> float:
    """Wait until a side has nothing to do any more; return when the last effect was there, of `time.perf_counter`.

    Raises:
        CheckFailedError: as `run` does.
    """
    ended = rows.wait(partial(_check_processes, side, time.perf_counter() + _RUN_SECONDS))
    _wait(side, side.drained, seconds=_RUN_SECONDS)
    counted = rows.counted()
    kept = not counted.lost and (side.promise is Promise.AT_LEAST_ONCE or not counted.repeated)
    told = f"{side.name} promises {side.promise}: {counted.lost} of {jobs} jobs lost, {counted.repeated} repeated"
    check(told, right=kept)
    return ended


def _wait(side: Side, condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.perf_counter() + seconds
    while not condition():
        _check_processes(side, deadline)
        time.sleep(_LOOK_SECONDS)


def _check_processes(side: Side, deadline: float) -> None:
    for each in side.processes:
        each.check(in_time=time.perf_counter() < deadline)
