"""A worker of the jobs in tests/worker/job_tasks.py, a ledger of its own, and a relay in this process.

The relay does what `harbor relay` does, and sweeps at each turn, so that no test waits for a sweep.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from sqlalchemy.engine import make_url

from db import engine, jobs
from db.session import transaction
from db.settings import settings
from tests.conftest import str_url
from tests.db.sql import value
from tests.ledger import state
from tests.processes import Process, process, python, wait_until
from worker.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from uuid import UUID

    import pytest
    from celery import Celery

    from tests.broker import Broker

LEASE_SECONDS = 2.0
SOFT_SHUTDOWN_SECONDS = 1.0
RUN_SECONDS = 40
"""In which a job comes to its end on a busy machine, with a few attempts and their backoff."""
_TURN_SECONDS = 0.02


@contextmanager
def own_database(servers: Mapping[str, str], template: str, patched: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A migrated database of a module's own, which this process uses, too; its environment."""
    url = make_url(servers["HARBOR_DATABASE_URL"])
    name = f"harbor_jobs_{uuid4().hex[:8]}"
    mine = {**servers, "HARBOR_DATABASE_URL": str_url(url.set(database=name))}
    with psycopg.connect(str_url(url.set(drivername="postgresql")), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        for variable, told in mine.items():
            patched.setenv(variable, told)
        settings.cache_clear()
        engine.dispose()
        try:
            yield mine
        finally:
            engine.dispose()
            settings.cache_clear()
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@dataclass
class Carrier:
    """A relay that this process is: it publishes, sweeps, and remembers the last message of each job."""

    app: Celery
    broker: Broker
    republish_seconds: float = 10.0
    sent: dict[UUID, jobs.Message] = field(default_factory=dict)
    _stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Carrier]:
        """Relay during the block."""
        thread = threading.Thread(target=self._run, name="carrier")
        thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            thread.join()

    def again(self, task_id: UUID, times: int = 1) -> None:
        """Send the message of a job once more, as a broker does that has not heard of its end."""
        with self.app.connection_for_write(url=self.broker.url) as connection:
            producer: Any = connection.Producer(serializer="json")
            for _ in range(times):
                producer.publish(**Envelope(self.app).of(self.sent[task_id]))

    def _run(self) -> None:
        with self.app.connection_for_write(url=self.broker.url) as connection:
            producer: Any = connection.Producer(serializer="json")
            envelope = Envelope(self.app)
            while not self._stopped.wait(_TURN_SECONDS):
                with transaction() as session:
                    jobs.sweep(session)
                with transaction() as session:
                    messages = jobs.lease(session, self.republish_seconds)
                for message in messages:
                    self.sent[message.task_id] = message
                    producer.publish(**envelope.of(message))


@contextmanager
def working(environ: Mapping[str, str], broker: Broker, log: Path, *options: str, **told: str) -> Iterator[Process]:
    """A worker of the jobs: a parent and two children, unless the options say otherwise."""
    quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = python("-m", "celery", "-A", "tests.worker.job_tasks", "worker", "-c", "2", *quick, *options)
    own = {
        "HARBOR_JOB_LEASE_SECONDS": str(LEASE_SECONDS),
        "REMAP_SIGTERM": "SIGQUIT",  # As `harbor worker` sets it.
        "SAMPLE_SOFT_SHUTDOWN_SECONDS": str(SOFT_SHUTDOWN_SECONDS),
    }
    with process(command, broker.environ({**os.environ, **environ, **own, **told}), log) as running:
        yield running


def ready(*workers: Process) -> None:
    """Wait until workers take messages."""
    for worker in workers:
        wait_until(lambda worker=worker: "ready." in worker.text(), RUN_SECONDS, worker)  # type: ignore[misc]


def runs(task_id: UUID) -> int:
    """How often the task of a job was started."""
    counted = "SELECT count(*) FROM operator_actions WHERE action = 'run' AND subject = :id"
    return int(value(counted, id=str(task_id)))


@dataclass(frozen=True)
class Jobs:
    """A worker, its broker and the relay."""

    process: Process
    broker: Broker
    carrier: Carrier

    def wait_for(self, task_id: UUID, *states: str) -> str:
        """Wait until a job is in one of these states; which."""
        wait_until(lambda: state(task_id) in states, RUN_SECONDS, self.process)
        return state(task_id)

    def wait_for_start(self, task_id: UUID, times: int = 1) -> None:
        """Wait until a job's task was started so often."""
        wait_until(lambda: runs(task_id) >= times, RUN_SECONDS, self.process)

    def wait_for_silence(self) -> None:
        """Wait until no message is in a queue or in a worker's hands."""
        wait_until(lambda: not self.broker.lengths() and not self.broker.unacked(), RUN_SECONDS, self.process)

    def told(self, event: str, task_id: UUID) -> list[dict[str, Any]]:
        """What the worker has logged of a job under this event."""
        return [line for line in self.process.events(event) if line.get("task_id") == str(task_id)]
