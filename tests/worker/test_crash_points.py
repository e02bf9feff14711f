"""Wherever a relay or a worker is killed, its successor brings the job to its end, and the effect is there once.

Each case has a database, a broker and processes of its own, and all of them go on at the same time: most of it is
waiting for a lease or a sweep.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.broker import Broker, own_broker
from tests.conftest import str_url
from tests.processes import Process, process, program, wait_until
from tests.worker.job_worker import ready, working

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path

_DEADLINE_SECONDS = 60

# How often the task starts: killed between its start and its commit it has to start again, and nowhere else.
RUNS = {
    "relay.leased": 1,
    "relay.marked": 1,
    "relay.published": 1,
    "worker.taken": 1,
    "claimed": 1,
    "completing": 2,
    "completed": 1,
}


@dataclass(frozen=True)
class Place:
    """What one case has for itself."""

    failpoint: str
    environ: dict[str, str]
    broker: Broker
    connection: psycopg.Connection[Any]
    logs: Path

    def ask(self, statement: str) -> Any:
        """The one value that a statement answers."""
        row = self.connection.execute(statement).fetchone()
        assert row is not None
        return row[0]

    @contextmanager
    def relaying(self, name: str, **told: str) -> Iterator[Process]:
        environ = self.broker.environ({**os.environ, **self.environ, **told})
        with process([program("harbor"), "relay"], environ, self.logs / f"{self.failpoint}-{name}.log") as relay:
            wait_until(lambda: "relay.started" in relay.text(), _DEADLINE_SECONDS, relay)
            yield relay

    @contextmanager
    def working(self, name: str, **told: str) -> Iterator[Process]:
        log = self.logs / f"{self.failpoint}-{name}.log"
        with working(self.environ, self.broker, log, "-c", "1", **told) as worker:
            yield worker


@dataclass(frozen=True)
class Outcome:
    """Where it came to."""

    state: str
    runs: int
    effects: int
    attempts: int


def crash(place: Place) -> Outcome:
    """Let one process die at its failpoint, replace it, and wait until the job is over and its queue is empty."""
    armed = {"HARBOR_FAILPOINT": place.failpoint}
    with ExitStack() as stack:
        if place.failpoint.startswith("relay."):
            worker = stack.enter_context(place.working("worker"))
            ready(worker)
            with place.relaying("killed", **armed) as killed:
                place.ask("SELECT harbor_enqueue_v1('job.effect')")
                wait_until(lambda: not killed.runs(), _DEADLINE_SECONDS, killed)
            stack.enter_context(place.relaying("relay"))
        else:
            relay = stack.enter_context(place.relaying("relay"))
            with place.working("killed", **armed) as killed:
                ready(killed)
                place.ask("SELECT harbor_enqueue_v1('job.effect')")
                # A child's death is told by its parent, which is then killed, too.
                wait_until(lambda: "signal 9" in killed.text() or not killed.runs(), _DEADLINE_SECONDS, killed, relay)
                killed.kill_group()
            worker = stack.enter_context(place.working("worker"))
        assert killed.popen.returncode == -signal.SIGKILL
        wait_until(lambda: place.ask("SELECT state FROM jobs") == "done", _DEADLINE_SECONDS, worker)
        # What the killed worker had taken stays with the broker for the visibility timeout, and is dropped then.
        wait_until(lambda: not place.broker.lengths(), _DEADLINE_SECONDS, worker)
        count = "SELECT count(*) FROM operator_actions WHERE action = '{}'"
        return Outcome(
            place.ask("SELECT state FROM jobs"),
            place.ask(count.format("run")),
            place.ask(count.format("effect")),
            place.ask("SELECT attempt FROM jobs"),
        )


def _crash(failpoint: str, broker: Broker, servers: Mapping[str, str], template: str, logs: Path) -> Outcome:
    """Make a place for one case, and remove it when that is over."""
    url = make_url(servers["HARBOR_DATABASE_URL"])
    name = f"harbor_crash_{uuid4().hex[:8]}"
    quick = {"HARBOR_JOB_REPUBLISH_SECONDS": "1"}
    environ = {**servers, **quick, "HARBOR_DATABASE_URL": str_url(url.set(database=name))}
    with psycopg.connect(str_url(url.set(drivername="postgresql")), autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            mine = str_url(url.set(drivername="postgresql", database=name))
            with psycopg.connect(mine, autocommit=True) as connection:
                known = "INSERT INTO job_types VALUES ('job.effect', 'default', 6, 5, '[]') ON CONFLICT DO NOTHING"
                connection.execute(known)
                return crash(Place(failpoint, environ, broker, connection, logs))
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def outcomes(
    servers: dict[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """All cases, each on its way."""
    logs = tmp_path_factory.mktemp("crashes")
    with ExitStack() as stack:
        brokers: dict[str, Broker] = {}
        for failpoint in RUNS:
            brokers[failpoint] = stack.enter_context(own_broker(servers))
            # One that is empty would be the next case's, too.
            brokers[failpoint].client.set("taken", failpoint)
        pool = stack.enter_context(ThreadPoolExecutor(len(brokers)))
        yield {name: pool.submit(_crash, name, broker, servers, template, logs) for name, broker in brokers.items()}


@pytest.mark.parametrize("failpoint", RUNS)
def test_a_job_is_done_once_wherever_its_process_is_killed(
    outcomes: dict[str, Future[Outcome]], failpoint: str
) -> None:
    outcome = outcomes[failpoint].result()

    assert (outcome.state, outcome.effects, outcome.runs) == ("done", 1, RUNS[failpoint])
    # An attempt is counted from its claim on.
    assert outcome.attempts == (2 if failpoint in {"claimed", "completing"} else 1)
