"""`python -m bench.jobs.rivals.procrastinate_app`: what `procrastinate worker` does, with a task that adds one.

Measured here with two processes, in jobs/s by jobs at the same time in each: 1: 432, 4: 618, 10: 581, 20: 549. uvloop,
which its own command does not use, makes 8 % of it. Finished jobs are kept, which is the default: deleting them was not
steady, with 31 and 233 jobs/s in two rounds where keeping them had 204 and 208, on a busy machine.
"""

from __future__ import annotations

import os
from typing import Any, Final

import psycopg_pool
import uvloop
from procrastinate import App, PsycopgConnector

from bench.jobs.effects import ADD_ONE

_CONCURRENCY: Final = 4

_DATABASE: Final = os.environ.get("BENCH_JOBS_DATABASE", "")

# It fetches and finishes one job per statement on connections of this pool, and keeps one of them to listen.
app = App(
    connector=PsycopgConnector(
        conninfo=_DATABASE,
        min_size=_CONCURRENCY + 2,
        max_size=_CONCURRENCY + 2,
    )
)
_pools: list[psycopg_pool.AsyncConnectionPool[Any]] = []


@app.task(name="add_one", queue="default")
async def add_one(row_id: int) -> None:
    """Add one to a row, in a transaction. An async task: a synchronous one would be handed to a thread and back."""
    if not _pools:  # No await between the look and the append, so there is one pool.
        _pools.append(psycopg_pool.AsyncConnectionPool(_DATABASE, min_size=1, max_size=_CONCURRENCY, open=False))
    await _pools[0].open()
    async with _pools[0].connection() as connection:
        await connection.execute(ADD_ONE.encode(), {"id": row_id})


async def _work() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=_CONCURRENCY)


if __name__ == "__main__":
    uvloop.run(_work())
