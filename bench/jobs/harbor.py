"""Harbor: a row per job in PostgreSQL, a relay that publishes it, and workers that commit effect and end together."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
import redis as client

from bench import redis
from bench.jobs import ledger, process
from bench.jobs.effects import database_url
from bench.jobs.harbor_app import READY, TASK
from bench.jobs.side import Promise
from db import jobs
from db.session import transaction
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.jobs.process import Process

APP: Final = "bench.jobs.harbor_app"
POOL: Final = "default"  # Of the worker; the task goes to the queue of this name, as all without a route do.

_BATCH: Final = 100  # Jobs per transaction.
_KEYS: Final = "harbor:"  # celeryconfig's global_keyprefix.
_LIVE: Final = "SELECT FROM jobs WHERE state = 'ready' OR state = 'published' OR state = 'running' LIMIT 1"


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay, and the file that it touches whenever it has looked for jobs: at WARNING it says nothing."""

    process: Process
    alive: Path


@dataclass(frozen=True, slots=True)
class HarborSide:
    """A worker whose children run the tasks, and a relay; the worker's main process and the relay run none."""

    worker: Process
    relay: Relay
    _redis: Any
    _connection: psycopg.Connection[Any]
    name: str = "harbor"
    promise: Promise = Promise.EXACTLY_ONCE

    @property
    def processes(self) -> Sequence[Process]:
        """Return the worker and the relay."""
        return (self.worker, self.relay.process)

    def ready(self) -> bool:
        """Return whether the worker takes messages and the relay has looked for jobs: at WARNING neither logs it."""
        return self.worker.has_said(READY) and self.relay.alive.exists()

    def enqueue(self, ids: Sequence[int]) -> None:
        """Enqueue the jobs, a hundred per statement and transaction."""
        for first in range(0, len(ids), _BATCH):
            requests = [jobs.JobRequest(TASK, (row_id,)) for row_id in ids[first : first + _BATCH]]
            with transaction() as session:
                jobs.enqueue_many(session, requests)

    def drained(self) -> bool:
        """Return whether no job waits, is on its way or runs, and no message waits or is unacknowledged."""
        if self._connection.execute(_LIVE).fetchone() is not None:
            return False
        held = self._redis.scan_iter(match=f"{_KEYS}{POOL}*", _type="list")
        return next(held, None) is None and not self._redis.exists(f"{_KEYS}unacked:{POOL}")


def environ(broker_url: str) -> dict[str, str]:
    """Return what all processes of Harbor are told here: their broker, and to log no more than the rivals do."""
    return {"HARBOR_BROKER_URL": broker_url, "HARBOR_LOG_LEVEL": "WARNING", "HARBOR_ENV": "prod"}


@contextmanager
def relaying(environ: Mapping[str, str], logs: Path) -> Iterator[Relay]:
    """Start a relay for the length of the block, with no job in the ledger: no worker here knows those of others."""
    ledger.empty()
    alive = logs / "relay-alive"
    with process.running("harbor-relay", "cli", ["relay", "--alive", str(alive)], environ, logs) as (relay,):
        yield Relay(relay, alive)


@contextmanager
def working(*, workers: int, logs: Path) -> Iterator[HarborSide]:
    """Start one worker with `workers` prefork children, and one relay, on a broker of their own."""
    options = ["worker", "--pool", POOL, "--concurrency", str(workers), "--", "--include", APP]
    with redis.empty(settings().broker_url.get_secret_value()) as broker_url:
        told = environ(broker_url)
        with (
            process.running("harbor-worker", "cli", options, told, logs) as (worker,),
            relaying(told, logs) as relay,
            client.Redis.from_url(broker_url) as server,
            psycopg.connect(database_url(), autocommit=True) as connection,
        ):
            yield HarborSide(worker, relay, server, connection)
