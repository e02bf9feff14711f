"""The processes of a real Harbor, started for one demo: workers, relays, Beats and Flower, each with a log file.

Promise: entered, all of them have been started and answer; left, none runs any more.
"""

from __future__ import annotations

import secrets
import signal
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kombu.exceptions import OperationalError

from demo import audit, tasks
from demo.errors import DemoError
from demo.process import Process

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 90
STOP_SECONDS: Final = 10  # A warm shutdown waits for a sweep, which takes at most 4 s.
PING_SECONDS: Final = 0.5
POLL_SECONDS: Final = 0.1

# Two of each that the faults or the shoppers lean on; two cores are shared with PostgreSQL and the shoppers.
WORKERS: Final = ("default-1", "default-2", "expiry-1", "expiry-2", "bulk-1")
RELAYS = BEATS = 2


@dataclass(frozen=True, slots=True)
class Access:
    """How a person gets into Flower."""

    url: str
    user: str
    password: str


class Crew:
    """All processes of the house for the length of a `with` block: entered, they have been started and answer.

    Args:
        name: of this demo, unique on its broker.
        logs: a directory for the log files.
    """

    def __init__(self, name: str, logs: Path) -> None:
        port = _free_port()
        self.flower_access = Access(f"http://{HOST}:{port}", "harbor", secrets.token_urlsafe(12))
        self._name = name
        self._port = port
        self.workers = {each: self._worker(each, logs) for each in WORKERS}
        self.relays = [Process(f"relay {n}", ["relay"], logs / f"relay-{n}.log") for n in range(1, RELAYS + 1)]
        self.beats = [Process(f"Beat {n}", ["beat"], logs / f"beat-{n}.log") for n in range(1, BEATS + 1)]
        flower = {
            "HARBOR_FLOWER_ADDRESS": HOST,
            "HARBOR_FLOWER_PORT": str(port),
            "HARBOR_FLOWER_USER": self.flower_access.user,
            "HARBOR_FLOWER_PASSWORD": self.flower_access.password,
            "HARBOR_FLOWER_READ_ONLY": "true",
        }
        # Asked politely, Flower takes more than ten seconds, and it has nothing to lose.
        self.flower = Process("Flower", ["flower"], logs / "flower.log", stop_signal=signal.SIGKILL, environ=flower)

    def _worker(self, name: str, logs: Path) -> Process:
        pool = name.partition("-")[0]
        options = ["--pool", pool, "--concurrency", "1"]
        celery_options = ["--hostname", self._node(name), "--include", tasks.__name__]
        # On SIGTERM an idle worker takes 25 s, which is for rolling updates.
        return Process(
            f"worker {name}",
            ["worker", *options, "--", *celery_options],
            logs / f"{name}.log",
            stop_signal=signal.SIGINT,
        )

    def __enter__(self) -> Self:
        try:
            for process in self._all:
                process.start()
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop all processes, all at the same time."""
        for process in self._all:
            process.ask_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._all:
            process.end(max(0.0, deadline - time.monotonic()))

    def check(self) -> None:
        """Look whether everything runs that should.

        Raises:
            DemoError: something ended by itself.
        """
        for process in self._all:
            if process.crashed:
                raise process.failed("ended by itself")

    def ready(self, *workers: str) -> bool:
        """Return whether these workers answer now."""
        return len(pinged([self._node(name) for name in workers])) == len(workers)

    def relays_ready(self) -> bool:
        """Return whether every relay has come to the database; each keeps one connection."""
        return audit.sessions("harbor-relay") >= RELAYS

    def beats_ready(self) -> bool:
        """Return whether every Beat has come to the database; each keeps one connection."""
        return audit.sessions("harbor-beat") >= BEATS

    @property
    def _all(self) -> list[Process]:
        return [*self.workers.values(), *self.relays, *self.beats, self.flower]

    def _node(self, name: str) -> str:
        return f"{name}@{self._name}"

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while missing := self._missing():
            self.check()
            if time.monotonic() > deadline:
                raise missing.failed(f"did not answer within {START_SECONDS} s")
            time.sleep(POLL_SECONDS)

    def _missing(self) -> Process | None:
        """Return one of the processes that are not up, if there is any."""
        if not self.ready(*self.workers):
            return next((process for name, process in self.workers.items() if not self.ready(name)), None)
        if not self.relays_ready():
            return self.relays[-1]
        if not self.beats_ready():
            return self.beats[-1]
        return None if self._flower_listens() else self.flower

    def _flower_listens(self) -> bool:
        try:
            socket.create_connection((HOST, self._port), PING_SECONDS).close()
        except OSError:
            return False
        return True


def pinged(nodes: list[str] | None = None) -> list[str]:
    """Return which of these workers answer, or which of all that listen to the broker.

    Raises:
        DemoError: the broker cannot be reached.
    """
    # Celery's configuration needs the URLs, which are not known when this module is imported.
    from worker.celery import app

    try:
        answers = app.control.ping(destination=nodes, timeout=PING_SECONDS) or []
    except OperationalError as error:
        raise DemoError(f"HARBOR_BROKER_URL leads to no Redis: {error}") from None
    return [node for answer in answers for node in answer]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port
