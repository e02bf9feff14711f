"""pgqueuer: a row per job in PostgreSQL, taken and finished in batches.

Its job commits on its own before it is logged as successful, so a worker that dies between repeats it.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from pgqueuer.db import SyncPsycopgDriver
from pgqueuer.queries import Queries, SyncQueries

from bench.jobs import process
from bench.jobs.effects import database_url
from bench.jobs.side import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.jobs.process import Process

_PROGRAM: Final = "bench.jobs.rivals.pgqueuer_app"
_BATCH: Final = 100  # Jobs per transaction.


@dataclass(frozen=True, slots=True)
class PgqueuerSide:
    """Worker processes with an event loop each."""

    processes: Sequence[Process]
    _connection: psycopg.Connection[Any]
    name: str = "pgqueuer"
    promise: Promise = Promise.AT_LEAST_ONCE

    def ready(self) -> bool:
        """Return whether each worker has asked for jobs, which its connection shows."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bench-pgqueuer'"
        return self._connection.execute(query).fetchone() == (len(self.processes),)

    def enqueue(self, ids: Sequence[int]) -> None:
        """Enqueue the jobs, a hundred per statement and transaction."""
        queries = SyncQueries(SyncPsycopgDriver(self._connection))
        for first in range(0, len(ids), _BATCH):
            payloads: list[bytes | None] = [str(row_id).encode() for row_id in ids[first : first + _BATCH]]
            queries.enqueue(["add_one"] * len(payloads), payloads, [0] * len(payloads))

    def drained(self) -> bool:
        """Return whether no job is left: one that has succeeded is moved to the log."""
        return self._connection.execute("SELECT FROM pgqueuer LIMIT 1").fetchone() is None


@contextmanager
def working(*, workers: int, logs: Path) -> Iterator[PgqueuerSide]:
    """Start `workers` processes."""
    url = database_url()
    asyncio.run(_install(url))
    environ = {"BENCH_JOBS_DATABASE": url}
    with (
        psycopg.connect(url, autocommit=True) as connection,
        process.running("pgqueuer", _PROGRAM, (), environ, logs, count=workers) as processes,
    ):
        yield PgqueuerSide(processes, connection)


async def _install(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await Queries.from_psycopg_connection(connection).install()
