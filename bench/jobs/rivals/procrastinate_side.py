"""Procrastinate: a row per job in PostgreSQL, taken and finished one at a time.

Its job commits on its own before it is marked as finished, so a worker that dies between repeats it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from procrastinate import App, SyncPsycopgConnector

from bench.jobs import process
from bench.jobs.effects import database_url
from bench.jobs.side import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from procrastinate.types import JSONDict

    from bench.jobs.process import Process

_PROGRAM: Final = "bench.jobs.rivals.procrastinate_app"
_BATCH: Final = 100  # Jobs per transaction.


@dataclass(frozen=True, slots=True)
class ProcrastinateSide:
    """Worker processes with an event loop each."""

    processes: Sequence[Process]
    _app: App
    _connection: psycopg.Connection[Any]
    name: str = "procrastinate"
    promise: Promise = Promise.AT_LEAST_ONCE

    def ready(self) -> bool:
        """Return whether each worker has written itself down, which it does before it looks for jobs."""
        query = "SELECT count(*) FROM procrastinate_workers"
        return self._connection.execute(query).fetchone() == (len(self.processes),)

    def enqueue(self, ids: Sequence[int]) -> None:
        """Defer the jobs, a hundred per statement and transaction."""
        deferrer = self._app.configure_task("add_one", queue="default")
        for first in range(0, len(ids), _BATCH):
            told: list[JSONDict] = [{"row_id": row_id} for row_id in ids[first : first + _BATCH]]
            deferrer.batch_defer(*told)

    def drained(self) -> bool:
        """Return whether no job is to do or being done."""
        query = "SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1"
        return self._connection.execute(query).fetchone() is None


@contextmanager
def working(*, workers: int, logs: Path) -> Iterator[ProcrastinateSide]:
    """Start `workers` processes."""
    url = database_url()
    with (
        App(connector=SyncPsycopgConnector(conninfo=url, min_size=1, max_size=1)).open() as app,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        app.schema_manager.apply_schema()
        environ = {"BENCH_JOBS_DATABASE": url}
        with process.running("procrastinate", _PROGRAM, (), environ, logs, count=workers) as processes:
            yield ProcrastinateSide(processes, app, connection)
