"""What Harbor's worker costs over a bare one: time per task, and memory per child.

Both are up all the time, each on a broker of its own, with the same settings; only one of them has messages at a time.
"""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import redis
from bench.measure import Goal, Result, ratios, take_turns
from bench.worker.side import App, wait_until_ready, working
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.reservations.size import Size
    from bench.worker.side import Side, Used

OVERHEAD: Final = Goal("worker_overhead", "tasks/s that do nothing, logged, ÷ bare Celery with the same settings", 0.9)
RSS: Final = Goal(
    "worker_rss_mb",
    "resident memory of a child beyond that of a bare Celery's with SQLAlchemy and psycopg",
    35,
    unit="MB",
    better="less",
)

_BARE_RAN: Final = re.compile(r"Task bench\.rest\[([^\]]+)\] succeeded")


def _harbor_ran(line: str) -> str | None:
    told = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
    return str(told["task_id"]) if told.get("event") == "task.ran" and told.get("outcome") == "done" else None


def _bare_ran(line: str) -> str | None:
    found = _BARE_RAN.search(line)
    return found and found[1]


HARBOR: Final = App("harbor", "bench.worker.harbor", _harbor_ran, task_on_database="reservations.expire")
BARE: Final = App("bare", "bench.worker.bare", _bare_ran)


def run_tasks(size: Size) -> list[Result]:
    """Measure tasks that do nothing, and then the children that ran them."""
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harbor-bench-")))
        server = settings().broker_url.get_secret_value()
        sides = []
        for app in (HARBOR, BARE):
            broker_url = stack.enter_context(redis.empty(server))
            log = logs / f"{app.name}.log"
            sides.append(stack.enter_context(working(app, broker_url, log, size.worker_children)))
        wait_until_ready(sides)
        used: dict[str, list[Used]] = {side.app.name: [] for side in sides}

        def turn(side: Side) -> float:
            rate, used_now = side.run(size.worker_tasks)
            used[side.app.name].append(used_now)
            return rate

        turns = {side.app.name: partial(turn, side) for side in sides}
        rates = take_turns(turns, rounds=size.worker_rounds, warm_ups=1, unit="tasks/s")
    ours, bare = (used[app.name][1:] for app in (HARBOR, BARE))
    return [_overhead(rates, ours, bare), _rss(ours, bare)]


def _overhead(rates: Mapping[str, Sequence[float]], ours: Sequence[Used], bare: Sequence[Used]) -> Result:
    our_rate, bare_rate = median(rates[HARBOR.name]), median(rates[BARE.name])
    extra = {
        "tasks_per_s": our_rate,
        "bare_tasks_per_s": bare_rate,
        "worker_cpu_ms_per_task": median(each.cpu_ms_per_task for each in ours),
        "bare_worker_cpu_ms_per_task": median(each.cpu_ms_per_task for each in bare),
    }
    note = f"{our_rate:,.0f} tasks/s, bare {bare_rate:,.0f}"
    return Result(OVERHEAD, ratios(rates[HARBOR.name], rates[BARE.name]), note, extra)


def _rss(ours: Sequence[Used], bare: Sequence[Used]) -> Result:
    beyond = [our.resident_mb - their.resident_mb for our, their in zip(ours, bare, strict=True)]
    extra = {
        "resident_mb": median(each.resident_mb for each in ours),
        "bare_resident_mb": median(each.resident_mb for each in bare),
        "unshared_mb": median(each.unshared_mb for each in ours),
        "bare_unshared_mb": median(each.unshared_mb for each in bare),
    }
    note = f"{extra['resident_mb']:.1f} MB a child, bare {extra['bare_resident_mb']:.1f}"
    return Result(RSS, beyond, note, extra)
