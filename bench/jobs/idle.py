"""What processes take of a processor while they have nothing to do: one relay and one Beat, with Harbor's schedules."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
from sqlalchemy import text

from bench import redis
from bench.jobs import harbor, process
from bench.jobs.goals import IDLE
from bench.measure import Result, check
from db.session import transaction
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.jobs.process import Process
    from bench.jobs.size import Size

_START_SECONDS: Final = 60
_LOOK_SECONDS: Final = 0.1
_TICKED: Final = text("SELECT FROM schedule_ticks LIMIT 1")


def run_idle(size: Size) -> list[Result]:
    """Measure a relay and a Beat of a shop in which nothing happens, and no worker runs."""
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harbor-bench-")))
        broker_url = stack.enter_context(redis.empty(settings().broker_url.get_secret_value()))
        environ = harbor.environ(broker_url)
        relay = stack.enter_context(harbor.relaying(environ, logs))
        (beat,) = stack.enter_context(process.running("harbor-beat", "cli", ["beat"], environ, logs))
        _wait_until_at_work(relay.process, beat, relay.alive)
        percents = []
        for _ in range(size.idle_rounds):
            looked = relay.alive.stat().st_mtime_ns
            percents.append(percent_of_a_core((relay.process.pid, beat.pid), size.idle_seconds))
            check("harbor-relay has not looked for jobs", right=relay.alive.stat().st_mtime_ns > looked)
            for each in (relay.process, beat):
                each.check(in_time=True)
    return [Result(IDLE, percents, f"{size.idle_seconds:.0f} s a round")]


def _wait_until_at_work(relay: Process, beat: Process, alive: Path) -> None:
    """Wait until the relay has looked for jobs and Beat has written its first tick."""
    deadline = time.perf_counter() + _START_SECONDS
    while not (alive.exists() and _has_ticked()):
        for each in (relay, beat):
            each.check(in_time=time.perf_counter() < deadline)
        time.sleep(_LOOK_SECONDS)


def _has_ticked() -> bool:
    with transaction() as session:
        return session.execute(_TICKED).first() is not None


def percent_of_a_core(pids: Iterable[int], seconds: float) -> float:
    """Return what processes and their children use during the next `seconds`, as a percentage of one core."""
    watched = list(pids)
    used, began = cpu_seconds(watched), time.perf_counter()
    time.sleep(seconds)
    return 100 * (cpu_seconds(watched) - used) / (time.perf_counter() - began)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return what processes have used so far, with all below them and with those children that ended and were reaped.

    Raises:
        psutil.NoSuchProcess: one of `pids` has ended.
    """
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        total += _own(process)
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                total += _own(child)
    return total


def _own(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
