"""The processes of a real Harbor, started for one demo: a worker per pool, Beat and Flower, each with a log file.

Promise: each runs in a session of its own, so that a Ctrl-C in the terminal reaches the demo alone, which then stops
them; none of them, nor a child of one, is left behind, whatever ends the demo.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from db.settings import POOLS
from demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = "127.0.0.1"
START_SECONDS: Final = 60
STOP_SECONDS: Final = 10  # A warm shutdown waits for a sweep, which takes at most 4 s.
PING_SECONDS: Final = 0.5
LOG_TAIL_CHARACTERS: Final = 1_500


class Process:
    """One program of the house. Start it from the main thread: the leash that it is on ends with the thread."""

    def __init__(self, name: str, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._command = [sys.executable, "-m", *arguments]
        self._environ = {**os.environ, **environ}
        self._log = log
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program, or start it again after its end."""
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "demo.leash", str(os.getpid()), *self._command],
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Return whether the program runs."""
        return self._popen is not None and self._popen.poll() is None

    def kill(self) -> None:
        """End the program and all its children at once, with SIGKILL."""
        if self._popen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()

    def ask_to_stop(self) -> None:
        """Ask the program to end; `wait` waits for it."""
        if self._popen is not None:
            self._popen.terminate()

    def wait(self, seconds: float) -> None:
        """Wait so long for the end of the program, then kill it; whatever it leaves behind is killed, too."""
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(seconds)
            self.kill()

    def failed(self, problem: str) -> DemoError:
        """Return the error that says what is wrong with this program, with the end of its log."""
        tail = self._log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()
        return DemoError(f"{self.name} {problem}; its log ends:\n{tail}")


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
        self.workers = {pool: self._worker(pool, logs) for pool in POOLS}
        beat = ["celery", "-A", "worker", "beat", "--schedule", str(logs / "beat-schedule"), "--pidfile="]
        self.beat = Process("Beat", beat, {}, logs / "beat.log")
        flower = {
            "HARBOR_FLOWER_ADDRESS": HOST,
            "HARBOR_FLOWER_PORT": str(port),
            "HARBOR_FLOWER_USER": self.flower_access.user,
            "HARBOR_FLOWER_PASSWORD": self.flower_access.password,
            "HARBOR_FLOWER_READ_ONLY": "true",
        }
        self.flower = Process("Flower", ["cli", "flower"], flower, logs / "flower.log")
        self._port = port

    def _worker(self, pool: str, logs: Path) -> Process:
        # One child each: two cores are shared with PostgreSQL and the shoppers.
        options = ["-n", self._node(pool), "-Q", pool, "-c", "1"]
        return Process(
            f"the {pool} worker",
            ["celery", "-A", "worker", "worker", *options],
            {"HARBOR_WORKER_POOL": pool},
            logs / f"{pool}.log",
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
            process.wait(max(0.0, deadline - time.monotonic()))

    def ready(self, *pools: str) -> bool:
        """Return whether the workers of these pools answer now."""
        return len(pinged([self._node(pool) for pool in pools])) == len(pools)

    @property
    def _all(self) -> list[Process]:
        return [*self.workers.values(), self.beat, self.flower]

    def _node(self, pool: str) -> str:
        return f"{pool}@{self._name}"

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not (self.ready(*self.workers) and self._flower_listens()):
            for process in self._all:
                if not process.alive:
                    raise process.failed("ended as soon as it was started")
            if time.monotonic() > deadline:
                silent = [process for pool, process in self.workers.items() if not self.ready(pool)]
                raise (silent or [self.flower])[0].failed(f"did not answer within {START_SECONDS} s")

    def _flower_listens(self) -> bool:
        try:
            socket.create_connection((HOST, self._port), PING_SECONDS).close()
        except OSError:
            return False
        return True


def pinged(nodes: list[str] | None = None) -> list[str]:
    """Return which of these workers answer, or which of all that listen to the broker."""
    # Celery's configuration needs the URLs, which are not known when this module is imported.
    from worker.celery import app

    answers = app.control.ping(destination=nodes, timeout=PING_SECONDS)
    return [node for answer in answers for node in answer]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port
