"""`python -m bench.jobs.rivals.pgqueuer_app`: what `pgq run` does, with an entrypoint that adds one.

Measured here with two processes, in jobs/s by jobs taken at once and connections for the jobs of each: 10 and 4: 2,016,
10 and 10: 2,801, 50 and 10: 3,044, 200 and 10: 3,263. (`pgq run` itself fails with the versions that are locked here.)
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pgqueuer
import psycopg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import PsycopgDriver
from psycopg_pool import AsyncConnectionPool

from bench.jobs.effects import ADD_ONE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pgqueuer.models import Job

_BATCH: Final = 200
_CONNECTIONS: Final = 10


class _Driver(PsycopgDriver):
    """Its driver, with a second connection to listen on.

    Out of the box it listens on the connection that it works on, which psycopg locks for that, a second at a time: its
    queries waited for it, and rounds of 83 and of 2,450 jobs/s stood side by side.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], listening: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection)
        self._listening = PsycopgDriver(listening)

    async def add_listener(self, channel: str, callback: Callable[[str | bytes | bytearray], None]) -> None:
        """Have `callback` called with each notification."""
        await self._listening.add_listener(channel, callback)


@asynccontextmanager
async def working() -> AsyncIterator[PgQueuer]:
    """Yield a worker: its own connection takes and finishes jobs in batches, the pool's are the jobs'."""
    url = os.environ["BENCH_JOBS_DATABASE"]
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
        await psycopg.AsyncConnection.connect(url, autocommit=True, application_name="bench-pgqueuer") as listening,
        AsyncConnectionPool(url, min_size=1, max_size=_CONNECTIONS) as pool,
    ):
        queuer = PgQueuer(_Driver(connection, listening))

        @queuer.entrypoint("add_one")
        async def add_one(job: Job) -> None:
            async with pool.connection() as own:
                await own.execute(ADD_ONE.encode(), {"id": int(job.payload or b"")})

        yield queuer


if __name__ == "__main__":
    uvloop.run(pgqueuer.run(working, batch_size=_BATCH))
