"""`celery -A worker beat` as an operator runs it: several at once, killed and replaced, without a missing tick."""

from __future__ import annotations

import socket
from itertools import pairwise
from typing import TYPE_CHECKING

from db import schedule
from db.schedule import Declaration
from db.session import transaction
from tests import ledger
from tests.broker import own_broker
from tests.db.sql import rows, value
from tests.processes import ROOT, process, program, run, wait_until

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.processes import Process

START_SECONDS = 20
EVERY_SECONDS = 0.25


def test_beats_that_are_killed_and_replaced_miss_no_tick_and_run_none_twice(
    environ: dict[str, str], tmp_path: Path
) -> None:
    ledger.make_type()
    files = set(ROOT.glob("celerybeat*"))
    with transaction() as session:
        schedule.add(session, Declaration("counts", "sample.count", every_seconds=EVERY_SECONDS))

    with own_broker(environ) as broker:
        told = broker.environ(environ)

        def beat(number: int, **more: str) -> AbstractContextManager[Process]:
            command = [program("celery"), "-A", "worker", "beat"]
            return process(command, {**told, **more}, tmp_path / f"beat-{number}.log")

        def ticking(beats: int, *running: Process) -> None:
            """Wait until so many Beats are there and some ticks have come."""
            here = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'harbor-beat'"
            wait_until(lambda: value(here) >= beats, START_SECONDS, *running)
            before = value("SELECT count(*) FROM schedule_ticks")
            wait_until(lambda: value("SELECT count(*) FROM schedule_ticks") > before + 3, START_SECONDS, *running)

        # The second one never finds a broker: ticks need none.
        with beat(1) as first, beat(2, HARBOR_BROKER_URL="redis://127.0.0.1:1/0") as second:
            ticking(2, first, second)
            first.kill_group()
            ticking(1, second)
            with beat(3) as third:
                ticking(2, second, third)
                second.kill_group()
                ticking(1, third)
                node = f"celerybeat@{socket.gethostname()}"
                ping = run([program("celery"), "-A", "worker", "inspect", "ping", "--destination", node], told)
                code = third.terminate()

    assert ping.returncode == 0, ping.stdout + ping.stderr
    assert code == 0
    due = rows("SELECT due_at, task_id, skipped FROM schedule_ticks WHERE schedule = 'counts' ORDER BY due_at")
    assert {(after[0] - before[0]).total_seconds() for before, after in pairwise(due)} == {EVERY_SECONDS}
    made = [task_id for _, task_id, _ in due if task_id is not None]
    assert len(made) == len(set(made)) == value("SELECT count(*) FROM jobs WHERE task = 'sample.count'")
    # What a Beat that was just killed had not decided, the other found late: at the most the ticks of about a second.
    assert {skipped for _, _, skipped in due} <= {None, "superseded"}
    assert {"reservations-expire", "inventory-reconcile"} <= {name for (name,) in rows("SELECT name FROM schedules")}
    assert set(ROOT.glob("celerybeat*")) == files
