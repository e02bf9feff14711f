"""Harbor's app in this process, to send with, and a worker of sample tasks, to see what workers do with a message."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from db.settings import settings
from tests.broker import Broker, own_broker
from tests.processes import Process, process, python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from celery import Celery

SOFT_SHUTDOWN_SECONDS = 2.0
RUN_SECONDS = 20
"""In which a worker on a busy machine starts and runs what is sent to it."""


@pytest.fixture(scope="session")
def app(servers: dict[str, str]) -> Celery:
    """Harbor's app with its tasks. It is made when it is first imported, which needs the environment."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in servers.items():
            patched.setenv(name, value)
        settings.cache_clear()
        from worker.celery import app

        app.loader.import_default_modules()
    settings.cache_clear()
    return app


@pytest.fixture(scope="module")
def broker(servers: dict[str, str]) -> Iterator[Broker]:
    """An empty broker of this module's own."""
    with own_broker(servers) as broker:
        yield broker


@pytest.fixture(scope="session")
def send(app: Celery) -> Callable[..., str]:
    """Send a task by name to a broker, and return the message's id."""

    def send(broker: Broker, name: str, *args: object, **options: Any) -> str:
        with app.connection_for_write(url=broker.url) as connection:
            sent = app.send_task(name, args=args, connection=connection, **options)
        assert sent.id is not None
        return str(sent.id)

    return send


@dataclass(frozen=True)
class Worker:
    """A worker of the sample tasks and its broker."""

    process: Process
    broker: Broker
    sending: Callable[..., str]

    def send(self, name: str, *args: object, **options: Any) -> str:
        """Send a task to it, and return the message's id."""
        return self.sending(self.broker, name, *args, **options)

    def run(self, name: str, *args: object) -> list[dict[str, Any]]:
        """Send a task, wait until one run of it is over, and return the lines it logged, that of its end included."""
        task_id = self.send(name, *args)
        self.wait_for("sample.over", over=task_id)
        return self.lines(task_id)

    def wait_for(self, event: str, **told: object) -> dict[str, Any]:
        """Wait until it has logged an event with these fields, and return that line."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.process.events(event) if told.items() <= line.items()]

        wait_until(found, RUN_SECONDS, self.process)
        return found()[0]

    def settle(self, *, running: int) -> None:
        """Wait until its main process is done with handing out tasks, of which at most `running` go on.

        A signal in the middle of that makes Celery 5.7 hang in its pool's `on_stop_not_started`. Another task has been
        acknowledged when the main process is back in its loop.
        """
        self.run("sample.read")
        wait_until(lambda: self.broker.unacked() <= running, RUN_SECONDS, self.process)

    def lines(self, task_id: str) -> list[dict[str, Any]]:
        """Every line of its log that names this message, whichever logger wrote it."""
        return [json.loads(line) for line in self.process.text().splitlines() if line[:1] == "{" and task_id in line]


@contextmanager
def _working(environ: Mapping[str, str], send: Callable[..., str], log: Path) -> Iterator[Worker]:
    quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = python("-m", "celery", "-A", "tests.worker.sample_tasks", "worker", "--concurrency", "2", *quick)
    sample = {
        "HARBOR_ENV": "prod",
        "HARBOR_LOCK_TIMEOUT_MS": "300",
        "HARBOR_SLOW_QUERY_MS": "150",
        "REMAP_SIGTERM": "SIGQUIT",  # As `harbor worker` sets it.
        "SAMPLE_SOFT_SHUTDOWN_SECONDS": str(SOFT_SHUTDOWN_SECONDS),
    }
    with (
        own_broker(environ) as broker,
        process(command, broker.environ({**os.environ, **environ, **sample}), log) as running,
    ):
        wait_until(lambda: "ready." in running.text(), RUN_SECONDS, running)
        yield Worker(running, broker, send)


@pytest.fixture(scope="module")
def _module_worker(
    servers: dict[str, str], send: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Worker]]:
    with ExitStack() as stack:
        started: list[Worker] = []

        def alive() -> Worker:
            if not started or not started[-1].process.runs():
                log = tmp_path_factory.mktemp("worker") / "worker.log"
                started.append(stack.enter_context(_working(servers, send, log)))
            return started[-1]

        yield alive


@pytest.fixture
def worker(_module_worker: Callable[[], Worker]) -> Worker:
    """A worker that serves all tests of a module; one that a test has ended is replaced.

    It uses no table, so it needs no database of its own.
    """
    return _module_worker()


@pytest.fixture
def new_worker(servers: dict[str, str], send: Callable[..., str], tmp_path: Path) -> Iterator[Worker]:
    """A worker that a test may break or end."""
    with _working(servers, send, tmp_path / "worker.log") as worker:
        yield worker
