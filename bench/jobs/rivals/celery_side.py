"""Bare Celery: a message per job on Redis, at least once, and nothing that a transaction could take back."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis as client

from bench import redis
from bench.jobs import process
from bench.jobs.effects import database_url
from bench.jobs.rivals.celery_app import QUEUE, READY, TASK, app
from bench.jobs.side import Promise
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.jobs.process import Process


@dataclass(frozen=True, slots=True)
class CelerySide:
    """A worker whose children run the tasks; its main process takes the messages and runs none."""

    processes: Sequence[Process]
    _redis: Any
    _producer: Any
    name: str = "celery"
    promise: Promise = Promise.AT_LEAST_ONCE

    def ready(self) -> bool:
        """Return whether the worker takes messages: its app says so, for at WARNING Celery does not."""
        return self.processes[0].has_said(READY)

    def enqueue(self, ids: Sequence[int]) -> None:
        """Send a message per job, over one connection that stays open."""
        for row_id in ids:
            app.send_task(TASK, args=(row_id,), producer=self._producer)

    def drained(self) -> bool:
        """Return whether no message waits and none is unacknowledged."""
        return not self._redis.exists(QUEUE, "unacked")


@contextmanager
def working(*, workers: int, logs: Path) -> Iterator[CelerySide]:
    """Start one worker with `workers` prefork children."""
    options = [
        *("--app", "bench.jobs.rivals.celery_app", "worker", "--pool", "prefork", "--concurrency", str(workers)),
        # Its default log level.
        *("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]
    with redis.empty(settings().broker_url.get_secret_value()) as broker_url:
        environ = {"BENCH_JOBS_BROKER": broker_url, "BENCH_JOBS_DATABASE": database_url()}
        with (
            process.running("celery", "celery", options, environ, logs) as processes,
            client.Redis.from_url(broker_url) as server,
            app.connection_for_write(url=broker_url) as connection,
            app.amqp.Producer(connection) as producer,
        ):
            yield CelerySide(processes, server, producer)
