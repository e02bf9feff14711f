"""A worker that is measured: a real process, the only one on its broker, with its log in a file.

Promise: every task that was published has run exactly once, by the worker's own log, before its time counts; and
nothing of the worker is left when the block ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import redis

from bench.measure import CheckFailedError, check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROOT: Final = Path(__file__).resolve().parents[2]
_TASK: Final = "bench.rest"
_QUEUE: Final = "default"
_STAGE: Final = "bulk"  # A queue that exists and that this worker does not read.
_KEYS: Final = "harbor:"  # celeryconfig's global_keyprefix.
_PRIORITIES: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")  # kombu has a list for each priority of a queue.

_ON_DATABASE: Final = 20  # Tasks, so that each child has run one.
_MB: Final = 1_000_000

_START_SECONDS: Final = 60
_RUN_SECONDS: Final = 120  # Far more than a round needs.
_LOOK_SECONDS: Final = 0.01  # A look costs the server some 20 µs.
_TAIL_CHARACTERS: Final = 1_500


@dataclass(frozen=True, slots=True)
class App:
    """A Celery app.

    Attributes:
        name: what the side is called.
        module: where the app is, with the task that is measured.
        ran: returns the id of the task that a line of its log says has run.
        task_on_database: one of its tasks that makes a child connect to PostgreSQL; a child without has no engine yet.
    """

    name: str
    module: str
    ran: Callable[[str], str | None]
    task_on_database: str | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """What a round took of the machine, the main process included, and what its largest child has in memory.

    The largest, because a child is replaced after a thousand tasks, and a new one has touched little so far.
    `resident_mb` is what `ps` shows, with what a worker's processes share; `unshared_mb` is what one child more costs.
    """

    cpu_ms_per_task: float
    resident_mb: float
    unshared_mb: float


@dataclass(frozen=True, slots=True)
class Side:
    """A worker that runs."""

    app: App
    _broker_url: str
    _redis: Any
    _log: Path
    _popen: subprocess.Popen[bytes]

    def run(self, tasks: int) -> tuple[float, Used]:
        """Have so many tasks run; return how many there were per second, from the first message to the last ack."""
        published = self._publish(_TASK, tasks, _STAGE)
        staged = self._redis.keys(f"{_KEYS}{_STAGE}*")
        waiting = sum(self._redis.llen(key) for key in staged)
        check(f"{self.app.name}: {waiting} of {tasks} messages were published", right=waiting == tasks)
        read, cpu = self._log.stat().st_size, self._cpu_seconds()
        began = time.perf_counter()
        # All at once: a publisher that works meanwhile would take the processor from the worker.
        for key in staged:
            self._redis.rename(key, key.replace(_STAGE.encode(), _QUEUE.encode(), 1))
        seconds = self._wait_until_acknowledged() - began
        cpu_ms = (self._cpu_seconds() - cpu) * 1_000 / tasks
        self._check_log(read, published)
        return tasks / seconds, Used(cpu_ms, *self._memory())

    def _memory(self) -> tuple[float, float]:
        if self.app.task_on_database:
            self._publish(self.app.task_on_database, _ON_DATABASE, _QUEUE)
            self._wait_until_acknowledged()
        told = _read(self._children(), psutil.Process.memory_full_info)
        check(f"{self.app.name} has no child", right=bool(told))
        largest = max(told, key=lambda child: child.rss)
        return largest.rss / _MB, largest.uss / _MB

    def _cpu_seconds(self) -> float:
        """Return what the worker has used so far, with its children, those that have been replaced included."""
        worker = psutil.Process(self._popen.pid).cpu_times()
        used = [worker, *_read(self._children(), psutil.Process.cpu_times)]
        return float(sum(each.user + each.system for each in used) + worker.children_user + worker.children_system)

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self._popen.pid).children()

    def _publish(self, name: str, times: int, queue: str) -> set[str]:
        # The app is configured when it is imported, by an environment that this module's import is too early for.
        from worker.celery import app

        with app.connection_for_write(url=self._broker_url) as connection, app.amqp.Producer(connection) as producer:
            sent = [app.send_task(name, queue=queue, producer=producer) for _ in range(times)]
        return {str(each.id) for each in sent}

    def _wait_until_acknowledged(self) -> float:
        """Return when no message waited any more and none was unacknowledged.

        Seen from outside, by a look at the broker now and then: to be told of each task would cost both sides the same,
        and so hide a part of the difference.
        """
        watched = [f"{_KEYS}{_QUEUE}{priority}" for priority in _PRIORITIES] + [f"{_KEYS}unacked:{_QUEUE}"]
        deadline = time.perf_counter() + _RUN_SECONDS
        empty_since: float | None = None
        while True:
            if self._redis.exists(*watched):
                empty_since = None
            elif empty_since is not None:
                return empty_since
            else:
                # A message that was taken a moment ago may be on its way from the one key to the other: look again.
                empty_since = time.perf_counter()
            self.check(in_time=time.perf_counter() < deadline)
            time.sleep(_LOOK_SECONDS)

    def _check_log(self, read: int, published: set[str]) -> None:
        with self._log.open("rb") as log:
            log.seek(read)
            lines = log.read().decode(errors="replace").splitlines()
        runs = Counter(task_id for task_id in map(self.app.ran, lines) if task_id in published)
        repeated = sum(count > 1 for count in runs.values())
        told = f"{self.app.name} ran {len(runs)} of {len(published)} tasks, {repeated} of them more than once"
        check(told, right=runs.keys() == published and not repeated)

    def ready(self) -> bool:
        """Return whether the worker has said that it takes messages."""
        return " ready." in self._log.read_text("utf-8", errors="replace")

    def check(self, *, in_time: bool) -> None:
        """Check that the worker runs and is in time; what is wrong is said with the end of its log."""
        ended = self._popen.poll() is not None
        if ended or not in_time:
            tail = self._log.read_text("utf-8", errors="replace")[-_TAIL_CHARACTERS:]
            problem = "ended by itself" if ended else "did not do its work in time"
            raise CheckFailedError(f"{self.app.name} {problem}; its log ends:\n{tail}")


def _read(children: list[psutil.Process], read: Callable[[psutil.Process], Any]) -> list[Any]:
    """Return what is read of each child, without those that have just been replaced."""
    told = []
    for child in children:
        with suppress(psutil.NoSuchProcess):
            told.append(read(child))
    return told


@contextmanager
def working(app: App, broker_url: str, log: Path, children: int) -> Iterator[Side]:
    """Start a worker for the length of the block, as `harbor worker --pool default` does."""
    options = [
        *("--quiet", "--app", app.module, "worker", "--loglevel", "INFO", "--pool", "prefork"),
        *("--queues", _QUEUE, "--concurrency", str(children), "--without-gossip", "--without-mingle"),
    ]
    environ = {
        **os.environ,
        "HARBOR_BROKER_URL": broker_url,
        "HARBOR_WORKER_POOL": _QUEUE,
        "HARBOR_LOG_LEVEL": "INFO",
        "HARBOR_ENV": "prod",
    }
    with log.open("ab") as written, redis.Redis.from_url(broker_url) as client:
        popen = subprocess.Popen(
            [sys.executable, "-m", "bench.worker.child", str(os.getpid()), "celery", *options],
            cwd=_ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
        try:
            yield Side(app, broker_url, client, log, popen)
        finally:
            # It has nothing to lose, and asked politely it takes its time.
            with suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()


def wait_until_ready(sides: list[Side]) -> None:
    """Wait until all workers take messages."""
    deadline = time.perf_counter() + _START_SECONDS
    for side in sides:
        while not side.ready():
            side.check(in_time=time.perf_counter() < deadline)
            time.sleep(_LOOK_SECONDS)
