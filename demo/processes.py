"""The processes of a real Harbor, started for one demo: a worker per pool, Beat and Flower, each with a log file.

Promise: each runs in a session of its own, so that a Ctrl-C in the terminal reaches the demo alone, which then stops
them; none of them, nor a child of one, is left behind, whatever ends the demo (cli/child.py sees to a SIGKILL, on
Linux). `cli.children` keeps programs alive; here one has to die and come back when the demo says so.
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

from kombu.exceptions import OperationalError

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
    """One command of `harbor`. Start it from the main thread: the kernel ends it with the thread that started it."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._arguments = arguments
        self._stop_signal = stop_signal
        self._environ = {**os.environ, **(environ or {})}
        self._log = log
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program, or start it again after its end."""
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "cli.child", str(os.getpid()), *self._arguments],
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def crashed(self) -> bool:
        """Return whether the program has ended and nobody here asked for it."""
        return self._popen is not None and self._popen.poll() is not None

    def ask_to_stop(self) -> None:
        """Ask the program to end; `end` sees to it."""
        if self._popen is not None:
            self._popen.send_signal(self._stop_signal)

    def end(self, patience_seconds: float = 0) -> None:
        """Wait so long for the program to end, then kill it and whatever it started, with SIGKILL."""
        if self._popen is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(patience_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._popen = None

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
        self._port = port
        self.workers = {pool: self._worker(pool, logs) for pool in POOLS}
        self.beat = Process("Beat", ["beat", "--schedule", str(logs / "beat-schedule")], logs / "beat.log")
        flower = {
            "HARBOR_FLOWER_ADDRESS": HOST,
            "HARBOR_FLOWER_PORT": str(port),
            "HARBOR_FLOWER_USER": self.flower_access.user,
            "HARBOR_FLOWER_PASSWORD": self.flower_access.password,
            "HARBOR_FLOWER_READ_ONLY": "true",
        }
        # Asked politely, Flower takes more than ten seconds, and it has nothing to lose.
        self.flower = Process("Flower", ["flower"], logs / "flower.log", stop_signal=signal.SIGKILL, environ=flower)

    def _worker(self, pool: str, logs: Path) -> Process:
        # One child each: two cores are shared with PostgreSQL and the shoppers.
        options = ["--pool", pool, "--concurrency", "1", "--", "--hostname", self._node(pool)]
        # On SIGTERM an idle worker takes 25 s, which is for rolling updates.
        return Process(f"the {pool} worker", ["worker", *options], logs / f"{pool}.log", stop_signal=signal.SIGINT)

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
            self.check()
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
